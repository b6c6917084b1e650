"""Which part of a program loses precision: constants by what their stored form changes, values by how far they are off.

Arrays go in and figures come out: whoever calls computes the values, in torch and in the artifact's runtime.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from exporter.core.explanation import ConstantLoss, ForeignConstant, GraphValue, OffValue, TracedValue, Unmatched
from exporter.core.precision import Precision
from exporter.core.types import Arrays, Constant
from exporter.parity.compare import output_error
from exporter.parity.matching import Match, nearest, relative_rms
from exporter.parity.verdict import error_limits


def change(constant: np.ndarray, stored: np.ndarray) -> tuple[float | None, int]:
    """Return by how much a constant's numbers change at the most, and how many are not finite in the stored form."""
    lost = int((np.isfinite(constant) & ~np.isfinite(stored)).sum())
    if lost:
        return None, lost
    told = np.isfinite(constant)  # infinities of a mask stay what they are
    return float(np.abs(stored[told].astype(np.float64) - constant[told]).max(initial=0.0)), 0


def share(part: Arrays, together: Arrays) -> float | None:
    """Return sum(part * together) / sum(together^2) over outputs by name; None where `together` is 0 or not finite."""
    whole = sum(float((together[name].astype(np.float64) ** 2).sum()) for name in together)
    along = sum(float((part[name].astype(np.float64) * together[name]).sum()) for name in together)
    part_of_all = along / whole if whole > 0 else math.nan
    return part_of_all if math.isfinite(part_of_all) else None


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
        before = [relative[name] for name in nearest(row.node, reads, relative)]
        figures = [figure for figure in (row.relative_rms, *before) if figure is not None]
        worst = max(figures[1:], default=0.0)
        growth = figures[0] / worst if worst and len(figures) == len(before) + 1 else math.inf
        grown.append(replace(row, growth=growth if math.isfinite(growth) else None))
    return grown


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


def largest_difference(outputs: Arrays, others: Arrays) -> float | None:
    """Return the largest difference between outputs of floats with the same names; None where it is no number."""
    pairs = [(array, others[name]) for name, array in outputs.items() if name in others and array.dtype.kind == "f"]
    with np.errstate(invalid="ignore"):
        most = [
            float(np.abs(one.astype(np.float64) - other.reshape(one.shape)).max(initial=0.0)) for one, other in pairs
        ]
    return max(most) if most and np.isfinite(most).all() else None


def strangers(own: Sequence[Constant], others: Sequence[Constant]) -> list[Constant]:
    """Return the constants whose bytes are not among those of others."""
    known = {constant.sha256 for constant in others}
    return [constant for constant in own if constant.sha256 not in known]


def foreign(own: Sequence[Constant], anew: Sequence[Constant], contents: Arrays) -> tuple[ForeignConstant, ...]:
    """Return the constants of an artifact that are not in what was lowered anew from the same program.

    `contents` are the program's constants in fp32 by name: one that is, in 32 or 16 bits, in what was lowered anew and
    not in the artifact is what a stranger of its size stands for.
    """
    missing = {constant.sha256: constant.bytes for constant in strangers(anew, own)}
    likely: dict[int, list[str]] = defaultdict(list)
    for name, array in contents.items():
        with np.errstate(over="ignore"):
            hashes = hashes_of(array) | hashes_of(array.astype(np.float16))
        for size in {missing[sha256] for sha256 in hashes & missing.keys()}:
            likely[size].append(name)
    return tuple(
        ForeignConstant(constant.name, constant.shape, " or ".join(likely[constant.bytes]) or None)
        for constant in strangers(own, anew)
    )


def hashes_of(array: np.ndarray) -> set[str]:
    """Return the SHA-256 of an array's bytes as they are and transposed, which is how files have them."""
    return {hashlib.sha256(np.ascontiguousarray(form).tobytes()).hexdigest() for form in (array, array.T)}
