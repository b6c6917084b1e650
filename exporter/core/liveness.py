"""How much memory the activations of a graph need at once, and an arena that holds them without overlap."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)


@dataclass(frozen=True)
class Lifetime:
    """One activation: its size in bytes and the first and last step, both included, at which it must be in memory."""

    size: int
    first: int
    last: int


def lifetimes_of(
    steps: Iterable[tuple[Iterable[Value], Iterable[Value]]],
    given: Iterable[Value],
    results: Iterable[Value],
    sizes: Mapping[Value, int],
) -> list[Lifetime]:
    """Return the lifetimes of a graph's values from the (inputs, outputs) of its operations in order.

    `given` values live from the first step, `results` to the end; values without an entry in `sizes` (constants) are
    left out.
    """
    spans = {value: (0, 0) for value in given if value in sizes}
    end = 0
    for step, (inputs, outputs) in enumerate(steps):
        spans |= {value: (step, step) for value in outputs if value in sizes}
        spans |= {value: (spans[value][0], step) for value in inputs if value in spans}
        end = step + 1
    spans |= {value: (spans[value][0], end) for value in results if value in spans}
    return [Lifetime(sizes[value], first, last) for value, (first, last) in spans.items()]


def peak_live_bytes(lifetimes: Sequence[Lifetime]) -> int:
    """Return the largest sum of sizes that are alive at one step: no plan can need less."""
    changes: dict[int, int] = {}
    for life in lifetimes:
        changes[life.first] = changes.get(life.first, 0) + life.size
        changes[life.last + 1] = changes.get(life.last + 1, 0) - life.size
    peak = live = 0
    for step in sorted(changes):
        live += changes[step]
        peak = max(peak, live)
    return peak


def arena_offsets(lifetimes: Sequence[Lifetime], alignment: int = 64) -> list[int]:
    """Place every activation at an aligned offset, largest first, each in the tightest gap that is free while it lives.

    This is the greedy-by-size planning of Pisarchyk and Lee (2020, arXiv:2001.03288, section 5.2). As in TFLite, what
    lives from the first step to the last comes before all others, in the order given.
    """
    offsets = [0] * len(lifetimes)
    placed: list[int] = []
    start = min((life.first for life in lifetimes), default=0)
    end = max((life.last for life in lifetimes), default=0)

    def turn(index: int) -> tuple[bool, int, int, int]:
        life = lifetimes[index]
        if (life.first, life.last) == (start, end):
            return False, 0, 0, index
        return True, -life.size, life.first, index

    for index in sorted(range(len(lifetimes)), key=turn):
        life = lifetimes[index]
        offset = 0
        best: tuple[int, int] | None = None
        for other in placed:  # in the order of their offsets
            neighbour = lifetimes[other]
            if neighbour.last < life.first or life.last < neighbour.first:
                continue
            gap = offsets[other] - offset
            if gap >= life.size and (best is None or gap < best[0]):
                best = gap, offset
            end = offsets[other] + neighbour.size
            offset = max(offset, -(-end // alignment) * alignment)
        offsets[index] = offset if best is None else best[1]
        placed.append(index)
        placed.sort(key=offsets.__getitem__)
    return offsets


def arena_bytes(lifetimes: Sequence[Lifetime], alignment: int = 64) -> int:
    """Return the size in bytes of the arena that `arena_offsets` plans."""
    offsets = arena_offsets(lifetimes, alignment)
    return max((offset + life.size for offset, life in zip(offsets, lifetimes, strict=True)), default=0)
