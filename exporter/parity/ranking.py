"""Statistics of many rankings at once: every function takes [rankings, candidates] arrays of finite scores."""

import numpy as np


def top_sets(scores: np.ndarray, top: int) -> np.ndarray:
    """Indices of the `top` highest scores of each row, [rankings, top]; of equal scores the lower index goes first."""
    order: np.ndarray = np.argsort(-scores, axis=1, kind="stable")
    return order[:, :top]


def top_overlap(left: np.ndarray, right: np.ndarray, top: int) -> np.ndarray:
    """The share of the `top` candidates that both rankings of a row have in their top, [rankings], 0 to 1."""
    chosen = np.zeros((2, *left.shape), dtype=bool)
    for mask, scores in zip(chosen, (left, right), strict=True):
        np.put_along_axis(mask, top_sets(scores, top), True, axis=1)
    share: np.ndarray = (chosen[0] & chosen[1]).sum(axis=1) / top
    return share


def top_set_gaps(scores: np.ndarray, top: int) -> np.ndarray:
    """The difference between the score at rank `top` and the next one, [rankings], never negative."""
    falling = -np.sort(-scores, axis=1)
    gaps: np.ndarray = falling[:, top - 1] - falling[:, top]
    return gaps


def kendall_tau_b(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of each pair of rows, [rankings], -1 to 1, in O(candidates log^2 candidates) per row.

    Discordant pairs are counted as the inversions that sorting by one ranking leaves in the other (Knight 1966, JASA
    61:436); ties as Kendall 1945, Biometrika 33:239. Tau-b is 0/0 where a row holds one value only: two such rows agree
    (1), one says nothing about the other (0).
    """
    rankings, candidates = left.shape
    x, y = dense_ranks(left), dense_ranks(right)
    order = np.lexsort((y, x), axis=1)
    x, y = np.take_along_axis(x, order, axis=1), np.take_along_axis(y, order, axis=1)
    pairs = candidates * (candidates - 1) // 2
    tied_x = tied_pairs(x)
    tied_y = tied_pairs(np.sort(y, axis=1))
    tied_both = tied_pairs(x * (candidates + 1) + y)
    agreement = pairs - tied_x - tied_y + tied_both - 2 * inversions(y)
    norm = np.sqrt((pairs - tied_x).astype(np.float64) * (pairs - tied_y))
    constant = (tied_x == pairs).astype(int) + (tied_y == pairs)
    tau = np.where(constant == 2, 1.0, np.zeros(rankings))
    np.divide(agreement, norm, out=tau, where=constant == 0)
    return tau


def dense_ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of each score in its row from 0 up, equal scores sharing one rank, [rankings, candidates] int64."""
    order = np.argsort(scores, axis=1, kind="stable")
    rising = np.take_along_axis(scores, order, axis=1)
    steps = np.zeros(scores.shape, dtype=np.int64)
    steps[:, 1:] = rising[:, 1:] != rising[:, :-1]
    ranks = np.empty_like(steps)
    np.put_along_axis(ranks, order, steps.cumsum(axis=1), axis=1)
    return ranks


def tied_pairs(rising: np.ndarray) -> np.ndarray:
    """The number of pairs of equal values in each row of sorted integers, [rankings]."""
    position = np.arange(rising.shape[1])
    starts = np.ones(rising.shape, dtype=bool)
    starts[:, 1:] = rising[:, 1:] != rising[:, :-1]
    run_start = np.maximum.accumulate(np.where(starts, position, 0), axis=1)
    counts: np.ndarray = (position - run_start).sum(axis=1)
    return counts


def inversions(ranks: np.ndarray) -> np.ndarray:
    """The number of pairs i < j with ranks[i] > ranks[j] in each row of ranks below its length, [rankings].

    A bottom-up merge sort over all rows at once: each pass counts, by one binary search, how many values of a left
    block exceed each value of the right block beside it.
    """
    rankings, length = ranks.shape
    size = 1 << max(length - 1, 0).bit_length()
    blocks = np.full((rankings, size), length, dtype=np.int64)  # padding at the end exceeds all: no inversions
    blocks[:, :length] = ranks
    counts = np.zeros(rankings, dtype=np.int64)
    width = 1
    while width < size:
        pairs = blocks.reshape(-1, 2, width)
        # Values of different blocks never mix: each block's values are lifted above those of the blocks before it.
        lift = np.arange(len(pairs))[:, None] * (length + 1)
        left, right = (pairs[:, 0] + lift).ravel(), (pairs[:, 1] + lift).ravel()
        not_above = (
            np.searchsorted(left, right, side="right").reshape(-1, width) - np.arange(len(pairs))[:, None] * width
        )
        counts += (width - not_above).reshape(rankings, -1).sum(axis=1)
        blocks = np.sort(blocks.reshape(-1, 2 * width), axis=1).reshape(rankings, size)
        width *= 2
    return counts
