"""Cases of single MIL operations and the judges that the interpreter has to agree with.

Judge one is coremltools' own constant folding (`value_inference`, `materialized_val_inference`), judge two a torch
expression that the case gives. All cases of a file are built into one program per operation set, exported without any
graph pass, written as a package and run once; then each test compares its own outputs.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

OPSETS = (15, 16, 17, 18)


@dataclass(frozen=True)
class Case:
    """One operation on given data.

    `data` are the inputs fed when the program runs, `constants` those fixed in it. `torch` computes the expected
    result, or a tuple of them, from the data as tensors. Where the judges are known to differ, `differs` says why and
    `trust` which of the two ("value" or "torch") the spec supports; a test holds the record true. `half` also runs it
    in float16.
    """

    name: str
    op: str
    data: Mapping[str, Any]
    constants: Mapping[str, Any] = field(default_factory=dict)
    torch: Callable[..., Any] | None = None
    since: int = 15
    until: int = 18
    differs: str = ""
    trust: str = ""
    half: bool = True
    tolerance: float = 1e-5
    folds: bool = True

    def opsets(self) -> list[int]:
        """The operation sets that have it."""
        return [opset for opset in OPSETS if self.since <= opset <= self.until]


def expand(cases: Sequence[Case]) -> list[Any]:
    """Return one pytest parameter per case, operation set and precision."""
    import pytest

    names = [case.name for case in cases]
    assert len(set(names)) == len(names), f"case names are not unique: {[n for n in names if names.count(n) > 1]}"
    return [
        pytest.param(case, opset, half, id=f"{case.name}-iOS{opset}-{'fp16' if half else 'fp32'}")
        for case in cases
        for opset in case.opsets()
        for half in ((False, True) if case.half and _has_floats(case) else (False,))
    ]


def _has_floats(case: Case) -> bool:
    values = [*case.data.values(), *case.constants.values()]
    return any(array.dtype == np.float32 for value in values for array in _arrays(value))


def _arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple):
        return [array for item in value for array in _arrays(item)]
    return [value] if isinstance(value, np.ndarray | np.generic) else []


class Judge:
    """Builds, runs and compares; one instance per session, so that a file's program is built once per operation set."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._built: dict[tuple[int, int, bool], Any] = {}

    def __call__(self, cases: Sequence[Case], case: Case, opset: int, half: bool) -> None:
        """Assert that the interpreter gives what the judges say for `case`."""
        key = (id(cases), opset, half)
        if key not in self._built:
            wanted = [c for c in cases if opset in c.opsets() and (not half or (c.half and _has_floats(c)))]
            try:
                self._built[key] = self._build(wanted, opset, half)
            except Exception as error:
                # Kept, so that the other tests of this program say the same instead of building it again.
                self._built[key] = error
        built = self._built[key]
        if isinstance(built, Exception):
            raise built
        outputs, folded = built
        results = outputs[case.name]
        judgements = {}
        if case.folds and folded[case.name] is not None:
            judgements["value"] = folded[case.name]
        if case.torch is not None:
            judgements["torch"] = _by_torch(case, half)
        assert judgements, "no judge has an opinion on this case: give it a torch expression"
        tolerance = max(case.tolerance, 2e-3) if half else case.tolerance
        if case.differs:
            assert case.trust in judgements and len(judgements) == 2, "a recorded difference needs two judges"
            first, second = judgements.values()
            if not half:
                assert not _agree(first, second, tolerance), "the judges agree now: remove the record of a difference"
            judgements = {case.trust: judgements[case.trust]}
        for name, expected in judgements.items():
            assert len(results) == len(expected)
            for result, value in zip(results, expected, strict=True):
                value = np.asarray(value)
                assert result.shape == value.shape, f"shape by {name}"
                compare(result, value, tolerance, half, name)

    def _build(self, cases: Sequence[Case], opset: int, half: bool) -> tuple[dict, dict]:
        import coremltools as ct
        from coremltools.converters.mil.mil import Builder, Function, Program, types

        mb, target = Builder, getattr(ct.target, f"iOS{opset}")
        placeholders, feeds = {}, {}
        for number, case in enumerate(cases):
            for name, value in case.data.items():
                for index, array in enumerate(_items(value)):
                    array = cast(array, half)
                    key = f"c{number}_{name}_{index}"
                    dtype = types.numpy_type_to_builtin_type(array.dtype)
                    # A function takes no scalars; they are fed as one element and squeezed.
                    placeholders[key] = mb.placeholder(shape=array.shape or (1,), dtype=dtype)
                    feeds[key] = array.reshape(array.shape or (1,))
        program = Program()
        returned: dict[str, list[str]] = {}
        outputs = []
        with Function(placeholders, opset_version=target) as function:
            for number, case in enumerate(cases):
                inputs = {
                    name: _shaped(
                        value,
                        [self._given(mb, function, f"c{number}_{name}_{i}", v) for i, v in enumerate(_items(value))],
                    )
                    for name, value in case.data.items()
                }
                fixed = {
                    name: _shaped(value, [cast(v, half) for v in _items(value)])
                    for name, value in case.constants.items()
                }
                result = getattr(mb, case.op)(**inputs, **fixed)
                result = list(result) if isinstance(result, tuple | list) else [result]
                # An operation may fold to a constant or hand its input through; identity keeps every output apart.
                named = [mb.identity(x=item, name=f"out{number}_{i}") for i, item in enumerate(result)]
                returned[case.name] = [item.name for item in named]
                outputs += named
            function.set_outputs(outputs)
        program.add_function("main", function)
        path = save(program, self._folder / f"{uuid.uuid4().hex}.mlpackage", opset)
        from exporter import mil

        found = mil.load(path).execute(feeds).outputs
        folded = {case.name: self._folded(mb, Function, target, case, half) for case in cases}
        return {name: [found[key] for key in keys] for name, keys in returned.items()}, folded

    @staticmethod
    def _given(mb: Any, function: Any, key: str, value: Any) -> Any:
        return function.inputs[key] if np.ndim(value) else mb.squeeze(x=function.inputs[key], axes=[0])

    def _folded(self, mb: Any, function: Any, target: Any, case: Case, half: bool) -> list[np.ndarray] | None:
        """Return what coremltools folds the operation to when all its inputs are constants; None where it does not."""
        try:
            with function({}, opset_version=target):
                inputs = {
                    name: _shaped(value, [mb.const(val=np.copy(rounded(v, half))) for v in _items(value)])
                    for name, value in case.data.items()
                }
                fixed = {
                    name: _shaped(value, [rounded(v, half) for v in _items(value)])
                    for name, value in case.constants.items()
                }
                result = getattr(mb, case.op)(**inputs, **fixed)
                result = list(result) if isinstance(result, tuple | list) else [result]
                values = [item.val for item in result]
                if any(value is None for value in values):
                    values = result[0].op.materialized_val_inference()
                    values = list(values) if isinstance(values, tuple) else [values]
        except (NotImplementedError, ValueError, TypeError, AttributeError, IndexError):
            # The folder is not written for every input that its operation takes; the other judge then decides alone.
            return None
        if any(value is None or isinstance(value, list) for value in values):
            return None
        return [np.asarray(value) for value in values]


