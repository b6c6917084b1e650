"""How long sub-networks take: which to time, and costs of their blocks that are fitted to the times.

Code name -> meaning: structures s, 0 or 1 for each of L blocks and not all 0; times t in microseconds. A call takes
    t(s) = call + sum_l s_l (block + own_l)
where `own_l` is how far block l is from an average one. The fit minimises squared relative errors and lambda times the
squares of `own` over the median time; lambda is the one that predicts left-out times best. To move a fit to another
device, t'(s) = offset + scale t(s) is fitted there. Latency by parts: LitePred (Feng et al., NSDI 2024) learns it of
kernels. A network without any block is left out: what is folded into tables before the first one is not in it.
"""

from collections.abc import Callable, Collection, Sequence
from itertools import cycle
from math import comb

import numpy as np

from exporter.core.predictor import Costs, PredictionError

LEAST_SAMPLES, LEAST_TO_TRANSFER = 6, 3
_PENALTIES = (1e-9, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
_LEFT_OUT = "each structure left out in turn, with all else fitted without it"
FITTED = "a time of the call and of each block, by ridge regression on relative errors"
TRANSFERRED = "offset and scale of another predictor, by least squares on relative errors"

Structures = Sequence[tuple[int, ...]]
_Solve = Callable[[np.ndarray, np.ndarray], np.ndarray]


def sampled(blocks: int, count: int, seed: int, without: Collection[tuple[int, ...]] = ()) -> list[tuple[int, ...]]:
    """Draw `count` different structures, one of each number of blocks from 1 in turn, none of `without`.

    All of them where there are fewer.
    """
    rng = np.random.default_rng([seed, blocks])
    drawn: dict[tuple[int, ...], None] = {}
    taken = [sum(structure) for structure in without]
    left = {running: comb(blocks, running) - taken.count(running) for running in range(1, blocks + 1)}
    for running in cycle(range(1, blocks + 1)):
        if len(drawn) == count or not any(left.values()):
            return list(drawn)
        while left[running]:
            chosen = set(rng.permutation(blocks)[:running].tolist())
            structure = tuple(int(block in chosen) for block in range(blocks))
            if structure not in drawn and structure not in without:
                drawn[structure] = None
                left[running] -= 1
                break
    raise AssertionError("a cycle has no end")


def fit(structures: Structures, times_us: np.ndarray) -> tuple[Costs, PredictionError]:
    """Fit the costs of blocks to the times [S] of structures; raises ValueError for fewer than 6."""
    _check(structures, times_us, LEAST_SAMPLES)
    columns = np.array([[1, sum(s), *s] for s in structures], np.float64)
    call, block, *own = map(float, _best(columns, times_us))
    costs = Costs(call, tuple(block + one for one in own))
    return costs, _error(columns, times_us, _best)


def transfer(known: Costs, structures: Structures, times_us: np.ndarray) -> tuple[Costs, PredictionError]:
    """Move costs to another device by the times [S] of structures there; raises ValueError for fewer than 3."""
    _check(structures, times_us, LEAST_TO_TRANSFER)
    columns = np.array([[1, known.predicted_us(s)] for s in structures])
    offset, scale = map(float, _least_squares(columns, times_us))
    costs = Costs(offset + scale * known.call_us, tuple(scale * one for one in known.block_us))
    return costs, _error(columns, times_us, _least_squares)


def relative_error(predicted: np.ndarray, measured: np.ndarray, method: str) -> PredictionError:
    """Return the median and the 90th percentile of relative errors of predictions [S]."""
    median, p90 = np.percentile(np.abs(predicted - measured) / measured, (50, 90))
    return PredictionError(float(median), float(p90), method)


def _check(structures: Structures, times_us: np.ndarray, least: int) -> None:
    if len(structures) < least or len(set(structures)) < len(structures):
        raise ValueError(f"{least} different structures or more are needed, not {len(set(structures))}")
    if not (np.isfinite(times_us) & (times_us > 0)).all():
        raise ValueError("times must be finite and above 0")


def _least_squares(columns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the coefficients with the smallest squared relative errors."""
    solution: np.ndarray = np.linalg.lstsq(columns / times[:, None], np.ones(len(times)), rcond=None)[0]
    return solution


def _ridge(columns: np.ndarray, times: np.ndarray, penalty: float) -> np.ndarray:
    """Return the coefficients of `fit` for one penalty."""
    level = float(np.median(times))
    held = np.diag([0.0, 0.0, *[(penalty * len(times)) ** 0.5] * (columns.shape[1] - 2)])
    rows = np.concatenate([columns * (level / times)[:, None], held])
    aims = np.concatenate([np.ones(len(times)), np.zeros(len(held))])
    solution: np.ndarray = np.linalg.lstsq(rows, aims, rcond=None)[0]
    return solution * level


def _best(columns: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Return the coefficients for the penalty that predicts left-out times best."""

    def off(penalty: float) -> float:
        left_out = _left_out(columns, times, lambda some, of_some: _ridge(some, of_some, penalty))
        return float(np.mean((left_out / times - 1) ** 2))

    return _ridge(columns, times, min(_PENALTIES, key=off))


def _left_out(columns: np.ndarray, times: np.ndarray, solve: _Solve) -> np.ndarray:
    """Return what a fit to all others predicts for each row."""
    rows = np.arange(len(times))
    return np.array([columns[row] @ solve(columns[rows != row], times[rows != row]) for row in rows])


def _error(columns: np.ndarray, times: np.ndarray, solve: _Solve) -> PredictionError:
    return relative_error(_left_out(columns, times, solve), times, _LEFT_OUT)
