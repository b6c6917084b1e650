"""Ranking statistics against scipy and against the definitions written out."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exporter.parity.ranking import dense_ranks, inversions, kendall_tau_b, top_overlap, top_set_gaps, top_sets

unhurried = settings(deadline=None)  # two cores are shared with others
FEW_VALUES = st.integers(-3, 3).map(float)  # many ties
ANY_VALUES = st.floats(-1e6, 1e6, width=32)


@st.composite
def two_rankings(draw, values=None):
    shape = draw(st.integers(1, 4)), draw(st.integers(2, 20))
    values = values or draw(st.sampled_from([FEW_VALUES, ANY_VALUES]))
    return draw(arrays(np.float64, shape, elements=values)), draw(arrays(np.float64, shape, elements=values))


@unhurried
@given(two_rankings())
def test_kendall_agrees_with_scipy(pair):
    stats = pytest.importorskip("scipy.stats")
    for left, right, ours in zip(*pair, kendall_tau_b(*pair), strict=True):
        theirs = stats.kendalltau(left, right, variant="b").statistic
        constant = np.ptp(left) == 0, np.ptp(right) == 0
        if any(constant):
            assert np.isnan(theirs)
            assert ours == float(all(constant))
        else:
            assert ours == pytest.approx(theirs, abs=1e-12)


def test_kendall_agrees_with_scipy_on_large_rankings_and_is_quick():
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    left = rng.normal(size=(8, 5000)).round(2)
    right = (left + rng.normal(size=left.shape)).round(2)
    start = time.perf_counter()
    ours = kendall_tau_b(left, right)
    assert time.perf_counter() - start < 2
    theirs = [stats.kendalltau(a, b).statistic for a, b in zip(left, right, strict=True)]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


@unhurried
@given(two_rankings())
def test_kendall_is_symmetric_and_changes_sign_when_one_is_reversed(pair):
    left, right = pair
    tau = kendall_tau_b(left, right)
    np.testing.assert_array_equal(tau, kendall_tau_b(right, left))
    varied = (np.ptp(left, axis=1) > 0) & (np.ptp(right, axis=1) > 0)
    np.testing.assert_array_equal(kendall_tau_b(left, -right)[varied], -tau[varied])
    assert (np.abs(tau) <= 1).all()


@unhurried
@given(two_rankings())
def test_kendall_of_a_ranking_with_itself_is_one(pair):
    np.testing.assert_array_equal(kendall_tau_b(pair[0], pair[0]), 1.0)


@unhurried
@given(arrays(np.int64, st.tuples(st.integers(1, 4), st.integers(1, 33)), elements=st.integers(0, 5)))
def test_inversions_are_the_pairs_in_the_wrong_order(values):
    ranks = dense_ranks(values.astype(float))
    upper = np.triu(np.ones((values.shape[1],) * 2, dtype=bool), 1)
    wanted = ((values[:, :, None] > values[:, None, :]) & upper).sum(axis=(1, 2))
    np.testing.assert_array_equal(inversions(ranks), wanted)


def test_dense_ranks():
    np.testing.assert_array_equal(dense_ranks(np.array([[3.0, -1.0, 3.0, 0.5]])), [[2, 0, 2, 1]])


def test_equal_scores_keep_the_order_of_their_index():
    scores = np.array([[1.0, 2.0, 2.0, 1.0, 2.0]])
    np.testing.assert_array_equal(top_sets(scores, 4), [[1, 2, 4, 0]])


@unhurried
@given(two_rankings(), st.integers(1, 5))
def test_top_overlap_is_the_share_of_common_candidates(pair, top):
    left, right = pair
    top = min(top, left.shape[1])
    wanted = []
    for a, b in zip(left, right, strict=True):
        sets = [set(sorted(range(len(s)), key=lambda i, s=s: (-s[i], i))[:top]) for s in (a, b)]
        wanted.append(len(sets[0] & sets[1]) / top)
    np.testing.assert_array_equal(top_overlap(left, right, top), wanted)
    np.testing.assert_array_equal(top_overlap(right, left, top), wanted)


def test_the_gap_is_between_the_last_in_and_the_first_out():
    scores = np.array([[5.0, 1.0, 3.5, 4.0], [2.0, 2.0, 2.0, 0.0]])
    np.testing.assert_array_equal(top_set_gaps(scores, 2), [0.5, 0.0])
