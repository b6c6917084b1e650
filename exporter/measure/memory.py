"""Where an artifact's constants go: the item embedding, the body, the head; and which tables are there twice."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from exporter.core import kinds
from exporter.core.types import Constant, Lowered, Operation, stored_bytes

CANDIDATES = "candidate"
"""Inputs whose names begin so bring the candidates; what depends on them is the head."""


@dataclass(frozen=True)
class StoredTwice:
    """Two constants of at least two axes with the same bytes in different places of the artifact."""

    names: tuple[str, str]
    bytes: int


@dataclass(frozen=True)
class Expanded:
    """A stored table that every run computes another form of: `operation` writes `bytes` of it."""

    constants: tuple[str, ...]
    operation: str
    bytes: int


@dataclass(frozen=True)
class ConstantParts:
    """Bytes of constants by what they are for, and what is there twice; constants that share a place count once.

    `embedding_bytes` are tables of which a run chooses rows, `head_bytes` what only operations that depend on the
    candidates read, `body_bytes` the rest.
    """

    embedding_bytes: int
    body_bytes: int
    head_bytes: int
    stored_twice: tuple[StoredTwice, ...]
    expanded: tuple[Expanded, ...]


def parts(lowered: Lowered, inputs: Sequence[str]) -> ConstantParts:
    """Divide the constants of a graph; `inputs` are the names of its inputs, in order where the file has positions."""
    named = zip(lowered.inputs, inputs, strict=False)
    candidates = {value for (own, value), other in named if (own or other).startswith(CANDIDATES)}
    # Values that follow from constants alone -> those constants, and the operation that makes them, if it is one.
    fixed = {constant.name: frozenset((constant.name,)) for constant in lowered.constants}
    makers: dict[str, Operation] = {}
    embedding: set[str] = set()
    head: set[str] = set()
    body: set[str] = set()
    expanded: dict[str, Expanded] = {}
    for operation in lowered.operations:
        constants = {name for value in operation.reads for name in fixed.get(value, ())}
        if constants and all(value in fixed for value in operation.reads):
            fixed |= dict.fromkeys(operation.writes, frozenset(constants))
            if operation.kind == kinds.MOVE:
                makers |= dict.fromkeys(operation.writes, operation)
            continue
        depends = not candidates.isdisjoint(operation.reads)
        if depends:
            candidates.update(operation.writes)
        if operation.kind == kinds.GATHER and operation.reads[:1] and operation.reads[0] in fixed:
            table = fixed[operation.reads[0]]
            embedding |= table
            constants -= table
            if (maker := makers.get(operation.reads[0])) is not None:
                expanded[maker.name] = Expanded(tuple(sorted(table)), maker.name, _written(maker))
        (head if depends else body).update(constants)
    head -= body | embedding
    embedding_bytes, head_bytes = _bytes(lowered.constants, embedding), _bytes(lowered.constants, head)
    return ConstantParts(
        embedding_bytes=embedding_bytes,
        body_bytes=stored_bytes(lowered.constants) - embedding_bytes - head_bytes,
        head_bytes=head_bytes,
        stored_twice=tuple(_twice(lowered.constants)),
        expanded=tuple(expanded.values()),
    )


def _bytes(constants: Sequence[Constant], names: Collection[str]) -> int:
    return stored_bytes(constant for constant in constants if constant.name in names)


def _written(operation: Operation) -> int:
    return math.prod(operation.outputs[0]) * int(operation.attributes.get("dtype_bytes", 4))


def _twice(constants: Sequence[Constant]) -> Iterator[StoredTwice]:
    """Yield pairs of tables with the same bytes, the largest first."""
    tables = {one.place: one for one in constants if len(one.shape) > 1 and one.sha256 is not None}
    alike: dict[str | None, list[Constant]] = {}
    for table in tables.values():
        alike.setdefault(table.sha256, []).append(table)
    for group in sorted(alike.values(), key=lambda group: -group[0].bytes):
        for one, other in combinations(group, 2):
            yield StoredTwice((one.name, other.name), one.bytes)
