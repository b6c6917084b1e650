"""Which value of an artifact's graph is which of torch's: by name, by numbers, or by the order of kinds and shapes.

A converter splits, joins and renames operations, so that some values of either graph have no partner: they stay alone.
"""

import itertools
import math
from collections.abc import Container, Hashable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from exporter.core.explanation import GraphValue, Matching, TracedValue
from exporter.core.types import Shape
from exporter.parity.verdict import FP32_UNIT_ROUNDOFF, SAME_VALUE

_MOST_CELLS = 4_000_000  # of the table in which sequences are aligned


class Match(NamedTuple):
    """A value of the artifact, by its place in the order in which it is computed, and the one of torch's that it is."""

    traced: int
    known: int
    by: Matching


def match(known: Sequence[GraphValue], traced: Sequence[TracedValue], outputs: Mapping[str, str]) -> list[Match]:
    """Return pairs of values, each in one pair at the most, in the order of the artifact's graph.

    `outputs` has the name of torch's node for each output. A name counts where the shapes are equal too; what has no
    such name is the value with the nearest numbers that are the same up to SAME_VALUE; what is left between two pairs
    is taken in order where kind and shape are equal, unless it is far off and what is computed of it is not.
    """
    pairs: dict[int, tuple[int, Matching]] = {}
    taken: set[int] = set()

    def pair(at: int, to: int, by: Matching) -> None:
        pairs[at] = to, by
        taken.add(to)

    place = {value.name: at for at, value in enumerate(known)}
    for at, value in enumerate(traced):
        to = place.get(outputs.get(value.origin or "", value.origin or ""))
        if to is not None and to not in taken and _shape(known[to].numbers) == _shape(value.numbers):
            pair(at, to, "name")
    for at, value in enumerate(traced):
        if at not in pairs:
            near = _nearest(value, known, taken)
            if near is not None:
                pair(at, near, "numbers")
    for gap_traced, gap_known in _gaps(pairs, len(traced), len(known)):
        left = [at for at in gap_traced if traced[at].kind is not None]
        right = [to for to in gap_known if known[to].kind is not None and to not in taken]
        for i, j in _common([_key(traced[at]) for at in left], [_key(known[to]) for to in right]):
            pair(left[i], right[j], "order")
    found = [Match(at, *pairs[at]) for at in sorted(pairs)]
    while (kept := _without_contradictions(found, known, traced)) != found:
        found = kept
    return found


def _without_contradictions(
    found: list[Match], known: Sequence[GraphValue], traced: Sequence[TracedValue]
) -> list[Match]:
    """Return pairs without those that order alone made, are far apart, and yet lead to a value that is right."""
    right = {}
    for one in found:
        distance = relative_rms(known[one.known].numbers, traced[one.traced].numbers)
        right[known[one.known].name] = distance is not None and distance <= SAME_VALUE
    reads = {value.name: value.reads for value in known}
    leading = {
        before for name, is_right in right.items() if is_right for before in nearest(name, reads, right)
    }  # to a value that is right
    return [
        one
        for one in found
        if one.by != "order" or right[known[one.known].name] or known[one.known].name not in leading
    ]


def nearest(node: str, reads: Mapping[str, Sequence[str]], among: Container[str]) -> dict[str, None]:
    """Return the nearest values of `among` from which one is computed."""
    found: dict[str, None] = {}
    waiting = list(reads.get(node, ()))
    seen = set(waiting)
    while waiting:
        name = waiting.pop(0)
        if name in among:
            found[name] = None
            continue
        others = [other for other in reads.get(name, ()) if other not in seen]
        seen.update(others)
        waiting += others
    return found


def _shape(numbers: np.ndarray) -> Shape:
    """Return the shape of a case, without axes of one, which converters add and drop."""
    return tuple(size for size in numbers.shape[1:] if size != 1)


def _key(value: GraphValue | TracedValue) -> Hashable:
    return value.kind, _shape(value.numbers)


def _nearest(value: TracedValue, known: Sequence[GraphValue], taken: set[int]) -> int | None:
    """Return the value of torch's that is not taken and has the same numbers, None where none has.

    Several that cannot be told apart, as where a value is only moved, are taken in their order, those of the same kind
    first.
    """
    shape, size = _shape(value.numbers), value.numbers.size
    near: list[tuple[float, int]] = []
    for at, other in enumerate(known):
        if at not in taken and other.numbers.size == size:
            distance = relative_rms(other.numbers, value.numbers)
            if distance is not None and distance <= SAME_VALUE:
                near.append((distance, at))
    most = 2 * min(near)[0] + FP32_UNIT_ROUNDOFF if near else 0.0
    ranks = [
        (_shape(known[at].numbers) != shape, known[at].kind != value.kind, at)
        for distance, at in near
        if distance <= most
    ]
    return min(ranks)[-1] if ranks else None


def relative_rms(expected: np.ndarray, actual: np.ndarray) -> float | None:
    """Return the RMS of the difference by that of what is expected; None where one holds numbers that are not finite.

    Values of zeros alone have nothing that a difference could be measured by: 0 where both are, else None.
    """
    exact, other = (array.astype(np.float64).reshape(-1) for array in (expected, actual))
    if not (np.isfinite(exact).all() and np.isfinite(other).all()):
        return None
    scale, error = float(np.sqrt(np.mean(exact**2))), float(np.sqrt(np.mean((other - exact) ** 2)))
    if scale == 0:
        return 0.0 if error == 0 else None
    ratio = error / scale
    return ratio if math.isfinite(ratio) else None


def _gaps(pairs: Mapping[int, tuple[int, Matching]], traced: int, known: int) -> list[tuple[range, range]]:
    """Return what lies between pairs that stand in the same order on both sides, as ranges of both."""
    chain = [(-1, -1), *_rising([(at, to) for at, (to, _) in sorted(pairs.items())]), (traced, known)]
    return [
        (range(first[0] + 1, second[0]), range(first[1] + 1, second[1])) for first, second in itertools.pairwise(chain)
    ]


def _rising(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the longest part of pairs, rising in their first, that rises in their second too."""
    lengths, before = [1] * len(pairs), [-1] * len(pairs)
    for at, (_, to) in enumerate(pairs):
        for earlier in range(at):
            if pairs[earlier][1] < to and lengths[earlier] + 1 > lengths[at]:
                lengths[at], before[at] = lengths[earlier] + 1, earlier
    chain = []
    at = max(range(len(pairs)), key=lengths.__getitem__, default=-1)
    while at >= 0:
        chain.append(pairs[at])
        at = before[at]
    return chain[::-1]


def _common(left: Sequence[Hashable], right: Sequence[Hashable]) -> list[tuple[int, int]]:
    """Return the places of a longest common subsequence; none where it would take too long to find."""
    if len(left) * len(right) > _MOST_CELLS:
        return []
    longest = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int32)
    for i in range(len(left) - 1, -1, -1):
        for j in range(len(right) - 1, -1, -1):
            equal = left[i] == right[j]
            longest[i, j] = longest[i + 1, j + 1] + 1 if equal else max(longest[i + 1, j], longest[i, j + 1])
    pairs, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] == right[j] and longest[i, j] == longest[i + 1, j + 1] + 1:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1, j] >= longest[i, j + 1]:
            i += 1
        else:
            j += 1
    return pairs
