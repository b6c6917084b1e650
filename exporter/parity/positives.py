"""How two scores of the same candidates rank the one that was clicked next."""

import numpy as np

from exporter.core.sections import Positives
from exporter.parity.compare import TOP

_METHOD = "mean of paired differences over the mean in fp32, plus and minus 1.96 standard errors"


def positives(fp32: np.ndarray, stored: np.ndarray, positive: np.ndarray) -> Positives:
    """Compare NDCG@10 and Hit@10 of scores [cases, C] in fp32 and with stored tables; `positive` [cases] is a column.

    NDCG of one relevant item at the 0-based rank r is 1 / log2(r + 2) (Jarvelin and Kekalainen 2002); ties count
    against it.
    """
    before, hit_before = _gains(rank_of(fp32, positive))
    after, hit_after = _gains(rank_of(stored, positive))
    difference, mean = after - before, float(before.mean())
    change, error = None, None
    if mean > 0 and len(difference) > 1:
        change = float(difference.mean()) / mean
        error = 1.96 * float(difference.std(ddof=1)) / len(difference) ** 0.5 / mean
    return Positives(
        cases=len(fp32),
        ndcg10_fp32=mean,
        ndcg10=float(after.mean()),
        hit10_fp32=hit_before,
        hit10=hit_after,
        ndcg10_change=change,
        low=None if change is None or error is None else change - error,
        high=None if change is None or error is None else change + error,
        method=_METHOD,
    )


def rank_of(scores: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Return the 0-based rank of the candidate `positive` [cases] among scores [cases, C]; ties and NaN count against
    it.
    """
    own = np.take_along_axis(scores, positive[:, None], axis=1)
    rank: np.ndarray = (~(scores < own)).sum(axis=1) - 1  # the positive itself is not below itself
    return rank


def gain_of_rank(rank: np.ndarray) -> np.ndarray:
    """Return NDCG@10 of cases whose positive is at these 0-based ranks."""
    return np.where(rank < TOP, 1 / np.log2(rank + 2.0), 0.0)


def _gains(rank: np.ndarray) -> tuple[np.ndarray, float]:
    """Return NDCG@10 of each case, and the share of cases whose positive is in the top 10."""
    return gain_of_rank(rank), float((rank < TOP).mean())
