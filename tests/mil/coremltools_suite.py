"""A pytest plugin that lets coremltools' own tests judge this interpreter.

coremltools ships its tests. On a Mac they convert a small model, predict with Core ML and compare with an expected
value that was written by hand or computed by torch; elsewhere they stop after the conversion. With this plugin
`predict` is the interpreter, so that expectations which Apple holds against Core ML itself are held against it.

A test passes here if it asked the interpreter and agreed. One that never asks it is skipped, and so is what a test
asserts about the converter's passes: neither says anything about values. `command` gives the command line to run them.
"""

import collections
import os
import platform
import re
import sys
import tempfile
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("PYMIL_TEST_TARGETS", "mlprogram")
os.environ.setdefault("INCLUDE_MIL_FP32_UNIT_TESTS", "1")
os.environ.setdefault("RUN_BACKWARD_COMPATIBILITY", "1")
os.environ.setdefault("TORCH_FRONTENDS", "TORCHSCRIPT,TORCHEXPORT")

_MACOS = (15, 0)
# With COCORR_SUITE_MOST=n at most n parametrisations of each test function run, always the same ones.
_MOST = int(os.environ.get("COCORR_SUITE_MOST", "0"))

# Tests whose expectation is wrong or stands against the spec: a pattern of "file::class::function[parameters]" and the
# reason. They must fail (xfail, strict), so that an entry which no longer holds breaks the run.
DISPUTED = (
    (
        r"iOS15/test_image_resizing.py::TestCropResize::test_builder_to_backend_smoke\[.*iOS1[56]:",
        "a normalised box outside of [0, 1]: the spec pads it or leaves it open, the test wants the whole image",
    ),
    (
        r"iOS16/test_image_resizing.py::TestCropResize::test_builder_to_backend_ios16\[.*precision='fp32'.*iOS16:",
        "7.9 is written as 7.899, which float16's tolerance hides",
    ),
    (
        r"iOS17/test_image_resizing.py::TestCropResize::test_builder_to_backend_ios17\[N=3.*precision='fp32'",
        "7.9 is written as 7.899, which float16's tolerance hides",
    ),
    (
        r"iOS17/test_scatter_gather.py::TestScatter::test_ios17_invalid_indices\[.*iOS17.*validate_indices=False",
        "an index out of range, where the test wants any result and this interpreter refuses to guess",
    ),
    (
        r"iOS1[47]/test_normalization.py::TestNormalizationLocalResponseNorm::test_builder_to_backend_smoke\[.*'fp32'",
        "at rank 3 the test's values sum over axis -3, the batch, where the spec and torch sum over channels",
    ),
)
# What a function that looks into the converted program names.
_PASSES = {"_mil_program", "find_ops", "get_op_types_in_program"}

_running: pytest.Function
_asked = 0


def command(tests: list[Path], most: int) -> tuple[list[str], dict[str, str]]:
    """Return the command line that runs `tests` with this plugin, and its environment.

    At most `most` parametrisations of each test function run, all if it is 0. Which ones does not depend on where the
    packages are installed, nor on pytest's configuration round about.
    """
    folder = tests[0] if tests[0].is_dir() else tests[0].parent
    place = ["-c", os.devnull, f"--rootdir={folder}", f"--confcutdir={folder}", "-p", "no:cacheprovider"]
    show = ["-q", "--tb=line", "-rfx", "--disable-warnings", "-W", "ignore"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parent), "COCORR_SUITE_MOST": str(most)}
    return [sys.executable, "-m", "pytest", "-p", "coremltools_suite", *place, *show, *map(str, tests)], environment


def _name(item: pytest.Function) -> str:
    """Name a test by its file, class and function and its parameters, whatever pytest calls it."""
    parameters = getattr(item, "callspec", None)
    values = parameters.params if parameters else {}
    inner = "-".join(re.sub(" at 0x[0-9a-f]+", "", f"{name}={values[name]}") for name in sorted(values))
    names = [f"{item.path.parent.name}/{item.path.name}", item.cls.__name__ if item.cls else "", item.originalname]
    return "::".join(names) + f"[{inner}]"


def _order(item: pytest.Function) -> int:
    """Order the parametrisations of a function by the places of their parameters in their lists, well mixed."""
    parameters = getattr(item, "callspec", None)
    return zlib.crc32(repr(sorted(parameters.indices.items()) if parameters else []).encode())


def _fed(spec, value) -> np.ndarray:
    """Convert an input as Core ML does on the way in: to the declared type, scalars to one element."""
    array = np.asarray(value)
    if array.dtype != spec.dtype:
        array = array.astype(spec.dtype)
    return array.reshape(spec.shape) if array.size == 1 and not spec.shape else array