def save(program: Any, path: Path, opset: int) -> Path:
    """Write a pymil program as a package, with the converter's exporter but none of its passes."""
    import json

    import coremltools as ct
    from coremltools.converters.mil.backend.mil.load import MILProtoExporter

    folder = path / "Data" / "com.apple.CoreML"
    (folder / "weights").mkdir(parents=True)
    version = getattr(ct.target, f"iOS{opset}").value
    model = ct.proto.Model_pb2.Model(specificationVersion=version)
    exporter = MILProtoExporter(prog=program, weights_dir=str(folder / "weights"), specification_version=version)
    model.mlProgram.CopyFrom(exporter.export())
    (folder / "model.mlmodel").write_bytes(model.SerializeToString())
    entry = {"itemInfoEntries": {"root": {"path": "com.apple.CoreML/model.mlmodel"}}, "rootModelIdentifier": "root"}
    (path / "Manifest.json").write_text(json.dumps(entry))
    return path


def cast(value: Any, half: bool) -> Any:
    """Return a value for the float16 variant of a case: float32 arrays become float16."""
    if half and isinstance(value, np.ndarray | np.generic) and value.dtype == np.float32:
        return value.astype(np.float16)
    return value


def rounded(value: Any, half: bool) -> Any:
    """Return a value as a judge of the float16 variant gets it: rounded to float16, but computed with in float32."""
    held = cast(value, half)
    return held.astype(np.float32) if held is not value else value


