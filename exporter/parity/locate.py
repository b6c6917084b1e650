"""Which part of a program loses precision: constants by what their stored form changes, values by how far they are off.

Arrays go in and figures come out: whoever calls computes the values, in torch and in the artifact's runtime.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.core.explanation import ConstantLoss, GraphValue, OffValue, TracedValue, Unmatched
from exporter.core.precision import Precision
from exporter.core.types import Arrays
from exporter.parity.compare import output_error
from exporter.parity.matching import Match, relative_rms
from exporter.parity.verdict import error_limits


def in_half(constant: np.ndarray) -> np.ndarray:
    """Return a constant as it is read from 16 bits, in fp32; what is beyond 65,504 is infinite there."""
    with np.errstate(over="ignore"):
        return constant.astype(np.float16).astype(np.float32)


STORED: Mapping[Precision, Callable[[np.ndarray], np.ndarray]] = {"fp16": in_half}
"""How a precision stores a constant of floats: its numbers as the program reads them back. fp32 changes nothing."""


def change(constant: np.ndarray, stored: np.ndarray) -> tuple[float | None, int]:
    """Return by how much a constant's numbers change at the most, and how many are not finite in the stored form."""
    lost = int((np.isfinite(constant) & ~np.isfinite(stored)).sum())
    if lost:
        return None, lost
    same = constant == stored  # infinities of a mask among them
    difference = np.abs(stored.astype(np.float64) - constant, where=~same, out=np.zeros(constant.shape))
    return float(difference.max(initial=0.0)), 0


def share(part: Arrays, together: Arrays) -> float | None:
    """Return sum(part * together) / sum(together^2) over outputs by name; None where `together` is 0 or not finite."""
    whole = sum(float((together[name].astype(np.float64) ** 2).sum()) for name in together)
    along = sum(float((part[name].astype(np.float64) * together[name]).sum()) for name in together)
    return along / whole if whole > 0 and np.isfinite([whole, along]).all() else None


def differences(outputs: Arrays, expected: Arrays, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return outputs minus what is expected of them, in float64."""
    return {name: outputs[name].astype(np.float64) - expected[name] for name in names}


def by_module(constants: Sequence[ConstantLoss]) -> dict[str, float]:
    """Return the sum of the shares of each module's constants, the largest first."""
    sums: dict[str, float] = defaultdict(float)
    for constant in constants:
        if constant.share is not None:
            sums[constant.module] += constant.share
    return dict(sorted(sums.items(), key=lambda item: -abs(item[1])))


def off_values(
    known: Sequence[GraphValue], traced: Sequence[TracedValue], matches: Sequence[Match], precision: Precision
) -> tuple[OffValue, ...]:
    """Return how far each value of the artifact is off that is one of torch's, in the order of torch's graph."""
    partner = {match.known: match for match in matches}
    relative: dict[str, float | None] = {}
    rows = []
    for at, value in enumerate(known):
        if at not in partner:
            continue
        other, by = traced[partner[at].traced], partner[at].by
        expected, actual = value.numbers, other.numbers.reshape(value.numbers.shape)
        told = np.isfinite(expected)  # a mask may hold infinities, for which a converter has numbers of its own
        lost = int((told & ~np.isfinite(actual)).sum())
        kept = told & np.isfinite(actual)
        expected, actual = (np.where(kept, array, 0).astype(np.float32) for array in (expected, actual))
        error = output_error(value.name, expected, actual, False)
        limits = error_limits(precision, error)
        relative[value.name] = None if lost else relative_rms(expected, actual)
        rows.append(
            OffValue(
                module=value.module,
                operation=value.operation,
                node=value.name,
                own_name=other.name,
                own_operation=other.operation,
                matched_by=by,
                shape=value.numbers.shape[1:],
                max_abs_error=None if lost else error.max_abs_error,
                relative_rms=relative[value.name],
                bound=max(limits),
                not_finite=lost,
                is_beyond=lost > 0 or any(one > limit for one, limit in zip(error.errors, limits, strict=True)),
                growth=None,
            )
        )
    return tuple(_grown(rows, known, relative))


def _grown(
    rows: Sequence[OffValue], known: Sequence[GraphValue], relative: Mapping[str, float | None]
) -> list[OffValue]:
    """Return the rows with the growth of each error over the largest one of what the value is computed from."""
    reads = {value.name: value.reads for value in known}
    grown = []
    for row in rows:
        before = [relative[name] for name in _compared(row.node, reads, relative)]
        least = [figure for figure in before if figure is not None]
        if row.relative_rms is None or len(least) < len(before) or not max(least, default=0.0):
            grown.append(row)
        else:
            grown.append(replace(row, growth=row.relative_rms / max(least)))
    return grown


def _compared(
    node: str, reads: Mapping[str, Sequence[str]], relative: Mapping[str, float | None]
) -> dict[str, None]:
    """Return the nearest values that are compared among those from which one is computed."""
    found: dict[str, None] = {}
    waiting = list(reads.get(node, ()))
    seen = set(waiting)
    while waiting:
        name = waiting.pop(0)
        if name in relative:
            found[name] = None
            continue
        others = [other for other in reads.get(name, ()) if other not in seen]
        seen.update(others)
        waiting += others
    return found


def alone(
    known: Sequence[GraphValue], traced: Sequence[TracedValue], matches: Sequence[Match]
) -> tuple[tuple[Unmatched, ...], tuple[Unmatched, ...]]:
    """Return the values of the artifact, and those of torch, that have no partner."""
    taken_known, taken_traced = ({match.known for match in matches}, {match.traced for match in matches})
    own = tuple(
        Unmatched(value.name, value.operation, value.numbers.shape[1:])
        for at, value in enumerate(traced)
        if at not in taken_traced
    )
    others = tuple(
        Unmatched(f"{value.module}.{value.name}".lstrip("."), value.operation, value.numbers.shape[1:])
        for at, value in enumerate(known)
        if at not in taken_known
    )
    return own, others
