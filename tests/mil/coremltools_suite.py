"""A pytest plugin that lets coremltools' own tests judge this interpreter.

coremltools ships its tests. On a Mac they convert a small model, predict with Core ML and compare with an expected value
that was written by hand or computed by torch; elsewhere they stop after the conversion. With this plugin `predict` is the
interpreter, so that expectations which Apple holds against Core ML itself are held against it.

Run it as: PYTHONPATH=tests/mil python -m pytest -p coremltools_suite --pyargs coremltools.converters.mil.mil.ops.tests
"""

import os
import tempfile
import warnings
import zlib
from pathlib import Path

import numpy as np

os.environ.setdefault("PYMIL_TEST_TARGETS", "mlprogram")
os.environ.setdefault("INCLUDE_MIL_FP32_UNIT_TESTS", "1")
os.environ.setdefault("RUN_BACKWARD_COMPATIBILITY", "1")

_MACOS = (15, 0)
# With COCORR_SUITE_SHARE=n only about every n-th test runs, always the same ones.
_SHARE = int(os.environ.get("COCORR_SUITE_SHARE", "1"))


def _fed(spec, value) -> np.ndarray:
    """Convert an input as Core ML does on the way in: to the declared type, scalars to one element."""
    array = np.asarray(value)
    if array.dtype != spec.dtype:
        array = array.astype(spec.dtype)
    return array.reshape(spec.shape) if array.size == 1 and not spec.shape else array


def _predict(self, data, state=None):
    from exporter import mil

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
        outputs = program.run(inputs, function=self.function_name, state=state)
    classifier = function.classifier
    if classifier is not None:
        shares = outputs[classifier.probabilities].tolist()
        outputs[classifier.probabilities] = dict(zip(classifier.classes, shares, strict=True))
        outputs[classifier.label] = outputs[classifier.label].item()
    return outputs


def _make_state(self):
    from exporter import mil

    folder = tempfile.mkdtemp(suffix=".mlpackage")
    self.save(folder)
    self._interpreted = mil.load(folder)
    return self._interpreted.make_state(self.function_name)


def pytest_collection_modifyitems(config, items) -> None:
    """Thin the tests out to the wanted share."""
    chosen = [item for item in items if zlib.crc32(item.nodeid.encode()) % _SHARE == 0]
    kept = set(chosen)
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = chosen


def pytest_configure(config) -> None:
    import torch

    torch.set_num_threads(1)
    import coremltools._deps

    coremltools._deps._IS_MACOS = True
    import coremltools.models.utils

    coremltools.models.utils._macos_version = lambda: _MACOS
    coremltools.utils._macos_version = lambda: _MACOS
    coremltools.models.MLModel.predict = _predict
    coremltools.models.MLModel.make_state = _make_state
    import coremltools.converters.mil.testing_utils as testing

    testing._IS_MACOS = True
