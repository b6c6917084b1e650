"""Where an artifact's constants go: the item embedding, the body, the head; and which tables are there twice."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from exporter.core import kinds
from exporter.core.sections import Expanded, StoredTwice
from exporter.core.types import Constant, Lowered, Operation, stored_bytes

CANDIDATES = "candidate"
"""Inputs whose names begin so bring the candidates; what depends on them is the head."""
_SOURCES_NAMED = 16


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
    # Values that follow from constants alone -> some of those constants; and the operations that make such values.
    fixed = {constant.name: frozenset((constant.name,)) for constant in lowered.constants}
    makers: dict[str, Operation] = {}
    tables: set[str] = set()
    read_for_head: set[str] = set()
    read_for_body: set[str] = set()
    expanded: dict[str, Expanded] = {}
    for operation in lowered.operations:
        if operation.reads and all(value in fixed for value in operation.reads):
            sources = sorted({name for value in operation.reads for name in fixed[value]})
            fixed |= dict.fromkeys(operation.writes, frozenset(sources[:_SOURCES_NAMED]))
            makers |= dict.fromkeys(operation.writes, operation)
            continue
        depends = not candidates.isdisjoint(operation.reads)
        if depends:
            candidates.update(operation.writes)
        read = [value for value in operation.reads if value in fixed]
        if operation.kind == kinds.GATHER and operation.reads[:1] == tuple(read[:1]) != ():
            table = read.pop(0)
            tables.add(table)
            maker = makers.get(table)
            if maker is not None and maker.kind == kinds.MOVE and (size := _written(maker)):
                expanded[maker.name] = Expanded(tuple(sorted(fixed[table])), maker.name, size)
        (read_for_head if depends else read_for_body).update(read)
    embedding = _constants_behind(tables, makers)
    head = _constants_behind(read_for_head, makers) - _constants_behind(read_for_body, makers) - embedding
    embedding_bytes, head_bytes = _bytes(lowered.constants, embedding), _bytes(lowered.constants, head)
    return ConstantParts(
        embedding_bytes=embedding_bytes,
        body_bytes=stored_bytes(lowered.constants) - embedding_bytes - head_bytes,
        head_bytes=head_bytes,
        stored_twice=tuple(_twice(lowered.constants)),
        expanded=tuple(expanded.values()),
    )


def _constants_behind(values: Iterable[str], makers: Mapping[str, Operation]) -> set[str]:
    """Return the names of the constants from which values follow, those that are constants themselves included."""
    seen: set[str] = set()
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if value not in seen:
            seen.add(value)
            waiting += makers[value].reads if value in makers else ()
    return seen - makers.keys()


def _bytes(constants: Sequence[Constant], names: Collection[str]) -> int:
    return stored_bytes(constant for constant in constants if constant.name in names)


def _written(operation: Operation) -> int:
    return math.prod(operation.outputs[0]) * int(operation.attributes.get("dtype_bytes", 4))


def _twice(constants: Sequence[Constant]) -> Iterator[StoredTwice]:
    """Yield each table that is there once more, with the first of its like; those of the largest tables first."""
    tables = {table.place: table for table in constants if len(table.shape) > 1 and table.sha256 is not None}
    alike: dict[str | None, list[Constant]] = {}
    for table in tables.values():
        alike.setdefault(table.sha256, []).append(table)
    for first, *others in sorted(alike.values(), key=lambda group: -group[0].bytes):
        for other in others:
            yield StoredTwice((first.name, other.name), other.bytes)
