"""Percentiles by their definition, and comparisons that know when to say nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.sections import Comparison
from exporter.measure import figures
from exporter.measure.latency import compare_pairs, summarize

unhurried = settings(deadline=None)  # two cores are shared with others
TIMES = st.lists(st.floats(0.01, 1e6), min_size=1, max_size=60)


def test_percentiles_by_hand():
    # type 7: the position of the p-th percentile of n sorted samples is (n - 1) p
    result = summarize([float(value) for value in range(101, 0, -1)])
    assert (result.p50, result.p90, result.p99, result.samples) == (51.0, 91.0, 100.0, 101)
    assert summarize([1.0, 2.0]).p90 == pytest.approx(1.9)
    assert summarize([7.0]) == summarize([7.0, 7.0, 7.0]).__class__(7.0, 7.0, 7.0, 1)


@unhurried
@given(TIMES, st.randoms(use_true_random=False))
def test_percentiles_are_ordered_within_the_samples_and_do_not_depend_on_their_order(samples, random):
    result = summarize(samples)
    assert min(samples) <= result.p50 <= result.p90 <= result.p99 <= max(samples)
    shuffled = list(samples)
    random.shuffle(shuffled)
    assert summarize(shuffled) == result


@pytest.mark.parametrize("samples", [[], [1.0, float("nan")], [float("inf")], [-1.0]])
def test_refuses_what_is_not_a_time(samples):
    with pytest.raises(ValueError, match="finite times"):
        summarize(samples)


def noisy(rng, level, number=200, spread=0.05):
    """Times with the long right tail that measured ones have."""
    return level * (1 + spread * rng.gamma(2.0, size=number))


def test_a_real_difference_is_found():
    rng = np.random.default_rng(1)
    for factor, faster in ((1.1, "first"), (0.9, "second")):
        result = compare_pairs(noisy(rng, 100.0), noisy(rng, 100.0 * factor))
        assert result.faster == faster
        assert result.low < result.ratio < result.high
        assert result.low < factor < result.high
        assert result.reason is None
        assert result.pairs == 200


def test_equal_artifacts_get_no_verdict_as_often_as_promised():
    """Of many comparisons of equal things at most some 5 % may find a winner."""
    rng = np.random.default_rng(2)
    wrong = sum(compare_pairs(noisy(rng, 50.0), noisy(rng, 50.0), seed).faster is not None for seed in range(80))
    assert wrong <= 9
    quiet = compare_pairs(noisy(rng, 50.0), noisy(rng, 50.0))
    if quiet.faster is None:
        assert quiet.reason == "the noise is larger than the difference: no verdict"


def test_a_machine_that_slows_down_does_not_fool_a_paired_comparison():
    """Both double half-way through: the ratio stays, and the interval does not grow to hide a difference of 5 %."""
    rng = np.random.default_rng(3)
    drift = np.repeat([1.0, 2.0], 100)
    result = compare_pairs(noisy(rng, 100.0) * drift, noisy(rng, 105.0) * drift)
    assert result.faster == "first"
    assert 1.0 < result.low < 1.05 < result.high < 1.12
    equal = compare_pairs(noisy(rng, 100.0) * drift, noisy(rng, 100.0) * drift)
    assert equal.faster is None


def test_neighbours_that_resemble_each_other_are_not_taken_for_independent():
    """Slow spells of five calls on either side alike: a bootstrap of single pairs finds a winner in 30 % of these."""
    rng = np.random.default_rng(4)

    def spells():
        return 1 + 0.5 * np.repeat(rng.integers(0, 2, 40), 5)

    found = sum(
        compare_pairs(noisy(rng, 100.0) * spells(), noisy(rng, 100.0) * spells(), seed).faster is not None
        for seed in range(80)
    )
    assert found <= 16


def test_swapping_the_sides_inverts_the_ratio():
    rng = np.random.default_rng(5)
    a, b = noisy(rng, 100.0), noisy(rng, 130.0)
    there, back = compare_pairs(a, b), compare_pairs(b, a)
    assert there.ratio == pytest.approx(1 / back.ratio)
    assert there.low == pytest.approx(1 / back.high)
    assert (there.faster, back.faster) == ("first", "second")


def test_the_same_seed_gives_the_same_interval():
    rng = np.random.default_rng(6)
    a, b = noisy(rng, 100.0), noisy(rng, 101.0)
    assert compare_pairs(a, b, seed=3) == compare_pairs(a, b, seed=3)
    assert compare_pairs(a, b, seed=3) != compare_pairs(a, b, seed=4)


@pytest.mark.parametrize(
    ("first", "second"), [([1.0] * 19, [1.0] * 19), ([1.0] * 20, [1.0] * 21), ([0.0] * 20, [1.0] * 20)]
)
def test_refuses_too_little_to_compare(first, second):
    with pytest.raises(ValueError, match="two equally long series of at least 20"):
        compare_pairs(first, second)


def test_several_comparisons_agree_only_where_all_of_their_intervals_do() -> None:
    def of(low: float, high: float) -> Comparison:
        ratio = (low * high) ** 0.5
        return Comparison(first="a", second="b", ratio=ratio, low=low, high=high, pairs=20, faster=None, reason=None)

    apart = figures.together([of(1.1, 1.2), figures.swapped(figures.swapped(of(1.05, 1.1))), of(1.2, 1.3)])
    assert (apart.low, apart.high, apart.faster, apart.pairs) == (pytest.approx(1.05), 1.3, "a", 60)
    assert apart.ratio == pytest.approx((1.1 * 1.2) ** 0.5)
    unsettled = figures.together([of(1.1, 1.2), figures.swapped(of(1.1, 1.2))])
    assert unsettled.faster is None and unsettled.low == pytest.approx(1 / 1.2) and unsettled.high == 1.2
