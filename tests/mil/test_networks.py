"""Six foreign networks through the converter, at every operation set and precision, against torch.

Every network meets every operation set and every precision here, and benchmarks/sweep_mil.py runs the whole product.
"""

import uuid
import warnings

import numpy as np
import pytest
from mil_networks import NAMES, build

from exporter import mil

RELEASES = (15, 16, 17, 18)
PRECISIONS = ("fp32", "fp16", "palettised", "int8")
# Largest difference from torch, in units of the largest output. float32 differs by the order of sums; float16 by its 11
# bits over some dozens of layers; 8-bit palettes and 8-bit weights by rounding weights to 1/256 of their range.
BOUNDS = {"fp32": 2e-5, "fp16": 2e-2, "palettised": 8e-2, "int8": 8e-2}


@pytest.fixture(scope="module")
def network(coremltools, packages):
    """Build, convert and save one network."""
    return converter(coremltools, packages)


def converter(coremltools, folder):
    """Return a function from name, release and precision to package, input, torch's output and converted model.

    What repeats, the module, its export and the model before compression, is made once.
    """
    import torch

    made, converted = {}, {}

    def source(name):
        if name not in made:
            module, example = build(name)
            with torch.no_grad():
                expected = module(*example).numpy()
                # The converter has no LSTM for exported programs; a trace it can read.
                given = torch.jit.trace(module, example) if name == "tagger" else _exported(module, example)
            made[name] = given, example, expected
        return made[name]

    def dense(name, release, half):
        key = name, release, half
        if key not in converted:
            given, example, _ = source(name)
            options = {}
            if name == "tagger":
                options["inputs"] = [coremltools.TensorType(shape=example[0].shape, dtype=np.int32)]
            precision = coremltools.precision.FLOAT16 if half else coremltools.precision.FLOAT32
            converted[key] = coremltools.convert(
                given,
                minimum_deployment_target=getattr(coremltools.target, f"iOS{release}"),
                compute_precision=precision,
                skip_model_load=True,
                **options,
            )
        return converted[key]

    def run(name, release, precision):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = dense(name, release, precision == "fp16")
            if precision in ("palettised", "int8"):
                model = compress(coremltools, model, precision)
            path = folder / f"{uuid.uuid4().hex}.mlpackage"
            model.save(str(path))
        _, example, expected = source(name)
        return path, example[0].numpy(), expected, model

    return run


def _exported(module, example):
    import torch

    return torch.export.export(module, example).run_decompositions({})


def compress(coremltools, model, precision):
    """Compress the weights of a converted model: 8-bit uniform palettes, or linear int8 per channel."""
    import coremltools.optimize.coreml as optimize

    if precision == "palettised":
        how = optimize.OpPalettizerConfig(mode="uniform", nbits=8, weight_threshold=64)
        return optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=how))
    how = optimize.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=64)
    return optimize.linear_quantize_weights(model, optimize.OptimizationConfig(global_config=how))


def check(path, given, expected, bound):
    """Assert that the interpreter is within `bound` of torch, in units of the largest output."""
    program = mil.load(path)
    (output,) = program.run({program.inputs[0].name: given}).values()
    assert output.shape == expected.shape
    assert np.abs(output - expected).max() <= bound * np.abs(expected).max()
    return program, output


def _pairs():
    """Give each network each release and each precision once: a Latin square, turned by one from network to network."""
    for number, name in enumerate(NAMES):
        for place, release in enumerate(RELEASES):
            precision = PRECISIONS[(place + number) % 4]
            # Compressed constants exist from iOS 16 on; at 15 the network is checked in float32 instead.
            yield name, release, precision if release > 15 or precision.startswith("fp") else "fp32"


@pytest.mark.parametrize(("name", "release", "precision"), list(_pairs()))
def test_networks_agree_with_torch(network, name, release, precision):
    path, given, expected, _ = network(name, release, precision)
    program, _ = check(path, given, expected, BOUNDS[precision])
    assert bool(program.function().constant_operations) == (precision in ("palettised", "int8"))


@pytest.mark.parametrize("release", [16, 18])
@pytest.mark.parametrize("precision", ["palettised", "int8"])
def test_compressed_weights_are_those_that_coremltools_decompresses(coremltools, network, packages, release, precision):
    import coremltools.optimize.coreml as optimize

    path, given, _, model = network("resnet", release, precision)
    dense = packages / f"{uuid.uuid4().hex}.mlpackage"
    optimize.decompress_weights(model).save(str(dense))
    outputs = []
    for package in (path, dense):
        program = mil.load(package)
        outputs.append(next(iter(program.run({program.inputs[0].name: given}).values())))
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-5, atol=1e-6)
    stored = [sum(constant.bytes for constant in mil.load(package).function().constants) for package in (path, dense)]
    assert stored[0] < 0.4 * stored[1]


def test_pure_float16_is_further_from_torch_than_wide(network):
    path, given, expected, _ = network("encoder", 17, "fp16")
    errors = {}
    for half in ("wide", "pure"):
        program = mil.load(path, half=half)
        (output,) = program.run({program.inputs[0].name: given}).values()
        errors[half] = np.abs(output - expected).max()
    assert 0 < errors["wide"] < errors["pure"] < 0.05 * np.abs(expected).max()


def test_intermediate_values_are_all_there_and_dead_ones_are_freed(network):
    path, given, _, _ = network("unet", 17, "fp32")
    program = mil.load(path)
    done = program.execute({program.inputs[0].name: given}, intermediates=True)
    function = program.function()
    assert set(done.intermediates) == {spec.name for op in function.operations for spec in op.outputs}
    everything = sum(value.nbytes for value in done.intermediates.values())
    # The skip connections stay; most of the rest need not be in memory at one time.
    assert done.peak_live_bytes < everything / 3
    # Shapes that the package declares are the shapes that were computed.
    declared = {spec.name: spec.shape for op in function.operations for spec in op.outputs}
    assert all(value.shape == declared[name] for name, value in done.intermediates.items())
