"""The paired bootstrap beside another one and beside the truth."""

import numpy as np
import pytest
from scipy import stats

from exporter.parity.paired import compare_pairs, count_pairs


def ranks(users, seed):
    """Draw 0-based ranks of torch, and of an artifact that moves some of them, mostly down."""
    rng = np.random.default_rng(seed)
    torch = rng.integers(0, 60, users)
    return torch, np.clip(torch + rng.choice([-2, -1, 0, 0, 0, 1, 2, 2], users), 0, None)


def ndcg(rank):
    return np.array([1 / np.log2(place + 2) if place < 10 else 0.0 for place in rank])


def hit(rank):
    return (rank < 10).astype(float)


def relative(torch, artifact, axis):
    return (artifact - torch).sum(axis) / torch.sum(axis)


def test_it_is_the_bootstrap_over_users_of_scipy():
    torch, artifact = ranks(3_000, 1)
    parts = [count_pairs(torch[part], artifact[part]) for part in (slice(0, 700), slice(700, None))]
    for figures, gains in zip(compare_pairs(sum(parts), (0,)), (ndcg, hit), strict=True):
        before, after = gains(torch), gains(artifact)
        assert (figures.torch, figures.artifact) == pytest.approx((before.mean(), after.mean()))
        assert figures.change == pytest.approx(relative(before, after, 0))
        judge = stats.bootstrap(
            (before, after), relative, paired=True, n_resamples=4_000, method="percentile", rng=2
        ).confidence_interval
        assert [figures.low, figures.high] == pytest.approx(list(judge), abs=0.12 * (judge.high - judge.low))
    assert compare_pairs(sum(parts), (0,)) == compare_pairs(count_pairs(torch, artifact), (0,))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    torch, artifact = ranks(200_000, 3)
    truth = relative(ndcg(torch), ndcg(artifact), 0)
    rng, covered = np.random.default_rng(4), 0
    for trial in range(120):
        some = rng.integers(0, len(torch), 600)
        figures, _ = compare_pairs(count_pairs(torch[some], artifact[some]), (trial,))
        covered += figures.low <= truth <= figures.high
    assert 0.90 <= covered / 120 <= 0.99


def test_what_is_no_number_is_none():
    nothing_found = np.array([50, 60])
    figures, _ = compare_pairs(count_pairs(nothing_found, nothing_found), (0,))
    assert (figures.change, figures.low, figures.high) == (0.0, 0.0, 0.0)
    figures, _ = compare_pairs(count_pairs(nothing_found, np.array([50, 3])), (0,))
    assert (figures.torch, figures.change, figures.high) == (0.0, None, None)
    alone, _ = compare_pairs(count_pairs(np.array([2]), np.array([3])), (0,))
    assert alone.change < 0 and alone.low is alone.high is None
