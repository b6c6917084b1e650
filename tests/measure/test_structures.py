"""What a latency predictor makes of times: costs by hand, moves to another device, and what it never saw."""

from itertools import product

import numpy as np
import pytest

from exporter.core.predictor import Costs
from exporter.measure.searching import MOST_SCORED, best_first
from exporter.measure.structures import fit, sampled, transfer

BLOCK_US = (7.0, 11.0, 5.0, 9.0, 20.0, 3.0)


def by_hand(structure: tuple[int, ...]) -> float:
    return 40.0 + sum(cost for cost, runs in zip(BLOCK_US, structure, strict=True) if runs)


def test_structures_are_drawn_evenly_over_numbers_of_blocks() -> None:
    drawn = sampled(6, 24, seed=0)
    assert len(set(drawn)) == 24
    assert np.bincount([sum(one) for one in drawn]).tolist() == [0, 5, 5, 5, 4, 4, 1]  # of 6 blocks there is one
    rest = sampled(6, 99, seed=1, without=drawn)
    assert sorted([*drawn, *rest]) == sorted(one for one in product((0, 1), repeat=6) if any(one))


def test_costs_of_blocks_are_found_and_hold_for_structures_that_were_not_timed() -> None:
    drawn = sampled(6, 16, seed=0)
    costs, error = fit(drawn, np.array([by_hand(one) for one in drawn]))
    np.testing.assert_allclose([costs.call_us, *costs.block_us], [40.0, *BLOCK_US], rtol=1e-6)
    assert (error.median < 1e-6, error.p90 < 1e-6) == (True, True)
    unseen = sampled(6, 30, seed=1, without=drawn)
    np.testing.assert_allclose([costs.predicted_us(one) for one in unseen], [by_hand(one) for one in unseen])


def test_the_error_is_that_of_times_that_were_left_out() -> None:
    drawn, rng = sampled(6, 40, seed=0), np.random.default_rng(0)
    times = np.array([by_hand(one) for one in drawn]) * np.exp(rng.normal(0, 0.1, 40))
    costs, error = fit(drawn, times)
    on_its_own = np.median([abs(costs.predicted_us(one) / time - 1) for one, time in zip(drawn, times, strict=True)])
    assert 0.04 < on_its_own < error.median < 0.12  # of normal noise of 10 % the median of what is off is 6.7 %
    assert error.median < error.p90 < 0.3


def test_three_times_move_costs_to_a_device_that_is_three_times_as_slow() -> None:
    known, few = Costs(40.0, BLOCK_US), sampled(6, 4, seed=2)
    moved, error = transfer(known, few, np.array([25.0 + 3 * by_hand(one) for one in few]))
    np.testing.assert_allclose([moved.call_us, *moved.block_us], [145.0, *(3 * cost for cost in BLOCK_US)])
    assert error.p90 < 1e-9


@pytest.mark.parametrize(("count", "time"), [(5, 10.0), (8, float("nan")), (8, 0.0)])
def test_no_fit_to_too_few_times_or_to_none(count: int, time: float) -> None:
    drawn = sampled(6, count, seed=0)
    with pytest.raises(ValueError, match=r"structures or more|finite and above 0"):
        fit(drawn, np.array([time, *[10.0] * (count - 1)]))


@pytest.mark.parametrize("blocks", [6, 12])
def test_the_best_structure_within_a_limit_is_found(blocks: int) -> None:
    rng = np.random.default_rng(blocks)
    costs, worth = rng.uniform(5, 15, blocks), rng.uniform(0, 1, blocks)
    limit = costs.sum() / 2
    scored: list[tuple[int, ...]] = []

    def score(structure: tuple[int, ...]) -> float:
        scored.append(structure)
        return float(worth @ structure)

    found = best_first(blocks, lambda one: float(costs @ one) <= limit, score)
    every = [one for one in product((0, 1), repeat=blocks) if any(one) and costs @ one <= limit]
    best = max(float(worth @ one) for one in every)
    assert len(scored) == len(set(scored)) == len(found) <= MOST_SCORED
    assert {one for one, _ in found} <= set(every)
    assert [value for _, value in found] == sorted((value for _, value in found), reverse=True)
    if blocks == 6:
        assert {one for one, _ in found} == set(every)
    assert found[0][1] >= 0.97 * best  # of 4,095 structures no more than 256 were scored
