"""How much memory the activations of a graph need at once, and an arena that holds them without overlap."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import permutations
from typing import TypeVar

from exporter.core.types import MemoryPlan

Value = TypeVar("Value", bound=Hashable)
Gap = tuple[int, int | None]
"""Where an unused stretch of an arena begins, and its bytes; None where nothing lies behind it."""

_FEW = 6
_MOST_PAIRS = 1_000_000


class PlanError(Exception):
    """So many activations live at the same time that an arena for them is not planned."""


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


def memory_plan(
    constant_bytes: int, lifetimes: Sequence[Lifetime], planner: Callable[[Sequence[Lifetime]], int], method: str
) -> MemoryPlan:
    """Return a plan of the arena that `planner` finds; null and the reason where there are too many lifetimes."""
    try:
        return MemoryPlan(constant_bytes, planner(lifetimes), method)
    except PlanError as error:
        return MemoryPlan(constant_bytes, None, "", str(error))


def neighbours_of(lifetimes: Sequence[Lifetime]) -> list[list[int]]:
    """Return for each activation the indices of those that live at one of its steps; raises PlanError for too many."""
    neighbours: list[list[int]] = [[] for _ in lifetimes]
    living: dict[int, None] = {}
    ending: list[tuple[int, int]] = []
    pairs = 0
    for index in sorted(range(len(lifetimes)), key=lambda i: lifetimes[i].first):
        while ending and ending[0][0] < lifetimes[index].first:
            del living[heappop(ending)[1]]
        pairs += len(living)
        if pairs > _MOST_PAIRS:
            raise PlanError(f"more than {_MOST_PAIRS:,} pairs of values live at the same time, too many to plan for")
        neighbours[index].extend(living)
        for other in living:
            neighbours[other].append(index)
        living[index] = None
        heappush(ending, (lifetimes[index].last, index))
    return neighbours


def arena_offsets(
    lifetimes: Sequence[Lifetime], alignment: int = 64, neighbours: Sequence[Sequence[int]] | None = None
) -> list[int]:
    """Place every activation at an aligned offset, largest first, each in the tightest gap that is free while it lives.

    This is the greedy-by-size planning of Pisarchyk and Lee (2020, arXiv:2001.03288, section 5.2). As in TFLite, what
    lives from the first step to the last comes before all others, in the order given. `neighbours` are those of
    `neighbours_of`, where they are known. Raises PlanError.
    """
    start = min((life.first for life in lifetimes), default=0)
    end = max((life.last for life in lifetimes), default=0)

    def turn(index: int) -> tuple[bool, int, int, int]:
        life = lifetimes[index]
        if (life.first, life.last) == (start, end):
            return False, 0, 0, index
        return True, -life.size, life.first, index

    return _placed(lifetimes, sorted(range(len(lifetimes)), key=turn), alignment, neighbours, _tightest)


def arena_bytes(lifetimes: Sequence[Lifetime], alignment: int = 64) -> int:
    """Return the size in bytes of the arena that `arena_offsets` plans; raises PlanError."""
    return _extent(lifetimes, arena_offsets(lifetimes, alignment))


def planned_bytes(lifetimes: Sequence[Lifetime], alignment: int = 64) -> int:
    """Return the size in bytes of the smallest arena found, for a runtime whose own plan is not known.

    Besides greedy by size, activations are put as low as they go in the order of their steps and of size times
    duration; of a few activations all orders are tried, one of which gives the smallest arena that there is. Raises
    PlanError.
    """
    neighbours = neighbours_of(lifetimes)
    best = _extent(lifetimes, arena_offsets(lifetimes, alignment, neighbours))
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
        best = min(best, _extent(lifetimes, _placed(lifetimes, order, alignment, neighbours, _lowest)))
    return best


def _placed(
    lifetimes: Sequence[Lifetime],
    order: Iterable[int],
    alignment: int,
    neighbours: Sequence[Sequence[int]] | None,
    choose: Callable[[int, Sequence[Gap]], int],
) -> list[int]:
    """Place activations in turn at the offset that `choose` takes of the gaps between those that live meanwhile."""
    neighbours = neighbours_of(lifetimes) if neighbours is None else neighbours
    offsets = [-1] * len(lifetimes)
    for index in order:
        gaps: list[Gap] = []
        free = 0
        for start, size in sorted((offsets[i], lifetimes[i].size) for i in neighbours[index] if offsets[i] >= 0):
            gaps.append((free, start - free))
            free = max(free, -(-(start + size) // alignment) * alignment)
        offsets[index] = choose(lifetimes[index].size, [*gaps, (free, None)])
    return offsets


def _tightest(size: int, gaps: Sequence[Gap]) -> int:
    """Return the start of the smallest gap that is large enough, the lowest of several; the open end is the largest."""
    fitting = [(room, start) for start, room in gaps if room is not None and room >= size]
    return min(fitting)[1] if fitting else gaps[-1][0]


def _lowest(size: int, gaps: Sequence[Gap]) -> int:
    """Return the start of the lowest gap that is large enough."""
    return next(start for start, room in gaps if room is None or room >= size)


def _extent(lifetimes: Sequence[Lifetime], offsets: Sequence[int]) -> int:
    """Return the bytes from 0 to the end of the highest activation."""
    return max((offset + life.size for offset, life in zip(offsets, lifetimes, strict=True)), default=0)
