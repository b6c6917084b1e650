"""Statistics of measured times: percentiles of one run, and which of two artifacts is faster, if that can be said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 2000


@dataclass(frozen=True)
class Percentiles:
    """Percentiles in microseconds, interpolated linearly between the sorted samples (Hyndman and Fan 1996, type 7)."""

    p50: float
    p90: float
    p99: float
    samples: int


@dataclass(frozen=True)
class Comparison:
    """The ratio of the second's time to the first's, with its 95 % interval, and what follows from it.

    `faster` names the artifact that takes less time, or is None where the interval holds 1: then the noise is larger
    than the difference, and `reason` says so.
    """

    ratio: float
    low: float
    high: float
    faster: Literal["first", "second"] | None
    pairs: int
    reason: str | None = None


def summarize(samples_us: Sequence[float]) -> Percentiles:
    """Return the percentiles of at least one sample; raises ValueError for none, or for one that is not a time."""
    p50, p90, p99 = np.percentile(times(samples_us), (50, 90, 99), method="linear")
    return Percentiles(float(p50), float(p90), float(p99), len(samples_us))


def compare_pairs(first_us: Sequence[float], second_us: Sequence[float], seed: int = 0) -> Comparison:
    """Compare samples that were taken in turn, first, second, first, second.

    The ratio is the median over the pairs, because what slows one call slows its neighbour: the ratio of the medians of
    a machine that changed its speed half-way is mostly noise. Its interval is that of a circular block bootstrap of the
    pairs (Politis and Romano 1992) with blocks of n^(1/3), so that neighbours that resemble each other are not taken
    for independent; the same seed gives the same interval. Raises ValueError for fewer than 20 pairs.
    """
    first, second = times(first_us), times(second_us)
    if len(first) != len(second) or len(first) < 20 or not (first.all() and second.all()):
        raise ValueError("a comparison needs two equally long series of at least 20 times above 0")
    logs = np.log(second / first)  # so that swapping the two inverts the ratio and its interval
    number = len(logs)
    block = max(1, round(number ** (1 / 3)))
    starts = np.random.default_rng(seed).integers(0, number, (RESAMPLES, -(-number // block)))
    chosen = ((starts[:, :, None] + np.arange(block)) % number).reshape(RESAMPLES, -1)[:, :number]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.exp(np.quantile(np.median(logs[chosen], axis=1), (tail, 1 - tail)))
    faster: Literal["first", "second"] | None = None
    if high < 1:
        faster = "second"
    elif low > 1:
        faster = "first"
    return Comparison(
        ratio=float(np.exp(np.median(logs))),
        low=float(low),
        high=float(high),
        faster=faster,
        pairs=number,
        reason=None if faster else "the noise is larger than the difference: no verdict",
    )


def times(samples_us: Sequence[float]) -> np.ndarray:
    """The samples as an array; raises ValueError unless there are some and all are finite and not negative."""
    values = np.asarray(samples_us, dtype=np.float64)
    if values.size == 0 or not (np.isfinite(values) & (values >= 0)).all():
        raise ValueError("samples must be finite times, not negative, and at least one")
    return values
