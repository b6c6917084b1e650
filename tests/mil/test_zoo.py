"""The zoo of small torch functions, through the converter and back, against torch itself."""

import uuid
import warnings

import numpy as np
import pytest
from mil_zoo import exhibits
from mil_zoo_layers import layers

from exporter import mil

BATCH = 40
RELEASES = (17, 18, 15, 16)
ZOO = exhibits() + layers()
BATCHES = [ZOO[start : start + BATCH] for start in range(0, len(ZOO), BATCH)]


@pytest.fixture(scope="module")
def outputs(coremltools, packages):
    """Convert a whole batch as one module and run it once; returns name -> (interpreter's result, torch's result)."""
    made = {}

    def run(number, release, half):
        key = number, release, half
        if key not in made:
            made[key] = evaluate(coremltools, packages, BATCHES[number], release, half)
        return made[key]

    return run


def evaluate(coremltools, folder, batch, release, half):
    """Return {name: (ours, torch's)} for a batch; in float16 torch computes in float32 from inputs rounded alike."""
    import torch

    batch = [exhibit for exhibit in batch if exhibit.half or not half]
    inputs = [tuple(_rounded(tensor, half) for tensor in exhibit.inputs) for exhibit in batch]

    class Batch(torch.nn.Module):
        def forward(self, *tensors):
            results, place = [], 0
            for exhibit in batch:
                results.append(exhibit.function(*tensors[place : place + len(exhibit.inputs)]))
                place += len(exhibit.inputs)
            return tuple(results)

    flat = tuple(tensor for group in inputs for tensor in group)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        exported = torch.export.export(Batch().eval(), flat).run_decompositions({})
        model = coremltools.convert(
            exported,
            outputs=[coremltools.TensorType(name=f"result_{place}") for place in range(len(batch))],
            minimum_deployment_target=getattr(coremltools.target, f"iOS{release}"),
            compute_precision=coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32,
            skip_model_load=True,
        )
        path = folder / f"{uuid.uuid4().hex}.mlpackage"
        model.save(str(path))
        expected = [(e.written or e.function)(*group).numpy() for e, group in zip(batch, inputs, strict=True)]
    program = mil.load(path)
    feeds = {spec.name: tensor.numpy() for spec, tensor in zip(program.inputs, flat, strict=True)}
    found = program.execute(feeds).outputs
    return {exhibit.name: (found[f"result_{place}"], expected[place]) for place, exhibit in enumerate(batch)}


def _rounded(tensor, half):
    import torch

    return tensor.half().float() if half and tensor.dtype == torch.float32 else tensor


def _parameters():
    for number, batch in enumerate(BATCHES):
        release = RELEASES[number % 4]
        for exhibit in batch:
            yield pytest.param(number, exhibit, release, False, id=f"{exhibit.name}-iOS{release}-fp32")
            # Converting is what takes the time: a third of the zoo is seen in float16 too, all of it in the benchmark.
            if exhibit.half and number % 3 == 0:
                yield pytest.param(number, exhibit, 17, True, id=f"{exhibit.name}-iOS17-fp16")


def agree(ours, expected, half):
    """Assert equality of integers, and closeness of floats to the precision they were computed in."""
    assert ours.shape == (expected.shape or ours.shape)
    if expected.dtype.kind in "iub":
        assert np.array_equal(ours, expected)
        return
    # Converted functions take several float16 steps, and the error of a sum is relative to its largest term.
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    tolerance = 8e-3 if half else 2e-5
    assert np.abs(ours.astype(np.float64) - expected).max(initial=0.0) <= tolerance * scale


@pytest.mark.parametrize(("number", "exhibit", "release", "half"), list(_parameters()))
def test_zoo(outputs, number, exhibit, release, half):
    ours, expected = outputs(number, release, half)[exhibit.name]
    agree(ours, expected, half)


def test_the_zoo_is_large():
    assert len(ZOO) >= 450 and len({exhibit.name for exhibit in ZOO}) == len(ZOO)
