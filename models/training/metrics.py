"""Ranking metrics of one positive among sampled negatives, averaged over users."""

import numpy as np

CUTOFFS = (5, 10, 20)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return the 0-based rank [U] of the positive in column 0 of scores [U, 1 + n]; ties and NaN count against it."""
    return np.asarray((~(scores[:, 1:] < scores[:, :1])).sum(axis=1))


def uauc(scores: np.ndarray) -> float:
    """Return the mean over users of the share of negatives below the positive in column 0; a tie counts one half."""
    below = (scores[:, 1:] < scores[:, :1]).mean(axis=1)
    tied = (scores[:, 1:] == scores[:, :1]).mean(axis=1)
    return float((below + tied / 2).mean())


def ndcg(rank: np.ndarray, cutoff: int) -> float:
    """Return NDCG@cutoff for 0-based ranks [U] of the only relevant item, 1 / log2(rank + 2) within the cutoff."""
    return float(np.where(rank < cutoff, 1 / np.log2(rank + 2.0), 0.0).mean())


def hit_rate(rank: np.ndarray, cutoff: int) -> float:
    """Return the share of 0-based ranks [U] within the cutoff."""
    return float((rank < cutoff).mean())


def by_rank(rank: np.ndarray) -> dict[str, float]:
    """Return NDCG@K and HitRate@K for K = 5, 10, 20 of 0-based ranks [U]."""
    result = {}
    for cutoff in CUTOFFS:
        result[f"NDCG@{cutoff}"] = ndcg(rank, cutoff)
        result[f"HitRate@{cutoff}"] = hit_rate(rank, cutoff)
    return {name: round(value, 6) for name, value in result.items()}


def summary(scores: np.ndarray) -> dict[str, float]:
    """Return UAUC, NDCG@K and HitRate@K for K = 5, 10, 20 of scores [U, 1 + n] with the positive in column 0."""
    return {"UAUC": round(uauc(scores), 6), **by_rank(ranks(scores))}
