"""Drift by hand, and of a real recurrent artifact over a border of mini-batches."""

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import torch

from exporter import pipeline
from exporter.parity.drift import drift
from exporter.pipeline import session
from models import checkpoint
from models.zoo import load_spec

STEPS = tiny_models.LENGTH + 2


def test_drift_by_hand():
    expected = np.array([[[3.0, 2.0, 1.0], [1.0, 1.0, 0.0]], [[3.0, 2.0, 1.0], [5.0, -9.0, 4.0]]])
    actual = expected.copy()
    actual[0, 0] = [3.0, 2.25, 1.0]
    actual[1, 0] = [3.0, 1.0, 1.5]  # ranks 2 and 3 change places
    actual[1, 1] = [5.0, -9.0, 6.0]  # ranks 1 and 2 do
    report = drift(expected, actual)
    assert (report.max_abs_error, report.scale) == ((0.25, 2.0), 9.0)
    assert (report.first_rank, report.first_step) == ((None, 1), 2)
    assert drift(expected, expected).first_step is None


@pytest.mark.parametrize("target", ["coreml", "onnx", "tflite"])  # ExecuTorch would take a process of 3 s per click
def test_an_artifact_that_is_fed_its_own_states_stays_with_torch(target: str, tmp_path: Path) -> None:
    model = "scn"  # the only one with mini-batches, and so with borders between them
    folder = tiny_models.write(model, tmp_path / "checkpoint")
    request = pipeline.ExportRequest(pipeline.ProgramChoice(model, "step", folder), target, tmp_path)
    (result,) = pipeline.export(request, lambda _: None)
    network = checkpoint.build(checkpoint.read(folder), load_spec(model))
    program = load_spec(model).programs["step"]
    rng = np.random.default_rng(3)
    clicks = rng.integers(1, tiny_models.VOCABULARY, (3, STEPS), dtype=np.int32)
    candidates = np.tile(np.arange(1, tiny_models.CANDIDATES + 1, dtype=np.int32), (3, 1))
    zeros = program.build(network).start(3)
    states = {name: part.numpy()[:, None] for name, part in zip(program.state.values(), zeros, strict=True)}
    expected, actual = [], []
    for step in range(STEPS):
        inputs = {"item_id": clicks[:, step, None, None], "candidate_ids": candidates[:, None], **states}
        outputs = session.run(Path(result.place), inputs).outputs
        states = {given: outputs[name] for name, given in result.manifest.state.items()}
        actual.append(outputs["scores"][:, 0])
        with torch.no_grad():  # as a whole history, which knows no states
            expected.append(network(torch.from_numpy(clicks[:, : step + 1]), torch.from_numpy(candidates)).numpy())
    report = drift(np.stack(expected), np.stack(actual))
    assert (max(report.max_abs_error) < 1e-4, report.first_step) == (True, None)
    assert report.scale > 0.1


def test_chunks_and_clicks_of_artifacts_go_on_from_each_other(tmp_path: Path) -> None:
    """A history is read in chunks and clicks in turn, and candidates are scored for the vector that comes out."""
    folder = tiny_models.write("scn", tmp_path / "checkpoint")
    artifacts = {}
    for name in ("chunk", "step", "rerank_user"):
        choice = pipeline.ProgramChoice("scn", name, folder)
        (artifacts[name],) = pipeline.export(pipeline.ExportRequest(choice, "onnx", tmp_path), lambda _: None)
    manifest = artifacts["chunk"].manifest
    assert manifest.flops.per_token == manifest.flops.total / tiny_models.LENGTH
    assert "up to 6 clicks" in (Path(artifacts["chunk"].place) / "README.md").read_text()
    network = checkpoint.build(checkpoint.read(folder), load_spec("scn"))
    rng = np.random.default_rng(3)
    clicks = rng.integers(1, tiny_models.VOCABULARY, (3, 20), dtype=np.int32)
    candidates = np.tile(np.arange(1, tiny_models.CANDIDATES + 1, dtype=np.int32), (3, 1))
    zeros = load_spec("scn").programs["chunk"].build(network).start(3)
    states = {name: part.numpy()[:, None] for name, part in zip(manifest.state.values(), zeros, strict=True)}
    read = 0
    for size in (4, 1, 5, 1):
        ids = np.zeros((3, 1, tiny_models.LENGTH), np.int32)
        ids[:, 0, :size] = clicks[:, read : read + size]
        read += size
        if size == 1:
            inputs, name = {"item_id": ids[..., :1], "candidate_ids": candidates[:, None], **states}, "step"
        else:
            inputs, name = {"item_ids": ids, **states}, "chunk"
        outputs = session.run(Path(artifacts[name].place), inputs).outputs
        states = {given: outputs[name] for name, given in manifest.state.items()}
        if size == 5:  # over the border of the first mini-batch
            inputs = {"user": outputs["user"], "candidate_ids": candidates[:, None]}
            outputs = session.run(Path(artifacts["rerank_user"].place), inputs).outputs
        if "scores" in outputs:
            with torch.no_grad():
                expected = network(torch.from_numpy(clicks[:, :read]), torch.from_numpy(candidates)).numpy()
            np.testing.assert_allclose(outputs["scores"][:, 0], expected, rtol=0, atol=1e-4)
