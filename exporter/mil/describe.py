"""Describes a plan to those who count: operations with shapes and attributes, constants, values and their lifetimes."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.core.types import TensorSpec
from exporter.mil.graph import Literal, Name
from exporter.mil.plan import CONSTANT_PREFIX, Plan, Step, literal_bytes, nbytes, parameters, step_reads
from exporter.mil.types import TensorType

# Parameters that carry the data an operation computes on; any other parameter that is a small constant is an attribute.
DATA = frozenset(
    {
        "x",
        "y",
        "a",
        "b",
        "cond",
        "values",
        "indices",
        "data",
        "updates",
        "update",
        "value",
        "weight",
        "bias",
        "gamma",
        "beta",
        "mean",
        "variance",
        "weight_ih",
        "weight_hh",
        "initial_h",
        "initial_c",
        "peephole",
        "weight_ih_back",
        "weight_hh_back",
        "bias_back",
        "peephole_back",
        "input_bias",
        "query",
        "key",
        "attn_mask",
        "boxes",
        "scores",
        "quantized_data",
        "offset",
        "lut",
        "mask",
        "nonzero_data",
        "scale",
        "zero_point",
        "input",
        "transform_matrix",
        "coordinates",
        "roi",
        "ls",
        "ref_tensors",
        "loop_vars",
        "pred",
        "probabilities",
    }
)
_ATTRIBUTE_ELEMENTS = 64


@dataclass(frozen=True)
class OperationInfo:
    """One operation: `inputs` are the tensors it reads, constant weights included, in the spec's order of parameters.

    `parameters` names the spec parameter of each input; `attributes` holds small constant settings as Python values.
    """

    name: str
    type: str
    inputs: tuple[TensorSpec, ...]
    parameters: tuple[str, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class ConstantInfo:
    """One constant as stored: `bytes` counts packed elements, so 4-bit weights take half a byte each.

    `sha256` is that of the decoded elements, so that two constants can be told to be the same.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ValueInfo:
    """An activation: bytes (None where its shape is only known in a run), and the first and last step that need it.

    Step 0 holds the inputs, step i + 1 is the i-th operation of the outermost block; outputs live to the last step.
    """

    name: str
    spec: TensorSpec
    bytes: int | None
    first: int
    last: int


def operation_infos(plan: Plan) -> tuple[OperationInfo, ...]:
    """Return the operations of a plan and its nested blocks in order."""
    return tuple(_operation(step, owner) for step, owner in _steps(plan))


def constant_operation_infos(plan: Plan) -> tuple[OperationInfo, ...]:
    """Return the operations of a plan and its nested blocks that decompress constants."""
    plans = [plan, *(block for step, _ in _steps(plan) for block in step.blocks)]
    return tuple(_operation(step, owner) for owner in plans for step in owner.prelude)


def constant_infos(plan: Plan) -> tuple[ConstantInfo, ...]:
    """Return the named constants of a plan and its blocks, and the literals written into operations, each blob once."""
    infos: dict[int, ConstantInfo] = {}
    for literal, name in _literals(plan):
        if literal.type is not None and literal.type.dtype != "string" and isinstance(literal.value, np.ndarray):
            shape = literal.type.shape or ()
            if id(literal.value) not in infos:
                sha256 = hashlib.sha256(literal.value.tobytes()).hexdigest()
                size = literal_bytes(literal)
                infos[id(literal.value)] = ConstantInfo(name, literal.type.dtype, shape, size, sha256)
    return tuple(infos.values())


def value_infos(plan: Plan) -> tuple[ValueInfo, ...]:
    """Return inputs and results of the outermost block with their lifetimes."""
    first: dict[str, int] = {parameter.name: 0 for parameter in plan.inputs}
    last: dict[str, int] = dict(first)
    for number, step in enumerate(plan.steps, 1):
        for name in step_reads(step):
            last[name] = number
        for output in step.outputs:
            first[output.name] = last[output.name] = number
    last.update((name, len(plan.steps)) for name in plan.outputs if name in first)
    return tuple(
        ValueInfo(name, declared.spec(name), nbytes(declared), first[name], last[name])
        for name in first
        if isinstance(declared := plan.types[name], TensorType)
    )


def _steps(plan: Plan) -> Iterator[tuple[Step, Plan]]:
    for step in plan.steps:
        yield step, plan
        for block in step.blocks:
            yield from _steps(block)


def _literals(plan: Plan) -> Iterator[tuple[Literal, str]]:
    for name, literal in plan.constants.items():
        yield literal, name
    for step in (*plan.prelude, *plan.steps):
        for key, bindings in step.node.inputs.items():
            for binding in bindings:
                if isinstance(binding, Literal):
                    # A compressed constant is several, and each has its own place.
                    compressed = step.node.type.startswith(CONSTANT_PREFIX)
                    yield binding, f"{step.node.name}.{key}" if compressed else step.node.name
        for key, literal in step.node.attributes.items():
            yield literal, f"{step.node.name}.{key}"
        for block in step.blocks:
            yield from _literals(block)


def _operation(step: Step, plan: Plan) -> OperationInfo:
    arguments = {**{key: (value,) for key, value in step.node.attributes.items()}, **step.node.inputs}
    inputs: list[TensorSpec] = []
    names: list[str] = []
    attributes: dict[str, Any] = {}
    for key in parameters(step.kernel):
        for binding in arguments.get(key, ()):
            name = binding.name if isinstance(binding, Name) else key
            literal = binding if isinstance(binding, Literal) else plan.constants.get(binding.name)
            if literal is not None and _is_attribute(key, literal):
                attributes[key] = _plain(literal.value)
            else:
                declared = plan.types.get(name) if isinstance(binding, Name) else binding.type
                if isinstance(declared, TensorType):
                    inputs.append(declared.spec(name))
                    names.append(key)
    outputs = tuple(output.type.spec(output.name) for output in step.outputs if isinstance(output.type, TensorType))
    return OperationInfo(step.node.name, step.node.type, tuple(inputs), tuple(names), outputs, attributes)


def _is_attribute(key: str, literal: Literal) -> bool:
    if not isinstance(literal.value, np.ndarray):
        return True
    return key not in DATA and literal.value.size <= _ATTRIBUTE_ELEMENTS


def _plain(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    return value.item() if value.ndim == 0 else tuple(value.reshape(-1).tolist())
