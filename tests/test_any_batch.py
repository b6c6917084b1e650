"""Programs of the cloud on ONNX: a call takes any number of users, each of whom gets what it gets alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_models
from commands import run_here
from test_batch import MIXING

from exporter import pipeline
from exporter.artifact import store
from exporter.pipeline import source
from exporter.pipeline.lengths import Lowering
from exporter.pipeline.parity import run_golden
from exporter.targets import TARGETS
from safeio.progress import tell


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("scn", tmp_path_factory.mktemp("any") / "scn")


@pytest.fixture(scope="module")
def correct(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    choice = pipeline.ProgramChoice("scn", "correct", checkpoint)
    (made,) = pipeline.export(pipeline.ExportRequest(choice, "onnx", tmp_path_factory.mktemp("made")), tell)
    return Path(made.to_json()["artifact"])


def test_a_call_takes_any_number_of_users_and_figures_are_of_one(correct: Path) -> None:
    manifest = store.read_manifest(correct)
    judged = manifest.parity.in_one_call
    assert manifest.any_batch is True and manifest.batch is None and manifest.parity.verdict == "pass"
    assert judged is not None and (judged.users, judged.verdict) == (14, "pass")
    assert manifest.inputs[0].shape == (1, tiny_models.LENGTH, 16)
    assert manifest.flops is not None and not manifest.flops.uncounted and manifest.flops.total > 0
    graph = onnx.load(correct / "model.onnx").graph
    assert {value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)} == {"users"}
    assert not {"Shape", "Expand"} & {node.op_type for node in graph.node}  # nothing is left to find out in each call

    golden = store.read_golden(correct)
    session = onnxruntime.InferenceSession(correct / "model.onnx")
    hidden = golden.inputs["hidden_state"][:, 0]
    names = [output.name for output in session.get_outputs()]
    for users in (1, 2, 5, 14):
        for name, values in zip(names, session.run(names, {"hidden_state": hidden[:users]}), strict=True):
            np.testing.assert_allclose(values, golden.outputs[name][:users, 0], rtol=0, atol=1e-5)


def test_a_file_that_mixes_users_only_where_there_are_several_fails(correct: Path, tmp_path: Path) -> None:
    """Alone, a user is its own mean: nothing but the call with all of them can tell."""
    model = onnx.load(correct / "model.onnx")
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["own" if name == output else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "first"))
    model.graph.node.append(onnx.helper.make_node("ReduceMean", ["own", "first"], ["mean"], keepdims=1))
    model.graph.node.append(onnx.helper.make_node("Sub", ["own", "mean"], ["apart"]))
    model.graph.node.append(onnx.helper.make_node("Div", ["apart", "two"], ["half"]))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(2, np.float32), "two"))
    model.graph.node.append(onnx.helper.make_node("Sub", ["own", "half"], [output]))
    for file in correct.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    onnx.save(model, tmp_path / "model.onnx")
    manifest = store.read_manifest(correct)
    parity, _ = run_golden(tmp_path, manifest, tell)
    assert parity.verdict == "fail" and parity.in_one_call is not None
    assert "in one call: output" in str(parity.reason) and parity.reason.startswith("within the fp32 tolerance")
    alone, _ = run_golden(tmp_path, replace(manifest, any_batch=None), tell)
    assert alone.verdict == "pass"


def test_what_torch_itself_mixes_has_one_user(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mixing.py").write_text(MIXING)
    arguments = ["--model", f"{tmp_path / 'mixing.py'}:SPEC", "--untrained", "--target", "onnx", "--output", tmp_path]
    ended = run_here(capfd, "export", *arguments, "--json")
    assert (ended.code, "any_batch" in ended.document, ended.document["inputs"][0]["shape"][0]) == (0, False, 1)


def test_other_targets_have_one_user(checkpoint: Path) -> None:
    own = source.load(pipeline.ProgramChoice("scn", "correct", checkpoint))
    free = {name for name in TARGETS if Lowering(name, "fp32", {}).captured(own).any_batch}
    assert free == {"onnx"}
