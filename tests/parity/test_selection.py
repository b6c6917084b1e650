"""Lists of the best items are judged by the scores of all items that stand behind them."""

import numpy as np
import pytest

from exporter.core.types import EQUAL_ELEMENTS, RunResult
from exporter.parity import section

ITEMS, CASES, K = 300, 20, 25
ALLOWED = 1e-4
Lists = dict[str, np.ndarray]


def best(scores: np.ndarray, count: int = K) -> Lists:
    """Return the lists [cases, 1, K] of all items' scores [cases, items]."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :count]
    found = np.take_along_axis(scores, order, 1).astype(np.float32)
    return {"ids": (order + 1).astype(np.int32)[:, None], "scores": found[:, None]}


def judged(expected: Lists, actual: Lists, unsettled: tuple[str, ...] = ()):
    result = RunResult(actual, "here", None, None, (), None, None, None, unsettled=unsettled)
    return section.judged(result, expected, "scores", "fp32", "ids")


def drawn(seed: int, spread: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, spread, (CASES, ITEMS)).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_what_rounds_otherwise_passes_with_other_ids_at_near_ties(seed: int) -> None:
    """Items so near to each other that an error within the tolerance moves many of them, and the last ones out."""
    scores = drawn(seed, 4e-3)
    scores[:, :10] += 1  # the top 10 themselves are far apart
    scores[:, :10] += np.arange(10) / 10
    noise = np.random.default_rng(seed + 100).uniform(-0.9 * ALLOWED, 0.9 * ALLOWED, scores.shape).astype(np.float32)
    expected, actual = best(scores), best(scores + noise)
    gone = [set(a) - set(b) for a, b in zip(expected["ids"][:, 0].tolist(), actual["ids"][:, 0].tolist(), strict=True)]
    assert any(gone)
    parity = judged(expected, actual)
    assert (parity.verdict, parity.top10_overlap) == ("pass", 1.0), parity.reason
    assert 0 < parity.max_abs_error <= ALLOWED
    assert parity.output_errors.keys() == {"scores"}
    assert 0.9 < parity.kendall_tau < 1


def changed(which: str) -> Lists:
    """Return lists with one fault, in case 3."""
    lists = {name: array.copy() for name, array in best(drawn(0)).items()}
    ids, scores = lists["ids"][3, 0], lists["scores"][3, 0]
    match which:
        case "swapped":  # two ids that stand far apart
            ids[[14, 20]] = ids[[20, 14]]
        case "another item":
            ids[15] = next(row for row in range(1, ITEMS) if row not in ids)
        case "an item left out":
            ids[15:-1], scores[15:-1] = ids[16:].copy(), scores[16:].copy()
            ids[-1] = next(row for row in range(1, ITEMS) if row not in ids)
        case "off by one":
            ids += 1
        case "scores":
            scores[12] = (scores[12] + scores[13]) / 2
        case "padding":
            ids[7] = 0
        case "twice":
            ids[7] = ids[8]
        case "order":
            scores[:] = scores[::-1].copy()
    return lists


@pytest.mark.parametrize(
    ("which", "words"),
    [
        *((one, "output 'scores' is off by") for one in ("swapped", "another item", "an item left out", "scores")),
        ("off by one", "the top 10 agree to"),
        ("padding", "actual output 'ids': case 3 holds the row 0, which is no item"),
        ("twice", "case 3 holds an item twice"),
        ("order", "the scores of case 3 are not in falling order"),
    ],
)
def test_what_is_wrong_fails(which: str, words: str) -> None:
    parity = judged(best(drawn(0)), changed(which))
    assert parity.verdict == "fail"
    assert words in parity.reason


def test_short_lists() -> None:
    for count in (1, 10):
        parity = judged(best(drawn(0), count), best(drawn(0), count))
        assert (parity.verdict, parity.top10_overlap, parity.could_flip) == ("pass", 1.0, None)
    expected, actual = best(drawn(0), 1), best(drawn(0), 1)
    actual["ids"][3] = ITEMS if actual["ids"][3] != ITEMS else 1
    assert judged(expected, actual).verdict == "fail"


def test_equal_scores_are_settled_where_their_order_changes_nothing() -> None:
    scores = np.floor(drawn(1) * 8) / 8
    scores[:, 0], scores[:, 1:10] = 50, np.arange(20, 29)
    line = f"operation 'best' (topk): {EQUAL_ELEMENTS}"
    parity = judged(best(scores), best(scores), (line,))
    assert (parity.verdict, parity.unsettled) == ("pass", ())
    other = "operation 'x' (mod): an operand is negative"
    assert judged(best(scores), best(scores), (line, other)).unsettled == (other,)
    scores[3, 10] = scores[3, 1] = 20  # the 10th and the 11th
    parity = judged(best(scores), best(scores), (line,))
    assert (parity.verdict, parity.unsettled) == ("unverified", (line,))
