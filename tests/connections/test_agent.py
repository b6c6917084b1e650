"""The agent as a stranger's machine sees it: one file, an old Python, nothing of the project."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from exporter.connections.agent import folder as agent_folder
from exporter.connections.agent.signature import check_inputs
from exporter.connections.agent_archive import write_agent
from exporter.connections.run_folder import read_response, write_request
from exporter.targets import TARGETS
from exporter.targets.coreml import loader as core_ml


def start(folder: Path, *flags: str, **options) -> subprocess.CompletedProcess:
    """Run the agent for all targets, without the project on its path."""
    agent = write_agent(folder, TARGETS.values())
    return subprocess.run([sys.executable, *flags, str(agent), str(folder)], check=False, **options)


def sources(folder: Path) -> dict[str, str]:
    """Return the files of the agent for all targets by name."""
    with zipfile.ZipFile(write_agent(folder, TARGETS.values())) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_imports_nothing_of_the_project_and_parses_as_python_3_9(tmp_path):
    inside = sources(tmp_path)
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in inside}
    runtimes = {"onnxruntime", "ai_edge_litert", "executorch", "torch", "coremltools"}
    for source in inside.values():
        tree = ast.parse(source, feature_version=(3, 9))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = {str(node.module)}
            else:
                continue
            strange = {name for name in names if name.partition(".")[0] not in {*sys.stdlib_module_names, "numpy"}}
            assert all(name in modules or name.partition(".")[0] in runtimes for name in strange), strange
            assert node not in tree.body or strange <= modules, "a runtime is imported inside its function"


def test_is_the_same_file_each_time_and_has_only_the_loaders_that_are_asked_for(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    whole = write_agent(tmp_path / "a", TARGETS.values()).read_bytes()
    turned = write_agent(tmp_path / "b", [*TARGETS.values()][::-1]).read_bytes()
    assert whole == turned
    with zipfile.ZipFile(write_agent(tmp_path, [TARGETS["onnx"], TARGETS["onnx"]])) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries if entry.filename.endswith("loader.py")] == [
        "exporter/targets/onnx/loader.py"
    ]
    assert {entry.date_time for entry in entries} == {(1980, 1, 1, 0, 0, 0)}


PROJECT = """
import os, runpy, sys
os._exit = sys.exit  # it ends its process at once
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    modules = [m for n, m in sys.modules.items() if n.partition(".")[0] in {"exporter", "models", "safeio"}]
    places = {m.__file__ for m in modules}
    assert places and all(place.startswith(sys.argv[0]) for place in places), places
    assert not {"pydantic", "typer", "torch"} & sys.modules.keys()
    sys.exit(ended.code)
"""


@pytest.mark.parametrize("flags", [("-I", "-P"), ("-P",), ()], ids=" ".join)
def test_one_file_in_an_empty_folder_is_all_that_is_needed(flags, tmp_path, make_request, tiny_onnx, expected):
    """Even where the project is installed, as here, all that runs comes out of the one file."""
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    request = make_request("onnx", tiny_onnx)
    write_request(tmp_path, request, "model.onnx", None, watch_stdin=False)
    agent = write_agent(tmp_path, [request.target])
    for words in ([str(agent), "."], ["-c", PROJECT, str(agent), "."]):
        (tmp_path / "outputs.npz").unlink(missing_ok=True)
        done = subprocess.run([sys.executable, *flags, *words], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        result = read_response(tmp_path, request)
        np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)


def test_runs_from_a_copy_with_a_relative_model_file(tmp_path, make_request, tiny_onnx, expected):
    shutil.copy(tiny_onnx, tmp_path / "model.onnx")
    request = make_request("onnx", tiny_onnx)
    write_request(tmp_path, request, "model.onnx", None, watch_stdin=False)
    done = start(tmp_path, "-I", stdin=subprocess.DEVNULL, capture_output=True)
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
    assert start(tmp_path, "-I").returncode == 1
    response = json.loads((tmp_path / "response.json").read_text())
    assert response["kind"] == "protocol"
    assert response["message"] == "the agent speaks protocol 4, the request 99"
    assert not (tmp_path / "outputs.npz").exists()


def test_reads_no_pickles(tmp_path, make_request, tiny_onnx):
    """An object array in inputs.npz would run code of the sender's choice."""
    write_request(tmp_path, make_request("onnx", tiny_onnx), str(tiny_onnx), None, watch_stdin=False)

    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    np.savez(tmp_path / "inputs.npz", np.array([[Payload()]], dtype=object), np.zeros((1, 1, 20), np.int32))
    assert start(tmp_path, "-I").returncode == 1
    assert not (tmp_path / "executed").exists()
    assert "allow_pickle" in json.loads((tmp_path / "response.json").read_text())["message"]


def test_its_own_alarm_ends_it_when_nobody_watches(tmp_path, make_request, fake_onnxruntime):
    model = fake_onnxruntime("import ctypes\nctypes.PyDLL(None).sleep(100_000)")
    write_request(tmp_path, make_request("onnx", model, time_limit_s=1.0), str(model), None, watch_stdin=False)
    done = start(tmp_path)
    assert done.returncode == -14


def test_a_closed_standard_input_ends_it_only_if_asked(tmp_path, make_request, fake_onnxruntime):
    model = fake_onnxruntime("import os, time\ntime.sleep(int(os.environ['ASLEEP_S']))\nraise RuntimeError('woke up')")
    own = {"agent.pyz", "request.json", "response.json"}
    for watch, status, left in ((True, 3, set()), (False, 1, own)):
        write_request(tmp_path, make_request("onnx", model), str(model), None, watch_stdin=watch)
        asleep = {**os.environ, "ASLEEP_S": "100000" if watch else "1"}  # only the input ends it where it watches
        done = start(tmp_path, stdin=subprocess.DEVNULL, env=asleep)
        assert done.returncode == status
        # Only what belongs to the run goes with it: never a file that somebody else put there.
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted({"any.onnx", "fake"} | left)


@pytest.fixture
def mac(monkeypatch):
    """The agent as on a Mac, up to Core ML itself: predict is an echo of what a real model description promises."""
    coremltools = pytest.importorskip("coremltools")

    class EchoModel(coremltools.models.MLModel):
        def predict(self, data):
            seen = {name: data.pop(name).copy() for name in list(data)}  # as the real one, it changes what it is given
            return {"doubled": 2 * seen["x"] + seen["ids"].sum(), "more": np.zeros((1,), np.float32)}

    monkeypatch.setattr(core_ml.platform, "system", lambda: "Darwin")
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
    runtime = core_ml.start(1, {})
    assert runtime.threads is None
    assert runtime.name.startswith("Core ML (coremltools 9.0, compute units ALL)")
    model = runtime.load(path, None)
    assert sorted((entry.name, entry.shape, entry.dtype) for entry in model.inputs) == [
        ("ids", [1, 5], "int32"),
        ("x", [1, 3], "float32"),
    ]
    assert sorted(model.outputs) == ["doubled", "more"]
    inputs = {"x": np.ones((4, 1, 3), np.float32), "ids": np.ones((4, 1, 5), np.int32)}
    check_inputs(model.inputs, inputs)
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
    assert agent_folder.refusal_of(RuntimeError(words))["kind"] == kind
