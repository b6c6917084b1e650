"""Figures that compare what an artifact gave with what torch gave for the same cases."""

from dataclasses import dataclass, replace

import numpy as np

from exporter.core.types import Arrays
from exporter.parity.ranking import kendall_tau_b, top_overlap, top_set_gaps

TOP = 10

# Relative error is |actual - expected| / max(|expected|, floor) with floor = REL_FLOOR * the largest |expected| of the
# same output: without a floor one expected value near zero would make any error look infinite.
REL_FLOOR = 1e-2


@dataclass(frozen=True)
class OutputError:
    """The errors of one output: in each case the largest absolute error and the scale, the largest |expected|."""

    name: str
    dtype: str
    is_ranking: bool
    errors: tuple[float, ...]
    scales: tuple[float, ...]
    max_rel_error: float

    @property
    def max_abs_error(self) -> float:
        """Return the largest absolute error of all cases."""
        return max(self.errors)

    @property
    def scale(self) -> float:
        """Return the largest |expected| of all cases."""
        return max(self.scales)


@dataclass(frozen=True)
class RankingFigures:
    """How far two rankings of the same candidates agree; a ranking is one row of the last axis of the ranking output.

    `top10_overlap` is the mean share of the top 10 that both have, equal scores in the order of their index, and
    `top10_changed` in how many rankings it is below 1; `kendall_tau` is the mean tau-b over all candidates.
    `flip_margin` is the smallest expected gap between the 10th and the 11th score, `twice_max_error` what two scores
    can move towards each other at most, and `could_flip` counts the rankings whose gap is within twice their own
    largest error. What ten or fewer candidates cannot tell is None, with the reason.
    """

    output: str
    rankings: int
    kendall_tau: float | None
    kendall_tau_min: float | None
    top10_overlap: float | None
    top10_overlap_min: float | None
    top10_changed: int | None
    flip_margin: float | None
    twice_max_error: float
    could_flip: int | None
    reason: str | None = None


@dataclass(frozen=True)
class ParityReport:
    """The comparison of all cases; where they cannot be compared, `mismatch` says why and the figures are None."""

    cases: int
    max_abs_error: float | None
    max_rel_error: float | None
    outputs: tuple[OutputError, ...]
    ranking: RankingFigures | None
    ranking_reason: str | None
    mismatch: str | None = None


def compare(expected: Arrays, actual: Arrays, ranking: str | None) -> ParityReport:
    """Compare outputs by name, each [cases, ...]; `ranking` names the output whose last axis scores the candidates.

    A missing, extra, misshapen, mistyped or non-finite output is a mismatch that names it, never an exception.
    """
    mismatch = find_mismatch(expected, actual)
    if mismatch is None and ranking is not None and ranking not in expected:
        mismatch = f"the ranking output {ranking!r} is missing"
    if mismatch is not None:
        return ParityReport(0, None, None, (), None, mismatch, mismatch)
    outputs = tuple(output_error(name, expected[name], actual[name], name == ranking) for name in expected)
    figures = None if ranking is None else ranking_figures(ranking, expected[ranking], actual[ranking])
    why = "no output of this program is a ranking" if ranking is None else "one candidate leaves nothing to rank"
    return ParityReport(
        cases=len(next(iter(expected.values()))),
        max_abs_error=max(output.max_abs_error for output in outputs),
        max_rel_error=max(output.max_rel_error for output in outputs),
        outputs=outputs,
        ranking=figures,
        ranking_reason=why if figures is None else None,
    )


@dataclass(frozen=True)
class SchemeChanges:
    """What stored tables change: for each output of floats its error in its own spread, and how rankings agree.

    `scale_to_spread` is the largest number of the ranking in its own spread. `mismatch` says why nothing could be
    compared, `no_ranking` why there is none to judge.
    """

    error_to_spread: dict[str, float]
    ranking: RankingFigures | None
    scale_to_spread: float = 0.0
    mismatch: str | None = None
    no_ranking: str | None = None


def scheme_changes(fp32: Arrays, stored: Arrays, report: ParityReport, ranked: str | None) -> SchemeChanges:
    """Return what stored tables change, of outputs [cases, ...] by name and their `report`.

    A program that names the best itself, in `ranked`, shows no score of the others, so that theirs have no spread.
    """
    names = [output.name for output in report.outputs if output.dtype.startswith("float")]
    figures = report.ranking
    ratios = {
        name: error_to_spread(fp32[name], stored[name], figures is not None and name == figures.output)
        for name in names
        if ranked is None or figures is None or name != figures.output
    }
    scale = 0.0
    if figures is not None and figures.output in ratios:
        exact = fp32[figures.output].astype(np.float64)
        spread = _spread(exact, True)
        scale = float(np.abs(exact).max()) / spread if spread > 0.0 else 0.0
    return SchemeChanges(ratios, figures, scale, report.mismatch, report.ranking_reason)


