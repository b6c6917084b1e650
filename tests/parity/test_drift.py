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