def _predict(self, data, state=None):
    from exporter import mil
    from exporter.core.errors import ProgramError

    global _asked
    if self._spec.WhichOneof("Type") != "mlProgram":
        pytest.skip("a neural network, not an ML program")
    _asked += 1
    program = getattr(self, "_interpreted", None)
    if program is None:
        folder = self.package_path
        if folder is None or not Path(folder).exists():
            folder = tempfile.mkdtemp(suffix=".mlpackage")
            self.save(folder)
        program = self._interpreted = mil.load(folder)
    function = program.function(self.function_name)
    if isinstance(data, list):
        return [_predict(self, item, state) for item in data]
    specs = {spec.name: spec for spec in function.inputs}
    inputs = {name: _fed(specs[name], value) for name, value in data.items() if name in specs}
    missing = set(data) - set(specs)
    if missing:
        raise ValueError(f"unknown inputs {missing}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", mil.NonFiniteWarning)
        try:
            outputs = program.run(inputs, function=self.function_name, state=state)
        except ProgramError as error:
            raise RuntimeError(f"Unable to compute the prediction using ML Program: {error}") from error
    classifier = function.classifier
    if classifier is not None:
        shares = outputs[classifier.probabilities].tolist()
        outputs[classifier.probabilities] = dict(zip(classifier.classes, shares, strict=True))
        outputs[classifier.label] = outputs[classifier.label].item()
    # Core ML gives a scalar as an array of one element.
    scalars = [name for name, value in outputs.items() if isinstance(value, np.ndarray) and not value.ndim]
    return {**outputs, **{name: outputs[name].reshape(1) for name in scalars}}


def _make_state(self):
    from exporter import mil

    folder = tempfile.mkdtemp(suffix=".mlpackage")
    self.save(folder)
    self._interpreted = mil.load(folder)
    return self._interpreted.make_state(self.function_name)


def _compare_backend(
    mlmodel,
    input_key_values,
    expected_outputs,
    dtype="fp32",
    atol=1e-04,
    rtol=1e-05,
    also_compare_shapes=True,
    state=None,
    allow_mismatch_ratio=0.0,
):
    """Predict and compare as the suite does, with its own tolerances for float32.

    For float16 the suite allows 0.5; here it is a fiftieth of the largest value. Some tests round their data to float16
    after they have computed the expected value in float32, so what counts is whether any value or weight is float16.
    """
    import coremltools.converters.mil.testing_utils as testing

    if expected_outputs is None:
        return None
    data = [value for value in [*input_key_values.values(), *expected_outputs.values()] if hasattr(value, "dtype")]
    half = dtype == "fp16" or any(value.dtype == np.float16 for value in data)
    half = half or "float16" in _name(_running)
    predicted = testing.run_core_ml_predict(mlmodel, dict(input_key_values), state)
    if also_compare_shapes:
        testing.compare_shapes(mlmodel, input_key_values, expected_outputs, pred=predicted)
    for name, expected in expected_outputs.items():
        result = testing._get_coreml_out_from_dict(predicted, name)
        if not isinstance(result, np.ndarray):
            assert result == expected
            continue
        finite = np.abs(np.asarray(expected, np.float64))
        scale = float(finite[np.isfinite(finite)].max(initial=1.0))
        absolute, relative = (max(atol, 0.02 * scale), max(rtol, 0.05)) if half else (atol, rtol)
        wrong = ~np.isclose(result.astype(np.float64), expected, rtol=relative, atol=absolute, equal_nan=True)
        assert np.mean(wrong) <= allow_mismatch_ratio, f"{name}: {result} instead of {expected}"
    return predicted


def pytest_collection_modifyitems(config, items) -> None:
    """Mark the disputed tests and thin each function's parametrisations out, and each dispute's."""
    groups = collections.defaultdict(list)
    for item in items:
        name = _name(item)
        groups[name.partition("[")[0]].append(item)
        for number, (pattern, reason) in enumerate(DISPUTED):
            if re.match(pattern, name):
                told = f"dispute {number}: {reason}"
                item.add_marker(pytest.mark.xfail(strict=True, raises=(AssertionError, RuntimeError), reason=told))
                groups[number].append(item)
    kept = {item for variants in groups.values() for item in sorted(variants, key=_order)[: _MOST or None]}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Let a test pass or fail only by what the interpreter answered."""
    global _running, _asked
    _running, _asked = pyfuncitem, 0
    try:
        done = yield
    except Exception as error:
        if not _asked:
            pytest.skip(f"fails before it asks the interpreter: {type(error).__name__}")
        (*_, (last, _)) = traceback.walk_tb(error.__traceback__)
        if isinstance(error, AssertionError) and _PASSES & set(last.f_code.co_names):
            pytest.skip("asserts on the converter's passes, after the values agreed")
        raise
    if not _asked:
        pytest.skip("does not ask the interpreter")
    return done


def _skipping(convert):
    """Skip a test whose model the converter refuses: with this torch it refuses many, and that is not in question."""

    def run(*arguments, **options):
        try:
            return convert(*arguments, **options)
        except Exception as error:
            pytest.skip(f"coremltools does not convert it: {type(error).__name__}: {str(error)[:200]}")

    return run


def pytest_configure(config) -> None:
    # The tests expect failures of Intel Macs that have nothing to do with the values.
    platform.machine = lambda: "arm64"
    import torch

    torch.set_num_threads(1)
    import coremltools._deps

    coremltools._deps._IS_MACOS = True
    import coremltools.models.utils

    coremltools.models.utils._macos_version = lambda: _MACOS
    coremltools.utils._macos_version = lambda: _MACOS
    coremltools.convert = _skipping(coremltools.convert)
    coremltools.models.MLModel.predict = _predict
    coremltools.models.MLModel.make_state = _make_state
    import coremltools.converters.mil.testing_utils as testing

    testing._IS_MACOS = True
    testing.compare_backend = _compare_backend
