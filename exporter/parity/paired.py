"""How an artifact ranks beside torch what many users clicked next: figures from counts of pairs of ranks.

NDCG@10 and Hit@10 of a user depend on nothing but a rank up to TOP, so that all users are a table of (TOP + 1)^2
counts, however many they are, and a resample of them is one multinomial draw over it.
"""

from dataclasses import dataclass

import numpy as np

from exporter.parity.compare import TOP
from exporter.parity.positives import gain_of_rank

RESAMPLES = 2_000
_LEVEL = 0.95
METHOD = (
    f"paired bootstrap over users, {RESAMPLES:,} resamples, percentiles {50 - 50 * _LEVEL:g} and {50 + 50 * _LEVEL:g}"
    " of the sum of differences over the sum of torch in fp32"
)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """A mean over users of torch and of the artifact, and the change between them over that of torch.

    `low` and `high` are the 95 % interval of `change`. None stands for what is no number: a change, or a bound of it,
    where torch ranks nothing among the first TOP, and the bounds of one user alone.
    """

    torch: float
    artifact: float
    change: float | None
    low: float | None
    high: float | None


def count_pairs(torch: np.ndarray, artifact: np.ndarray) -> np.ndarray:
    """Count users by their 0-based ranks [n] of torch and of an artifact: [TOP + 1, TOP + 1], the last for others."""
    pairs = np.minimum(torch, TOP) * (TOP + 1) + np.minimum(artifact, TOP)
    return np.bincount(pairs, minlength=(TOP + 1) ** 2).reshape(TOP + 1, TOP + 1)


def compare_pairs(counts: np.ndarray, seed: tuple[int, ...]) -> tuple[Paired, Paired]:
    """Return NDCG@10 and Hit@10 of users counted by `count_pairs`, one at least, with intervals by METHOD."""
    there = np.flatnonzero(counts)
    weights = counts.ravel()[there]
    users = int(weights.sum())
    drawn = np.random.default_rng(seed).multinomial(users, weights / users, RESAMPLES)
    ranks = np.arange(TOP + 1)
    ndcg, hit = (
        _paired(gains[there // (TOP + 1)], gains[there % (TOP + 1)], weights, drawn)
        for gains in (gain_of_rank(ranks), (ranks < TOP).astype(np.float64))
    )
    return ndcg, hit


def _paired(torch: np.ndarray, artifact: np.ndarray, weights: np.ndarray, drawn: np.ndarray) -> Paired:
    """Compare gains [k] of pairs that `weights` [k] users have, and `drawn` [resamples, k] of them in each resample."""
    users = weights.sum()
    difference = artifact - torch
    change = _ratio(np.atleast_1d(weights @ difference), np.atleast_1d(weights @ torch))[0]
    changes = _ratio(drawn @ difference, drawn @ torch)
    # Order statistics, since between a number and what is infinite nothing can be interpolated.
    bounds = np.quantile(changes, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], method="inverted_cdf")
    low, high = (_number(bound) if users > 1 else None for bound in bounds)
    return Paired(
        torch=float(weights @ torch / users),
        artifact=float(weights @ artifact / users),
        change=_number(change),
        low=low,
        high=high,
    )


def _ratio(difference: np.ndarray, base: np.ndarray) -> np.ndarray:
    """Return changes relative to `base`: where that is 0, no change is 0 and any other is infinite."""
    beyond = np.where(difference == 0, 0.0, np.inf)
    return np.where(base > 0, difference / np.where(base > 0, base, 1), beyond)


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
