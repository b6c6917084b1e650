"""Runs a plan: one loop over the steps, a name -> value dict, every value checked against its declared type."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from exporter.core.errors import CocorrError, ProgramError
from exporter.mil.graph import Literal, Name, Output
from exporter.mil.kernel import Env, RefusedError
from exporter.mil.plan import Plan, Step
from exporter.mil.types import UNKNOWN, TensorType, describe

_HALF, _SINGLE = np.dtype(np.float16), np.dtype(np.float32)
# Twice-rounded float16 constants are kept in float32 up to this size; larger ones are widened at every use.
WIDEN_ONCE_BYTES = 64 << 20


@dataclass(frozen=True)
class NonFinite:
    """The first operation whose result holds an infinity or NaN that none of its inputs held."""

    operation: str
    type: str
    value: str
    kind: str

    def __str__(self) -> str:
        return f"operation {self.operation!r} ({self.type}) made the first {self.kind}, in its result {self.value!r}"


@dataclass
class Trace:
    """What a run leaves behind besides its results."""

    first_infinity: NonFinite | None = None
    first_nan: NonFinite | None = None
    peak_live_bytes: int = 0
    unsettled: dict[str, None] = field(default_factory=dict)
    values: dict[str, Any] | None = None


def prepare(plan: Plan, env: Env) -> None:
    """Compute the constant expressions of a plan and its blocks once, and widen its float16 constants."""
    if plan.ready:
        return
    values: dict[str, Any] = {}
    for step in plan.prelude:
        results = _call(step, env, values)
        for output, value in zip(step.outputs, _conform(step, results), strict=True):
            values[output.name] = value
    _resolve(plan, env, {name: Literal(value, None) for name, value in values.items()})


def _resolve(plan: Plan, env: Env, computed: Mapping[str, Literal]) -> None:
    for name, literal in computed.items():
        declared = plan.types[name]
        plan.constants.setdefault(name, Literal(literal.value, declared if isinstance(declared, TensorType) else None))
    widen = not env.pure
    for step in plan.steps:
        step.constants.update({key: computed[name].value for key, name in step.reads if name in computed})
        step.reads = tuple((key, name) for key, name in step.reads if name not in computed)
        step.lists = tuple(
            (key, tuple(computed[b.name] if isinstance(b, Name) and b.name in computed else b for b in bindings))
            for key, bindings in step.lists
        )
        if step.half and widen:
            for key, value in step.constants.items():
                if isinstance(value, np.ndarray) and value.dtype == _HALF and value.nbytes <= WIDEN_ONCE_BYTES:
                    step.constants[key] = value.astype(_SINGLE)
        for block in step.blocks:
            if not block.ready:
                inner = {name: literal for name, literal in computed.items() if name in block.types}
                nested: dict[str, Any] = {name: literal.value for name, literal in inner.items()}
                for part in block.prelude:
                    for output, value in zip(part.outputs, _conform(part, _call(part, env, nested)), strict=True):
                        nested[output.name] = value
                _resolve(block, env, {name: Literal(value, None) for name, value in nested.items()})
    plan.ready = True


def execute(plan: Plan, env: Env, values: dict[str, Any], trace: Trace) -> list[Any]:
    """Run a prepared plan on the values of its inputs (and of the blocks around it); returns its outputs in order."""
    for name in plan.unread:
        env.live -= _size(values.pop(name, None))
    for step in plan.steps:
        results = _conform(step, _call(step, env, values, plan_blocks(step, env, values, trace)))
        if env.doubts:
            trace.unsettled.update(
                (f"operation {step.node.name!r} ({step.node.type}): {one}", None) for one in env.doubts
            )
            env.doubts.clear()
        for output, value in zip(step.outputs, results, strict=True):
            values[output.name] = value
            env.live += _size(value)
        trace.peak_live_bytes = max(trace.peak_live_bytes, env.live)
        if env.live > env.limits.memory_bytes:
            raise _error(step, f"live values take {env.live} bytes, over the limit of {env.limits.memory_bytes}")
        if step.kernel.arithmetic:
            _watch(step, results, values, trace)
        if trace.values is not None:
            trace.values.update((output.name, values[output.name]) for output in step.outputs)
        for name in step.frees:
            env.live -= _size(values.pop(name, None))
    return [values[name] if name in values else plan.constants[name].value for name in plan.outputs]


def plan_blocks(step: Step, env: Env, values: Mapping[str, Any], trace: Trace) -> list[Any]:
    """Return the nested blocks of a step as functions from their inputs to the list of their outputs."""
    return [_block(block, env, values, trace) for block in step.blocks] if step.blocks else []


def _block(plan: Plan, env: Env, values: Mapping[str, Any], trace: Trace) -> Any:
    def run(*arguments: Any) -> list[Any]:
        if len(arguments) != len(plan.inputs):
            raise RefusedError(f"a block takes {len(plan.inputs)} values but was given {len(arguments)}")
        inner = {name: values[name] for name in plan.outer if name in values}
        before = env.live
        for parameter, value in zip(plan.inputs, arguments, strict=True):
            inner[parameter.name] = value
            env.live += _size(value)
        results = execute(plan, env, inner, trace)
        # What the block leaves alive is its outputs, and the step around it counts those.
        env.live = before
        return results

    return run


def _call(step: Step, env: Env, values: Mapping[str, Any], blocks: list[Any] | None = None) -> Any:
    arguments = dict(step.constants)
    for key, name in step.reads:
        arguments[key] = values[name]
    for key, bindings in step.lists:
        arguments[key] = [values[b.name] if isinstance(b, Name) else b.value for b in bindings]
    if step.half and not env.pure:
        env.half = True
        for key, value in arguments.items():
            if isinstance(value, np.ndarray):
                if value.dtype == _HALF:
                    arguments[key] = value.astype(_SINGLE)
            elif isinstance(value, list):
                arguments[key] = [
                    item.astype(_SINGLE) if isinstance(item, np.ndarray) and item.dtype == _HALF else item
                    for item in value
                ]
    else:
        env.half = False
    try:
        if step.blocks:
            arguments["blocks"] = blocks
        return step.kernel.run(env, **arguments) if step.kernel.env else step.kernel.run(**arguments)
    except CocorrError:
        raise
    except RefusedError as error:
        raise _error(step, str(error)) from error
    except Exception as error:
        # numpy refuses shapes and types that do not fit in many ways; the operation's name is what a reader needs.
        raise _error(step, f"its inputs do not fit: {error}") from error


def _conform(step: Step, results: Any) -> tuple[Any, ...]:
    """Return the results as arrays of the declared types; raises ProgramError where shapes or types differ."""
    if not isinstance(results, tuple):
        results = (results,)
    if len(results) != len(step.outputs):
        raise _error(step, f"it makes {len(results)} values but the package declares {len(step.outputs)}")
    return tuple(_conformed(step, output, value) for output, value in zip(step.outputs, results, strict=True))


def _conformed(step: Step, output: Output, value: Any) -> Any:
    declared = output.type
    if not isinstance(declared, TensorType):
        return value
    if not isinstance(value, np.ndarray):
        value = np.asarray(value)
    if value.dtype != declared.numpy:
        if value.dtype == _SINGLE and declared.dtype == "float16" and step.half:
            value = value.astype(_HALF)
        else:
            raise _error(step, f"its result {output.name!r} is {describe(value)} but the package declares {declared}")
    if value.shape != declared.shape and not _fits(value.shape, declared.shape):
        raise _error(step, f"its result {output.name!r} is {describe(value)} but the package declares {declared}")
    return value


def _fits(shape: tuple[int, ...], declared: tuple[int, ...] | None) -> bool:
    return declared is None or (
        len(shape) == len(declared) and all(b in (a, UNKNOWN) for a, b in zip(shape, declared, strict=True))
    )


def _watch(step: Step, results: tuple[Any, ...], values: Mapping[str, Any], trace: Trace) -> None:
    for output, value in zip(step.outputs, results, strict=True):
        if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or finite(value):
            continue
        sources = [values[name] for _, name in step.reads if name in values]
        sources += [value for value in step.constants.values() if isinstance(value, np.ndarray)]
        sources += [values[b.name] if isinstance(b, Name) else b.value for _, bs in step.lists for b in bs]
        arrays = [source for source in sources if isinstance(source, np.ndarray) and source.dtype.kind == "f"]
        if trace.first_nan is None and np.isnan(value).any() and not any(np.isnan(a).any() for a in arrays):
            trace.first_nan = NonFinite(step.node.name, step.node.type, output.name, "NaN")
        if trace.first_infinity is None and np.isinf(value).any() and all(finite(a) for a in arrays):
            trace.first_infinity = NonFinite(step.node.name, step.node.type, output.name, "infinity")


def finite(x: np.ndarray) -> bool:
    """Say whether all elements are finite; one dot product in the ordinary case."""
    if x.dtype == _SINGLE and math.isfinite(np.vdot(x, x)):
        return True
    return bool(np.isfinite(x).all())


def _size(value: Any) -> int:
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(_size(item) for item in value) if isinstance(value, list) else 0


def _error(step: Step, reason: str) -> ProgramError:
    return ProgramError(f"operation {step.node.name!r} ({step.node.type}) cannot run: {reason}")
