"""What the process that read a model file says of it: JSON on its way back, checked by who asked for it.

The text and the numbers in it are a stranger's: names have to be printable, and sizes such that a device can have them.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from exporter.core.types import MOST_BYTES, MOST_PARTS, Lowered, MemoryPlan, Operation, Shape

MOST_ANSWER_BYTES = 64 << 20
_NAME_LENGTH = 1000


@dataclass(frozen=True)
class Answer:
    """One of three: what the file says; why it cannot be read; or what is missing here, whatever the file says."""

    lowered: Lowered | None = None
    damage: str | None = None
    refusal: str | None = None


def to_json(answer: Answer) -> bytes:
    """Return an answer as bytes; raises ValueError where its text is no text, or its numbers have no end."""
    return json.dumps(answer, default=vars, separators=(",", ":")).encode("ascii")


def from_json(data: bytes) -> Answer:
    """Return an answer whose parts have their types and fit a file that a device could run; raises ValueError."""
    from pydantic import TypeAdapter, ValidationError  # the command line has no time for it, nor has who reads the file

    try:
        answer = TypeAdapter(Answer).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return answer if answer.lowered is None else replace(answer, lowered=_checked(answer.lowered))


def _checked(lowered: Lowered) -> Lowered:
    """Return what a file says without what cannot be; raises ValueError where the rest makes no sense without it."""
    for kind, parts in (
        ("operations", lowered.operations),
        ("constants", lowered.constants),
        ("inputs and outputs", lowered.places),
    ):
        if len(parts) > MOST_PARTS:
            raise ValueError(f"it has more than {MOST_PARTS:,} {kind}")
    for name in _names(lowered):
        if len(name) > _NAME_LENGTH or not name.isprintable():
            raise ValueError("it has names that cannot be shown")
    for constant in lowered.constants:
        if not 0 <= constant.bytes < MOST_BYTES or not _is_possible(constant.shape):
            raise ValueError(f"no constant can have the size that it gives {constant.name!r}")
    if any(not 0 <= place.position < MOST_PARTS for place in lowered.places):
        raise ValueError("no input or output can have the position that it gives")
    if any(size is not None and size < 0 for size in _planned(lowered.memory_plan)):
        raise ValueError("it plans for less memory than none")
    return replace(
        lowered,
        operations=tuple(map(_sized, lowered.operations)),
        memory_plan=_possible(lowered.memory_plan),
    )


def _names(lowered: Lowered) -> Iterator[str]:
    for operation in lowered.operations:
        yield from (operation.name, operation.native, *operation.reads, *operation.writes)
        yield from (value for value in operation.attributes.values() if isinstance(value, str))
    for constant in lowered.constants:
        yield from (constant.name, constant.place)
    for own, value in lowered.inputs:
        yield from (own or value, value)
    for place in lowered.places:
        yield from (place.name or "", place.own_name or "")
    if lowered.data is not None:
        yield from (lowered.data.name, *lowered.data.tensors)


def _is_possible(shape: Shape) -> bool:
    return all(size >= 0 for size in shape) and len(shape) <= _NAME_LENGTH and math.prod(shape) < MOST_BYTES


def _sized(operation: Operation) -> Operation:
    """Return an operation; with a shape that no device can hold, one of no kind, so that it is listed, not counted."""
    if all(map(_is_possible, (*operation.inputs, *operation.outputs))):
        return operation
    inputs, outputs = (
        tuple(shape if _is_possible(shape) else (0,) for shape in shapes)
        for shapes in (operation.inputs, operation.outputs)
    )
    return replace(operation, kind=None, inputs=inputs, outputs=outputs)


def _planned(plan: MemoryPlan) -> tuple[int | None, int | None]:
    return plan.constant_bytes, plan.planned_activation_bytes


def _possible(plan: MemoryPlan) -> MemoryPlan:
    """Return a plan without the bytes of activations that no device has."""
    planned = plan.planned_activation_bytes
    if planned is None or planned < MOST_BYTES:
        return plan
    reason = f"by the shapes in the file, activations need {MOST_BYTES >> 30} GiB or more, which no device has"
    return replace(plan, planned_activation_bytes=None, plan_method="", reason=reason)
