"""How much memory the activations of a graph need at once, and an arena that holds them without overlap."""

from bisect import insort
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TypeVar

Value = TypeVar("Value", bound=Hashable)
_FEW = 6


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


def planned_bytes(lifetimes: Sequence[Lifetime], alignment: int = 64) -> int:
    """Return the size in bytes of the smallest arena found, for a runtime whose own plan is not known.

    Besides greedy by size, activations are put as low as they go in the order of their steps and of size times
    duration; of a few activations all orders are tried, one of which gives the smallest arena that there is.
    """
    best = arena_bytes(lifetimes, alignment)
    places = range(len(lifetimes))
    orders: Iterable[Sequence[int]] = permutations(places)
    if len(lifetimes) > _FEW:
        orders = (
            sorted(places, key=lambda i: lifetimes[i].first),
            sorted(places, key=lambda i: -lifetimes[i].size * (1 + lifetimes[i].last - lifetimes[i].first)),
        )
    least = peak_live_bytes(lifetimes)
    for order in orders:
        if best <= least:
            break
        best = min(best, _lowest_bytes(lifetimes, order, alignment))
    return best


def _lowest_bytes(lifetimes: Sequence[Lifetime], order: Sequence[int], alignment: int) -> int:
    """Return the size of the arena with each activation, in turn, at the lowest offset that is free while it lives."""
    placed: list[tuple[int, int]] = []  # (offset, index), the lowest first
    for index in order:
        life = lifetimes[index]
        offset = 0
        for start, neighbour in placed:
            other = lifetimes[neighbour]
            if other.last < life.first or life.last < other.first:
                continue
            if start - offset >= life.size:
                break
            offset = max(offset, -(-(start + other.size) // alignment) * alignment)
        insort(placed, (offset, index))
    return max((offset + lifetimes[index].size for offset, index in placed), default=0)
