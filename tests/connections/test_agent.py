"""The agent as a stranger's machine sees it: one file, an old Python, nothing of the project."""

import ast
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from exporter.connections import agent
from exporter.connections.exchange import read_response, write_request

SOURCE = Path(agent.__file__)


def start(folder: Path, **options) -> subprocess.CompletedProcess:
    """Run a copy of the agent without the project on its path."""
    copy = folder / "agent.py"
    shutil.copy(SOURCE, copy)
    return subprocess.run([sys.executable, "-I", str(copy), str(folder)], capture_output=True, check=False, **options)


def test_imports_nothing_of_the_project_and_parses_as_python_3_9():
    tree = ast.parse(SOURCE.read_text(), feature_version=(3, 9))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(str(node.module).partition(".")[0])
    runtimes = {"numpy", "onnxruntime", "ai_edge_litert", "executorch", "torch", "coremltools"}
    assert imported - runtimes <= set(sys.stdlib_module_names)
    top = {name for node in tree.body if isinstance(node, ast.Import) for name in (alias.name for alias in node.names)}
    assert not top & (runtimes - {"numpy"})


def test_runs_from_a_copy_with_a_relative_model_file(tmp_path, make_request, tiny_onnx, expected):
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    request = make_request("onnx", tiny_onnx)
    write_request(tmp_path, request, "model.onnx", None, watch_stdin=False)
    done = start(tmp_path, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".part") == []
    result = read_response(tmp_path, request)
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)


def change_request(folder: Path, **fields) -> None:
    path = folder / "request.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def test_refuses_another_protocol(tmp_path, make_request, tiny_onnx):
    write_request(tmp_path, make_request("onnx", tiny_onnx), str(tiny_onnx), None, watch_stdin=False)
    change_request(tmp_path, protocol=99)
    assert start(tmp_path).returncode == 1
    response = json.loads((tmp_path / "response.json").read_text())
    assert response["kind"] == "protocol"
    assert response["message"] == "the agent speaks protocol 3, the request 99"
    assert not (tmp_path / "outputs.npz").exists()


def test_reads_no_pickles(tmp_path, make_request, tiny_onnx):
    """An object array in inputs.npz would run code of the sender's choice."""
    write_request(tmp_path, make_request("onnx", tiny_onnx), str(tiny_onnx), None, watch_stdin=False)

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "inputs.npz", np.array([[Payload()]], dtype=object), np.zeros((1, 1, 20), np.int32))
    assert start(tmp_path).returncode == 1
    assert not (tmp_path / "executed").exists()
    assert "allow_pickle" in json.loads((tmp_path / "response.json").read_text())["message"]


def test_its_own_alarm_ends_it_when_nobody_watches(tmp_path, make_request, fake_onnxruntime):
    model = fake_onnxruntime("import ctypes\nctypes.PyDLL(None).sleep(60)")
    write_request(tmp_path, make_request("onnx", model, time_limit_s=1.0), str(model), None, watch_stdin=False)
    began = time.monotonic()
    done = subprocess.run([sys.executable, str(SOURCE), str(tmp_path)], check=False)
    assert done.returncode == -14
    assert time.monotonic() - began < 10


def test_a_closed_standard_input_ends_it_only_if_asked(tmp_path, make_request, fake_onnxruntime):
    model = fake_onnxruntime("import time\ntime.sleep(1)\nraise RuntimeError('woke up')")
    exchanged = {"request.json", "response.json"}
    for watch, status, left in ((True, 3, set()), (False, 1, exchanged)):
        write_request(tmp_path, make_request("onnx", model), str(model), None, watch_stdin=watch)
        done = subprocess.run([sys.executable, str(SOURCE), str(tmp_path)], stdin=subprocess.DEVNULL, check=False)
        assert done.returncode == status
        # Only what belongs to the exchange goes with it: never a file that somebody else put there.
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"any.onnx", "fake"} | left)


@pytest.fixture
def mac(monkeypatch):
    """The agent as on a Mac, up to Core ML itself: predict is an echo of what a real model description promises."""
    coremltools = pytest.importorskip("coremltools")

    class EchoModel(coremltools.models.MLModel):
        def predict(self, data):
            seen = {name: data.pop(name).copy() for name in list(data)}  # as the real one, it changes what it is given
            return {"doubled": 2 * seen["x"] + seen["ids"].sum(), "more": np.zeros((1,), np.float32)}

    monkeypatch.setattr(agent.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(coremltools.models, "MLModel", EchoModel)
    return coremltools


def test_core_ml_is_fed_and_read_by_the_models_own_description(mac, tmp_path):
    from coremltools.converters.mil import Builder
    from coremltools.converters.mil.mil import types

    @Builder.program(
        input_specs=[Builder.TensorSpec((1, 3)), Builder.TensorSpec((1, 5), dtype=types.int32)],
        opset_version=mac.target.iOS17,
    )
    def program(x, ids):
        return Builder.mul(x=x, y=2.0, name="doubled"), Builder.cast(x=ids, dtype="fp32", name="more")

    path = tmp_path / "echo.mlpackage"
    package = mac.convert(
        program,
        convert_to="mlprogram",
        compute_precision=mac.precision.FLOAT32,
        minimum_deployment_target=mac.target.iOS17,
        skip_model_load=True,
    )
    package.save(str(path))
    runtime = agent.core_ml(1, {})
    assert runtime.threads is None
    assert runtime.name.startswith("Core ML (coremltools 9.0, compute units ALL)")
    model = runtime.load(path, None)
    assert sorted((entry.name, entry.shape, entry.dtype) for entry in model.inputs) == [
        ("ids", [1, 5], "int32"),
        ("x", [1, 3], "float32"),
    ]
    assert sorted(model.outputs) == ["doubled", "more"]
    inputs = {"x": np.ones((4, 1, 3), np.float32), "ids": np.ones((4, 1, 5), np.int32)}
    agent.check_inputs(model.inputs, inputs)
    feed = model.prepare({name: array[0] for name, array in inputs.items()})
    for _ in range(2):  # the feed survives a call, or the second one would miss its inputs
        results = dict(zip(model.outputs, model.collect(model.run(feed)), strict=True))
        np.testing.assert_array_equal(results["doubled"], [[7.0, 7.0, 7.0]])


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("std::bad_alloc", "memory"),
        ("Failed to allocate memory for requested buffer of size 8", "memory"),
        ("loading method failed with error 0x21", "memory"),
        ("method->execute() failed with error 0x12", "runtime"),
        ("failed with error 0x210", "runtime"),
    ],
)
def test_tells_lack_of_memory_from_other_errors(words, kind):
    assert agent.refusal_of(RuntimeError(words))["kind"] == kind