def error_to_spread(exact: np.ndarray, changed: np.ndarray, is_ranking: bool) -> float:
    """Return the root mean square of a change over the standard deviation of the values, in float64.

    `exact` and `changed` are [cases, ..., n]; of a ranking the deviation is that from the mean of each of its rows.
    What does not vary and changes is infinitely far off.
    """
    exact, changed = exact.astype(np.float64), changed.astype(np.float64)
    error = float(np.sqrt(((changed - exact) ** 2).mean()))
    spread = _spread(exact, is_ranking)
    if spread == 0.0:
        return 0.0 if error == 0.0 else float("inf")
    return error / spread


def _spread(exact: np.ndarray, is_ranking: bool) -> float:
    mean = exact.mean(axis=-1, keepdims=True) if is_ranking else exact.mean()
    return float(np.sqrt(((exact - mean) ** 2).mean()))


def find_mismatch(expected: Arrays, actual: Arrays) -> str | None:
    """Return why the two cannot be compared number by number, or None where they can."""
    if not expected:
        return "there is no expected output to compare with"
    if missing := sorted(set(expected) - set(actual)):
        return f"missing output: {', '.join(missing)}"
    if extra := sorted(set(actual) - set(expected)):
        return f"unexpected output: {', '.join(extra)}"
    if len({array.shape[:1] for array in expected.values()}) != 1:
        return "the expected outputs differ in their number of cases"
    for name, reference in expected.items():
        array = actual[name]
        if reference.size == 0:
            return f"output {name!r} holds no values"
        if array.shape != reference.shape:
            return f"output {name!r} has shape {list(array.shape)}, expected {list(reference.shape)}"
        if array.dtype != reference.dtype:
            return f"output {name!r} is {array.dtype}, expected {reference.dtype}"
    return non_finite("expected", expected) or non_finite("actual", actual)


def non_finite(which: str, arrays: Arrays) -> str | None:
    """Return which output of which case holds a NaN or an infinity, or None."""
    for name, array in arrays.items():
        bad = ~np.isfinite(array)
        if bad.any():
            where = [int(index) for index in np.argwhere(bad)[0]]
            return (
                f"{which} output {name!r} holds {int(bad.sum())} NaN or infinite values, the first in case {where[0]}"
            )
    return None


def output_error(name: str, expected: np.ndarray, actual: np.ndarray, is_ranking: bool) -> OutputError:
    """The errors of one output [cases, ...], in float64."""
    exact = expected.astype(np.float64)
    error = np.abs(actual.astype(np.float64) - exact)
    size = np.abs(exact)
    errors, scales = (values.reshape(len(values), -1).max(axis=1).tolist() for values in (error, size))
    floor = REL_FLOOR * max(scales) or 1.0
    relative = float((error / np.maximum(size, floor)).max())
    return OutputError(name, expected.dtype.name, is_ranking, tuple(errors), tuple(scales), relative)


def ranking_figures(name: str, expected: np.ndarray, actual: np.ndarray) -> RankingFigures | None:
    """The figures of the rankings in [..., candidates] arrays, or None where one candidate leaves nothing to rank."""
    candidates = expected.shape[-1]
    if candidates < 2:
        return None
    expected, actual = (scores.astype(np.float64).reshape(-1, candidates) for scores in (expected, actual))
    error = np.abs(actual - expected).max(axis=1)
    tau = kendall_tau_b(expected, actual)
    figures = RankingFigures(
        output=name,
        rankings=len(expected),
        kendall_tau=float(tau.mean()),
        kendall_tau_min=float(tau.min()),
        top10_overlap=None,
        top10_overlap_min=None,
        top10_changed=None,
        flip_margin=None,
        twice_max_error=2 * float(error.max()),
        could_flip=None,
        reason=f"the top {TOP} of {candidates} candidates is always the same set",
    )
    if candidates <= TOP:
        return figures
    overlap = top_overlap(expected, actual, TOP)
    gaps = top_set_gaps(expected, TOP)
    return replace(
        figures,
        top10_overlap=float(overlap.mean()),
        top10_overlap_min=float(overlap.min()),
        top10_changed=int((overlap < 1).sum()),
        flip_margin=float(gaps.min()),
        could_flip=int(((gaps <= 2 * error) & (error > 0)).sum()),
        reason=None,
    )
