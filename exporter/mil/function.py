"""One function of a package: checks inputs, runs the plan, and describes operations, constants and values."""

from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np

from exporter.core.errors import ProgramError
from exporter.core.types import Arrays, TensorSpec
from exporter.mil.describe import (
    ConstantInfo,
    OperationInfo,
    ValueInfo,
    constant_infos,
    constant_operation_infos,
    operation_infos,
    value_infos,
)
from exporter.mil.executor import NonFinite, Trace, execute, prepare
from exporter.mil.features import Features, Flexibility
from exporter.mil.kernel import Env, HalfPolicy, Limits
from exporter.mil.plan import Plan
from exporter.mil.types import UNKNOWN, StateType, TensorType


class State:
    """The values that a stateful program keeps between runs: name -> array, read and replaced like a dict's."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = dict(arrays)

    def names(self) -> tuple[str, ...]:
        """The names of the states."""
        return tuple(self._arrays)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __setitem__(self, name: str, value: np.ndarray) -> None:
        """Replace a state; raises ProgramError for an unknown name, or another shape or type."""
        kept = self._arrays.get(name)
        if kept is None:
            raise ProgramError(f"there is no state {name!r}; there are: {', '.join(self._arrays) or 'none'}")
        if value.shape != kept.shape or value.dtype != kept.dtype:
            raise ProgramError(
                f"state {name!r} is {kept.dtype.name}{list(kept.shape)}, not {value.dtype.name}{list(value.shape)}"
            )
        self._arrays[name] = np.array(value)


@dataclass(frozen=True)
class Classifier:
    """The outputs of a classifier: the `label`, and the `probabilities` in the order of `classes`."""

    label: str
    probabilities: str
    classes: tuple[str | int, ...]


@dataclass(frozen=True)
class StateCell:
    """A state as operations see it: where it lives and under which name."""

    state: State
    name: str

    def read(self) -> np.ndarray:
        """Return the current value, which nothing may write to."""
        return self.state[self.name]

    def write(self, value: np.ndarray) -> None:
        """Replace the value."""
        self.state[self.name] = value


@dataclass(frozen=True)
class Execution:
    """All that a run found out; `first_infinity` and `first_nan` name operations that made them from finite values.

    `unsettled` has a line for each operation and reason where the result rests on a choice that nothing public settles:
    what Core ML gives for these values is not known without a Mac.
    """

    outputs: dict[str, np.ndarray]
    intermediates: dict[str, np.ndarray]
    first_infinity: NonFinite | None
    first_nan: NonFinite | None
    peak_live_bytes: int
    unsettled: tuple[str, ...]


class Function:
    """A function of a loaded program; safe to run from several threads, each with its own State."""

    def __init__(self, name: str, plan: Plan, opset: int, features: Features, half: HalfPolicy, limits: Limits) -> None:
        self.name = name
        self.opset = opset
        self._plan, self._features, self._half, self._limits = plan, features, half, limits
        self._lock = Lock()
        self._tensors = {item.name: item.type for item in plan.inputs if isinstance(item.type, TensorType)}
        self.inputs: tuple[TensorSpec, ...] = tuple(self._input(name, type_) for name, type_ in self._tensors.items())
        self.outputs: tuple[TensorSpec, ...] = tuple(_spec(plan, name) for name in plan.outputs)
        self.flexible: Mapping[str, Flexibility] = {
            name: feature.flexibility for name, feature in features.inputs.items() if feature.flexibility is not None
        }
        self.states: tuple[TensorSpec, ...] = tuple(
            item.type.wrapped.spec(item.name) for item in plan.inputs if isinstance(item.type, StateType)
        )
        other = [item.name for item in plan.inputs if not isinstance(item.type, TensorType | StateType)]
        if other:
            raise ProgramError(f"input {other[0]!r} is neither a tensor nor a state; this interpreter cannot take it")

    @property
    def classifier(self) -> Classifier | None:
        """What the outputs of a classifier mean; None for every other function."""
        for step in self._plan.steps:
            if step.node.type == "classify" and len(step.outputs) == 2:
                label, probabilities = (output.name for output in step.outputs)
                classes = step.constants.get("classes", [])
                return Classifier(label, probabilities, tuple(c if isinstance(c, str) else int(c) for c in classes))
        return None

    @property
    def operations(self) -> tuple[OperationInfo, ...]:
        """The operations in order, nested blocks after the operation that holds them; constants are left out."""
        return operation_infos(self._plan)

    @property
    def constant_operations(self) -> tuple[OperationInfo, ...]:
        """The operations that decompress constants; they run once, at the first run."""
        return constant_operation_infos(self._plan)

    @property
    def constants(self) -> tuple[ConstantInfo, ...]:
        """The constants as the package stores them."""
        return constant_infos(self._plan)

    @property
    def values(self) -> tuple[ValueInfo, ...]:
        """Inputs and results of the outermost block with their sizes and lifetimes, for a memory plan."""
        return value_infos(self._plan)

    def make_state(self) -> State:
        """Return the states of this function, all zero."""
        return State({spec.name: np.zeros(spec.shape, spec.dtype) for spec in self.states})

    def execute(
        self, inputs: Arrays, intermediates: bool = False, state: State | None = None, seed: int = 0
    ) -> Execution:
        """Run on `inputs` by name; raises ProgramError for inputs that do not fit and for what cannot be computed."""
        env = Env(self.opset, self._half, self._limits, seed)
        values: dict[str, Any] = self._checked(inputs)
        values.update(self._cells(state))
        env.live = sum(array.nbytes for array in values.values() if isinstance(array, np.ndarray))
        trace = Trace(values={} if intermediates else None)
        # numpy's warnings say neither which operation nor which value; `_watch` does.
        with np.errstate(all="ignore"):
            if not self._plan.ready:
                with self._lock:
                    prepare(self._plan, env)
            results = execute(self._plan, env, values, trace)
        outputs = {name: _own(value) for name, value in zip(self._plan.outputs, results, strict=True)}
        kept = {name: value for name, value in (trace.values or {}).items() if isinstance(value, np.ndarray)}
        return Execution(
            outputs, kept, trace.first_infinity, trace.first_nan, trace.peak_live_bytes, tuple(trace.unsettled)
        )

    def _input(self, name: str, type_: TensorType) -> TensorSpec:
        spec = type_.spec(name)
        described = self._features.inputs.get(name)
        if described is None or described.shape == spec.shape:
            return spec
        return TensorSpec(spec.name, described.shape, spec.dtype) if UNKNOWN in spec.shape else spec

    def _checked(self, inputs: Arrays) -> dict[str, np.ndarray]:
        names = {spec.name for spec in self.inputs}
        for name in inputs:
            if name not in names:
                raise ProgramError(f"there is no input {name!r}; the inputs are: {', '.join(sorted(names)) or 'none'}")
        return {spec.name: self._check(spec, inputs.get(spec.name)) for spec in self.inputs}

    def _check(self, spec: TensorSpec, value: Any) -> np.ndarray:
        described = self._features.inputs.get(spec.name)
        if value is None:
            if described is None or not described.optional:
                raise ProgramError(f"input {spec.name!r} is missing; it is {spec.dtype}{list(spec.shape)}")
            return np.full(spec.shape, described.fill, spec.dtype)
        array = np.asarray(value)
        dtype = np.dtype(spec.dtype)
        if array.dtype != dtype:
            array = _converted(spec.name, array, dtype)
        flexibility = self.flexible.get(spec.name)
        declared = self._tensors[spec.name]
        if flexibility is not None:
            fits = flexibility.allows(array.shape)
        else:
            fits = declared.shape is None or (
                array.ndim == len(declared.shape)
                and all(b in (a, UNKNOWN) for a, b in zip(array.shape, declared.shape, strict=True))
            )
        if not fits:
            allowed = str(flexibility) if flexibility is not None else str(list(declared.shape or ()))
            raise ProgramError(f"input {spec.name!r} has shape {list(array.shape)}; it must be {allowed}")
        return array

    def _cells(self, state: State | None) -> dict[str, StateCell]:
        names = [spec.name for spec in self.states]
        if not names:
            return {}
        if state is None:
            raise ProgramError(
                f"function {self.name!r} keeps states ({', '.join(names)}); pass state=program.make_state()"
            )
        if set(names) - set(state.names()):
            raise ProgramError(
                f"the given state lacks {sorted(set(names) - set(state.names()))}; make it with make_state()"
            )
        return {name: StateCell(state, name) for name in names}


def _spec(plan: Plan, name: str) -> TensorSpec:
    declared = plan.types[name]
    # The only output that is no tensor is the dictionary of a classifier, given as the array of its probabilities.
    return declared.spec(name) if isinstance(declared, TensorType) else TensorSpec(name, (UNKNOWN,), "float32")


def _converted(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if array.dtype.kind in "iu" and dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        if not array.size or (int(array.min()) >= bounds.min and int(array.max()) <= bounds.max):
            return array.astype(dtype)
        raise ProgramError(f"input {name!r} has values that {dtype.name} cannot hold")
    if array.dtype.kind == "f" and dtype.kind == "f" and np.can_cast(array.dtype, dtype):
        return array.astype(dtype)
    raise ProgramError(f"input {name!r} is {array.dtype.name}; it must be {dtype.name}: convert it with astype first")


def _own(value: Any) -> Any:
    """Return an array that the caller may write to: views of inputs, constants and files are copied."""
    if isinstance(value, np.ndarray):
        return value.astype(str) if value.dtype == object else np.array(value)
    return value
