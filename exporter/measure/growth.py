"""What one more click costs: a straight line through figures measured at several lengths of the history."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LENGTHS = (10, 15, 20, 25)
"""The lengths of the CoCorrRec paper's Figure 4."""


@dataclass(frozen=True)
class Line:
    """The least-squares line through points (length, figure), and how well it fits.

    `per_token` is its slope, `at_zero` its value at length 0, `largest_residual` the distance of the point that is
    furthest from it, all in the figure's own unit; `r_squared` is None where all figures are equal.
    """

    per_token: float
    at_zero: float
    r_squared: float | None
    largest_residual: float


def line(points: Mapping[int, float]) -> Line:
    """Fit figures by length; raises ValueError for fewer than two lengths."""
    if len(points) < 2:
        raise ValueError("a growth needs figures of at least two lengths")
    lengths, figures = (np.array(values, dtype=np.float64) for values in (list(points), list(points.values())))
    centred = lengths - lengths.mean()
    slope = float(centred @ (figures - figures.mean()) / (centred @ centred))
    start = float(figures.mean() - slope * lengths.mean())
    residuals = figures - (start + slope * lengths)
    spread = float(((figures - figures.mean()) ** 2).sum())
    return Line(
        per_token=slope,
        at_zero=start,
        r_squared=None if spread == 0 else 1 - float(residuals @ residuals) / spread,
        largest_residual=float(np.abs(residuals).max()),
    )


def steps(figures: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Return the growth per token from each length to the next: constant for a line, rising for attention."""
    pairs = zip(zip(lengths, figures, strict=True), zip(lengths[1:], figures[1:], strict=True), strict=False)
    return [(second - first) / (longer - shorter) for (shorter, first), (longer, second) in pairs]
