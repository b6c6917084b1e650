"""What a scheme is allowed to change, and what cannot be compared."""

import numpy as np
import pytest

from exporter.core.sections import Scheme, SchemeCost
from exporter.core.types import StoredTable
from exporter.parity.section import scheme_cost

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((40, 30)).astype(np.float32)


def judged(
    stored: np.ndarray, r: float, fp32: np.ndarray = SCORES, ranking: str | None = "s", untrained: bool = False
) -> SchemeCost:
    scheme = Scheme("int8", "fp32", (StoredTable(100, 8, 2, 3200, 1200, r),))
    return scheme_cost(({"s": fp32}, {"s": stored}), ranking, None, scheme, untrained)


def moved(by: float) -> np.ndarray:
    """Return scores that are off by so much of their spread."""
    error = RNG.standard_normal(SCORES.shape)
    spread = (SCORES - SCORES.mean(-1, keepdims=True)).std()
    return (SCORES + error * (by * spread / np.sqrt((error**2).mean()))).astype(np.float32)


@pytest.mark.parametrize(("r", "by", "verdict"), [(0.003, 0.99, "pass"), (0.003, 1.01, "fail")])
def test_scores_may_move_by_each_lookups_share(r: float, by: float, verdict: str) -> None:
    allowed = 2**0.5 * r
    cost = judged(moved(by * allowed), r)
    assert (cost.verdict, cost.allowed) == (verdict, pytest.approx(allowed))
    assert cost.error_to_spread == {"s": pytest.approx(by * allowed, rel=1e-3)}


def test_the_top_ten_is_judged_beside_it() -> None:
    # All are near to each other, and two of them change places.
    close = np.tile(np.arange(30, dtype=np.float32), (40, 1))
    changed = close.copy()
    changed[:20, [19, 20]] = close[:20, [20, 19]]
    cost = judged(changed, 0.2, close)
    assert (cost.verdict, cost.top10_overlap, cost.top10_asked) == ("fail", pytest.approx(0.95), 0.99)
    assert "the top 10 agree to 0.9500, at least 0.99 is asked for" in cost.reason


def test_a_table_that_is_lost_allows_no_more_than_half_of_the_spread() -> None:
    few = SCORES[:, :8]  # the top 10 of eight says nothing
    cost = judged(-few, 1.0, few)
    assert (cost.verdict, cost.allowed, cost.top10_overlap) == ("fail", 0.5, None)


def test_what_fp32_rounds_is_no_change_of_a_scheme() -> None:
    stored = np.nextafter(SCORES, np.float32(9))
    assert judged(stored, 0.0).verdict == "pass"
    assert judged(moved(1e-4), 0.0).verdict == "fail"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_golden_outputs_that_cannot_be_compared_fail(value: float) -> None:
    fp32 = SCORES.copy()
    fp32[3, 4] = value
    cost = judged(SCORES, 0.01, fp32)
    assert cost.verdict == "fail"
    assert "'s' holds 1 NaN or infinite values, the first in case 3" in cost.reason


def test_what_is_not_judged_says_why() -> None:
    for cost, words in (
        (judged(SCORES, 0.01, untrained=True), "the weights are drawn"),
        (judged(SCORES, 0.01, ranking=None), "no output of this program is a ranking"),
        (judged(SCORES[:, :1], 0.01, SCORES[:, :1]), "one candidate leaves nothing to rank"),
    ):
        assert (cost.verdict, cost.reason) == ("unverified", f"not judged, {words}")
