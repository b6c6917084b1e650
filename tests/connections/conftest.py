"""Tiny artifacts for every runtime, made once per test process, and fake runtimes that fail on demand."""

import importlib.util
import os
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from chromium import chromium
from phone import Visitor, Waiting
from servers import processes, wait_for
from web_packages import web_packages

from exporter.connections.browser import session, stand
from exporter.core.types import RunRequest, TensorSpec
from exporter.targets import TARGETS

CASES, ITEMS, CANDIDATES, VOCABULARY = 3, 10, 20, 50
SCORES = (TensorSpec("scores", (1, CANDIDATES), "float32"),)


def tiny_inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "item_ids": rng.integers(0, VOCABULARY, (CASES, 1, ITEMS), dtype=np.int32),
        "candidate_ids": rng.integers(0, VOCABULARY, (CASES, 1, CANDIDATES), dtype=np.int32),
    }


def request_for(target: str, model_file: Path, **changes: object) -> RunRequest:
    values: dict[str, object] = {
        "target": TARGETS[target],
        "model_file": model_file,
        "inputs": tiny_inputs(),
        "outputs": SCORES,
        "warmup": 1,
        "iterations": 5,
        "time_limit_s": 60.0,
    }
    return RunRequest(**{**values, **changes})  # type: ignore[arg-type]


def tiny_module():
    """scores = candidates . mean(tanh(linear(items))): an embedding table, a linear layer, a product."""
    torch = pytest.importorskip("torch")

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.table = torch.nn.Embedding(VOCABULARY, 8)
            self.linear = torch.nn.Linear(8, 8)

        def forward(self, item_ids, candidate_ids):
            user = torch.tanh(self.linear(self.table(item_ids))).mean(1)
            return {"scores": (self.table(candidate_ids) * user[:, None]).sum(-1)}

    return Tiny().eval()


@pytest.fixture
def inputs() -> dict[str, np.ndarray]:
    """The tiny model's inputs, [cases, 1, items] and [cases, 1, candidates]."""
    return tiny_inputs()


@pytest.fixture
def make_request():
    """Makes a request for the tiny model, with some fields changed."""
    return request_for


@pytest.fixture(scope="session")
def expected() -> np.ndarray:
    """Torch's own scores for `tiny_inputs`, [cases, 1, candidates]."""
    torch = pytest.importorskip("torch")
    module, inputs = tiny_module(), tiny_inputs()
    with torch.no_grad():
        rows = [
            module(*(torch.from_numpy(array[case]) for array in inputs.values()))["scores"].numpy()
            for case in range(CASES)
        ]
    return np.stack(rows)


def examples():
    torch = pytest.importorskip("torch")
    return torch.zeros(1, ITEMS, dtype=torch.int32), torch.zeros(1, CANDIDATES, dtype=torch.int32)