def compare(result: np.ndarray, expected: np.ndarray, tolerance: float, half: bool, judge: str) -> None:
    """Assert equality, for floats within a relative and absolute tolerance; integers and booleans have to be equal."""
    if result.dtype.kind in "iub":
        assert np.array_equal(result, expected), f"differs from {judge}: {result} instead of {expected}"
        return
    if half:
        # The judge computed in float32 from the same float16 inputs; its result is rounded as the output is.
        expected = expected.astype(np.float16)
    np.testing.assert_allclose(
        result.astype(np.float64), expected.astype(np.float64), rtol=tolerance, atol=tolerance / 10, err_msg=judge
    )


def _agree(first: Sequence[Any], second: Sequence[Any], tolerance: float) -> bool:
    return all(
        np.shape(a) == np.shape(b) and np.allclose(a, b, rtol=tolerance, atol=tolerance / 10, equal_nan=True)
        for a, b in zip(first, second, strict=True)
    )


def _by_torch(case: Case, half: bool) -> list[np.ndarray]:
    import torch

    def tensor(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(tensor(item) for item in value)
        return torch.from_numpy(np.array(rounded(np.asarray(value), half), order="C"))

    assert case.torch is not None
    result = case.torch(*(tensor(value) for value in case.data.values()))
    results = result if isinstance(result, tuple) else (result,)
    return [item.numpy() if hasattr(item, "numpy") else np.asarray(item) for item in results]


def _items(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def _shaped(value: Any, items: list[Any]) -> Any:
    return tuple(items) if isinstance(value, tuple) else items[0]


def mean_of_whole_kernels(x: Any, kernel: Sequence[int], strides: Sequence[int], pad: Sequence[int], ceil: bool) -> Any:
    """Average over windows that all count as the whole kernel, those that overhang in ceil mode too.

    So Core ML answers (coremltools issue 2772, measured there), unlike torch, which takes what ceil mode adds at the
    end for no padding; here it is padding that is added beforehand.
    """
    import torch

    rank = len(kernel)
    windows = getattr(torch.nn.functional, f"max_pool{rank}d")(x, kernel, strides, pad, ceil_mode=ceil)
    margins: list[int] = []
    for size, count, width, stride, before in zip(x.shape[2:], windows.shape[2:], kernel, strides, pad, strict=True):
        margins = [before, (count - 1) * stride + width - size - before, *margins]
    return getattr(torch.nn.functional, f"avg_pool{rank}d")(torch.nn.functional.pad(x, margins), kernel, strides)


def floats(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> np.ndarray:
    """Return reproducible float32 numbers in [low, high)."""
    random = np.random.default_rng([seed, *shape])
    return (low + (high - low) * random.random(shape)).astype(np.float32)


def ints(*shape: int, low: int = -9, high: int = 9, seed: int = 0) -> np.ndarray:
    """Return reproducible int32 numbers in [low, high)."""
    return np.random.default_rng([seed, *shape]).integers(low, high, shape).astype(np.int32)


def bools(*shape: int, seed: int = 0) -> np.ndarray:
    """Return reproducible booleans."""
    return np.random.default_rng([seed, *shape]).random(shape) < 0.5
