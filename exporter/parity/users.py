"""What parity says of each of many users, one ranking each, by the same rules as of golden cases."""

from dataclasses import dataclass

import numpy as np

from exporter.core.precision import Precision
from exporter.parity.compare import TOP, output_error
from exporter.parity.ranking import top_overlap, top_set_gaps
from exporter.parity.verdict import error_limits

__all__ = ["TOP", "UserFigures", "compare_users"]


@dataclass(frozen=True)
class UserFigures:
    """Figures of n users, [n] each: the largest absolute error of a user's scores, what was allowed, and the top 10.

    `overlap` is the share of the top 10 that both rankings have, NaN for ten candidates or fewer; `could_flip` says
    whether the error could change that set. Scores that are no numbers are infinitely far off.
    """

    error: np.ndarray
    allowed: np.ndarray
    overlap: np.ndarray
    could_flip: np.ndarray

    @property
    def within(self) -> np.ndarray:
        """Say whose scores are within what is allowed."""
        return np.asarray(self.error <= self.allowed)


def compare_users(expected: np.ndarray, actual: np.ndarray, precision: Precision, golden_scale: float) -> UserFigures:
    """Compare scores [n, C] of torch and of an artifact; `golden_scale` is the largest score of its golden cases."""
    finite = np.isfinite(actual).all(axis=1)
    numbers = np.where(np.isfinite(actual), actual, 0).astype(expected.dtype)
    if not len(expected):
        nothing = np.zeros(0)
        return UserFigures(nothing, nothing, nothing, np.zeros(0, bool))
    figures = output_error("scores", expected, numbers, True)
    error = np.where(finite, figures.errors, np.inf)
    allowed = np.array(error_limits(precision, figures, golden_scale))
    if expected.shape[1] <= TOP:
        return UserFigures(error, allowed, np.full(len(error), np.nan), np.zeros(len(error), bool))
    exact, numbers = expected.astype(np.float64), numbers.astype(np.float64)
    could_flip = (top_set_gaps(exact, TOP) <= 2 * error) & (error > 0)
    return UserFigures(error, allowed, top_overlap(exact, numbers, TOP), could_flip)