def onnx_if_installed():
    if importlib.util.find_spec("onnxruntime") is None:  # to be run by the agent, never imported here
        pytest.skip("onnxruntime is not installed")
    return pytest.importorskip("onnx")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory) -> Path:
    """Written node by node from the module's weights, so that the exporter is not under test here."""
    onnx = onnx_if_installed()
    helper, types, numpy_helper = onnx.helper, onnx.TensorProto, onnx.numpy_helper
    weights = {name.replace(".", "_"): value.detach().numpy() for name, value in tiny_module().named_parameters()}
    weights["one"] = np.array([1])
    weights["last"] = np.array([2])
    nodes = [
        helper.make_node("Gather", ["table_weight", "item_ids"], ["items"]),
        helper.make_node("Transpose", ["linear_weight"], ["w"], perm=[1, 0]),
        helper.make_node("MatMul", ["items", "w"], ["product"]),
        helper.make_node("Add", ["product", "linear_bias"], ["mapped"]),
        helper.make_node("Tanh", ["mapped"], ["bent"]),
        helper.make_node("ReduceMean", ["bent", "one"], ["user"], keepdims=1),
        helper.make_node("Gather", ["table_weight", "candidate_ids"], ["candidates"]),
        helper.make_node("Mul", ["candidates", "user"], ["weighted"]),
        helper.make_node("ReduceSum", ["weighted", "last"], ["scores"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info("item_ids", types.INT32, [1, ITEMS]),
            helper.make_tensor_value_info("candidate_ids", types.INT32, [1, CANDIDATES]),
        ],
        [helper.make_tensor_value_info("scores", types.FLOAT, [1, CANDIDATES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return save_onnx(graph, tmp_path_factory.mktemp("onnx") / "tiny.onnx")


def save_onnx(graph, path: Path) -> Path:
    import onnx

    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def onnx_chain(tmp_path):
    """Saves an ONNX model x -> y, both float32 [1, 8], made of the given nodes and constants."""
    onnx = onnx_if_installed()
    helper = onnx.helper

    def save(nodes, constants) -> Path:
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8]) for name in ("x", "y")]
        values = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
        made = [helper.make_node(kind, sources, sinks, **rest) for kind, sources, sinks, rest in nodes]
        return save_onnx(helper.make_graph(made, "chain", ends[:1], ends[1:], values), tmp_path / "chain.onnx")

    return save


@pytest.fixture(scope="session")
def tiny_tflite(tmp_path_factory) -> Path:
    litert_torch = pytest.importorskip("litert_torch")
    litert_torch.config.show_progress = False
    path = tmp_path_factory.mktemp("tflite") / "tiny.tflite"
    items, candidates = examples()
    model = litert_torch.convert(tiny_module(), sample_kwargs={"item_ids": items, "candidate_ids": candidates})
    model.export(str(path))
    return path


def save_pte(module, arguments, path: Path) -> Path:
    torch = pytest.importorskip("torch")
    exir = pytest.importorskip("executorch.exir")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        edge = exir.to_edge(torch.export.export(module, arguments))
        path.write_bytes(edge.to_executorch().buffer)
    return path


@pytest.fixture
def large_tensor_models(tmp_path):
    """Saves, for a target, y = sum(tanh(expand(x) * x + 1)) over an 8 GiB intermediate; x and y are [1, 2048]."""
    torch = pytest.importorskip("torch")

    class Large(torch.nn.Module):
        def forward(self, x):
            return {"y": (x.expand(1 << 20, 2048) * x + 1.0).tanh().sum(0, keepdim=True)}

    def save(target: str) -> Path:
        arguments = (torch.ones(1, 2048),)
        if target == "executorch":
            return save_pte(Large(), arguments, tmp_path / "large.pte")
        litert_torch = pytest.importorskip("litert_torch")
        litert_torch.config.show_progress = False
        path = tmp_path / "large.tflite"
        litert_torch.convert(Large().eval(), sample_kwargs={"x": arguments[0]}).export(str(path))
        return path

    return save


@pytest.fixture(scope="session")
def tiny_pte(tmp_path_factory) -> Path:
    return save_pte(tiny_module(), examples(), tmp_path_factory.mktemp("executorch") / "tiny.pte")


@pytest.fixture
def fake_onnxruntime(tmp_path, monkeypatch):
    """Puts a module named onnxruntime before the real one; its InferenceSession does what the given body says."""

    def install(body: str) -> Path:
        folder = tmp_path / "fake"
        folder.mkdir()
        lines = "\n".join(f"    {line}" for line in body.splitlines())
        session = f"class SessionOptions: pass\ndef InferenceSession(path, options, providers):\n{lines}\n"
        (folder / "onnxruntime.py").write_text(f"__version__ = '0'\n{session}")
        monkeypatch.setenv("PYTHONPATH", str(folder))
        model = tmp_path / "any.onnx"
        model.write_bytes(b"never read")
        return model

    return install


@pytest.fixture
def own_temporary_folder(tmp_path, monkeypatch):
    """Every run's folder goes into this one, which must be empty at the end of each test."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield folder
    assert list(folder.iterdir()) == []


@pytest.fixture
def web_runtimes(shared_folder, monkeypatch) -> None:
    """What runs artifacts in a browser is installed; skips where it cannot be had."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(web_packages(shared_folder)))


@pytest.fixture
def chromium_here(shared_folder, web_runtimes, monkeypatch) -> Path:
    """A Chromium is on the PATH; skips where none can be had."""
    program = chromium(shared_folder)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    return program


@pytest.fixture
def nothing_left(own_temporary_folder) -> Iterator[Path]:
    """The folder for temporary files, in which nothing is left at the end, and no process that knows it."""
    yield own_temporary_folder
    assert wait_for(lambda: not processes(own_temporary_folder)), processes(own_temporary_folder)


@pytest.fixture
def waiting(web_runtimes, nothing_left, monkeypatch) -> Iterator[Waiting]:
    """The product, to which phones come."""
    stands: dict[tuple[str, str], stand.Stand] = {}
    monkeypatch.setattr(stand, "_stands", stands)
    with ThreadPoolExecutor(1) as pool:
        yield Waiting(pool)
    stands.clear()


@pytest.fixture
def visitor(waiting, monkeypatch) -> Visitor:
    """A device that may come, and is not told of the end."""
    monkeypatch.setattr(session, "_FAREWELL_S", 0.0)
    return Visitor(waiting.stand)
