"""What stored tables do to the candidates that were clicked next, by hand."""

import math

import numpy as np
import pytest

from exporter.parity.positives import positives


def test_two_cases_by_hand() -> None:
    fp32 = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0]])
    stored = np.array([[2.0, 3.0, 1.0], [1.0, 3.0, 3.0]])  # the first falls to rank 1, the second ties with its rival
    figures = positives(fp32, stored, np.array([0, 2]))
    second = 1 / math.log2(3)
    assert (figures.cases, figures.ndcg10_fp32, figures.hit10_fp32, figures.hit10) == (2, 1.0, 1.0, 1.0)
    assert figures.ndcg10 == pytest.approx(second)
    assert (figures.ndcg10_change, figures.low, figures.high) == pytest.approx((second - 1,) * 3)


def test_a_positive_beyond_the_tenth_counts_nothing_and_no_change_is_told_of_nothing() -> None:
    scores = np.arange(12.0)[None]
    figures = positives(scores, scores, np.array([1]))
    assert (figures.ndcg10_fp32, figures.ndcg10, figures.hit10) == (0.0, 0.0, 0.0)
    assert (figures.ndcg10_change, figures.low, figures.high) == (None, None, None)
    assert positives(scores, scores, np.array([2])).hit10 == 1.0


def test_the_interval_is_that_of_paired_differences() -> None:
    rng = np.random.default_rng(0)
    fp32 = rng.standard_normal((400, 20))
    stored = fp32 + 0.3 * rng.standard_normal(fp32.shape)
    figures = positives(fp32, stored, np.zeros(400, int))
    gains = [
        [1 / math.log2(rank + 2) if (rank := int((row > row[0]).sum())) < 10 else 0.0 for row in scores]
        for scores in (fp32, stored)
    ]
    difference = np.subtract(gains[1], gains[0])
    error = 1.96 * difference.std(ddof=1) / 20 / np.mean(gains[0])
    change = difference.mean() / np.mean(gains[0])
    assert (figures.ndcg10_change, figures.low, figures.high) == pytest.approx((change, change - error, change + error))
