"""The comparison: what is equal passes, what is not is found and named."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exporter.parity.compare import REL_FLOOR, compare
from exporter.parity.verdict import (
    FP16_UNIT_ROUNDOFF,
    FP32_MAX_ABS_ERROR,
    FP32_UNIT_ROUNDOFF,
    golden_scores_off,
    judge,
)

unhurried = settings(deadline=None)  # two cores are shared with others
SCORES = st.tuples(st.integers(1, 5), st.just(1), st.integers(11, 30)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.floats(-8, 8, width=32), unique=True)
)


def scores(cases=4, candidates=20, seed=0):
    return np.random.default_rng(seed).normal(size=(cases, 1, candidates)).astype(np.float32)


@unhurried
@given(SCORES)
def test_identical_arrays_pass_without_error(values):
    report = compare({"scores": values}, {"scores": values.copy()}, "scores")
    assert (report.max_abs_error, report.max_rel_error, report.cases) == (0.0, 0.0, len(values))
    ranking = report.ranking
    assert (ranking.kendall_tau, ranking.kendall_tau_min) == (1.0, 1.0)
    assert (ranking.top10_overlap, ranking.top10_overlap_min, ranking.top10_changed) == (1.0, 1.0, 0)
    assert (ranking.twice_max_error, ranking.could_flip) == (0.0, 0)
    for precision in ("fp32", "fp16"):
        assert judge(report, precision).verdict == "pass"


@unhurried
@given(SCORES, st.randoms(use_true_random=False))
def test_permuted_columns_fail(values, random):
    order = list(range(values.shape[-1]))
    random.shuffle(order)
    permuted = values[..., order]
    assume(np.abs(permuted - values).max() > 1e-3)
    report = compare({"scores": values}, {"scores": permuted}, "scores")
    assert judge(report, "fp32").verdict == "fail"
    assert report.ranking.kendall_tau < 1


@unhurried
@given(SCORES, st.floats(-1, 1, width=32))
def test_errors_overlap_and_tau_are_symmetric(values, shift):
    other = np.roll(values, 1, axis=-1) + np.float32(shift)
    there = compare({"s": values}, {"s": other}, "s")
    back = compare({"s": other}, {"s": values}, "s")
    assert there.max_abs_error == back.max_abs_error
    assert there.ranking.kendall_tau == back.ranking.kendall_tau
    assert there.ranking.top10_overlap == back.ranking.top10_overlap


def test_relative_error_has_a_floor_at_a_hundredth_of_the_scale():
    expected = np.array([[100.0, 0.0, 0.5, 10.0]], dtype=np.float32)
    actual = expected + np.float32(0.25)
    report = compare({"x": expected}, {"x": actual}, None)
    assert REL_FLOOR == 0.01
    assert report.max_rel_error == 0.25  # against the floor of 1, not against 0 or 0.5
    assert report.max_abs_error == 0.25
    assert report.outputs[0].scale == 100.0


def test_all_zero_outputs_have_a_finite_relative_error():
    zeros = np.zeros((2, 3), np.float32)
    assert compare({"x": zeros}, {"x": zeros}, None).max_rel_error == 0.0
    assert compare({"x": zeros}, {"x": zeros + np.float32(0.5)}, None).max_rel_error == 0.5


def test_one_bad_case_of_many_shows():
    expected = scores(cases=256)
    actual = expected.copy()
    actual[200, 0, :] = actual[200, 0, ::-1]
    report = compare({"scores": expected}, {"scores": actual}, "scores")
    assert report.ranking.top10_changed == 1
    assert report.ranking.top10_overlap_min < 1
    assert report.ranking.top10_overlap == pytest.approx(1 - (1 - report.ranking.top10_overlap_min) / 256)
    assert judge(report, "fp32").verdict == "fail"


def test_flip_margin_counts_each_case_by_its_own_error():
    # gap between rank 10 and 11 is 1 everywhere; case 0 is off by 0.4, case 1 by 0.5, case 2 by nothing
    expected = np.tile(np.arange(20, dtype=np.float32), (3, 1))
    actual = expected.copy()
    actual[0, 0] += 0.4
    actual[1, 0] += 0.5
    report = compare({"s": expected}, {"s": actual}, "s")
    assert report.ranking.flip_margin == 1.0
    assert report.ranking.twice_max_error == 1.0
    assert report.ranking.could_flip == 1


def test_tied_scores_with_no_error_cannot_flip():
    tied = np.zeros((2, 20), np.float32)
    report = compare({"s": tied}, {"s": tied}, "s")
    assert (report.ranking.flip_margin, report.ranking.could_flip, report.ranking.top10_overlap) == (0.0, 0, 1.0)


def test_ten_candidates_tell_nothing_about_a_top_ten():
    report = compare({"s": scores(candidates=10)}, {"s": scores(candidates=10, seed=1)}, "s")
    ranking = report.ranking
    assert ranking.top10_overlap is ranking.top10_overlap_min is ranking.top10_changed is None
    assert ranking.flip_margin is ranking.could_flip is None
    assert "10 candidates" in ranking.reason
    assert ranking.kendall_tau < 1
    judgement = judge(report, "fp32")
    assert judgement.verdict == "fail"
    assert judgement.tolerance.top10_overlap is None


def test_outputs_without_a_ranking_have_a_reason():
    hidden = np.ones((2, 1, 10, 64), np.float32)
    report = compare({"hidden": hidden}, {"hidden": hidden}, None)
    assert report.ranking is None
    assert report.ranking_reason == "no output of this program is a ranking"
    one = np.ones((2, 1), np.float32)
    assert "one candidate" in compare({"s": one}, {"s": one}, "s").ranking_reason


def altered(value):
    array = scores()
    array[2, 0, 5] = value
    return array


@pytest.mark.parametrize(
    ("expected", "actual", "words"),
    [
        ({"scores": scores()}, {}, "missing output: scores"),
        ({"scores": scores()}, {"scores": scores(), "more": scores()}, "unexpected output: more"),
        ({"scores": scores()}, {"points": scores()}, "missing output: scores"),
        ({}, {}, "no expected output"),
        ({"scores": scores()[:0]}, {"scores": scores()[:0]}, "'scores' holds no values"),
        (
            {"scores": scores()},
            {"scores": scores(candidates=21)},
            r"'scores' has shape \[4, 1, 21\], expected \[4, 1, 20\]",
        ),
        ({"scores": scores()}, {"scores": scores()[:3]}, r"'scores' has shape \[3, 1, 20\]"),
        ({"scores": scores()}, {"scores": scores().astype(np.float64)}, "'scores' is float64, expected float32"),
        ({"scores": scores()}, {"scores": scores().astype(np.float16)}, "'scores' is float16, expected float32"),
        ({"scores": scores()}, {"scores": altered(np.nan)}, "actual output 'scores' holds 1 NaN .* in case 2"),
        ({"scores": scores()}, {"scores": altered(np.inf)}, "actual output 'scores' holds 1 NaN or infinite"),
        ({"scores": altered(np.nan)}, {"scores": altered(np.nan)}, "expected output 'scores' holds 1 NaN"),
        ({"scores": scores(), "x": scores(3)}, {"scores": scores(), "x": scores(3)}, "differ in their number of cases"),
        ({"x": scores()}, {"x": scores()}, "the ranking output 'scores' is missing"),
    ],
)
def test_what_cannot_be_compared_fails_by_name(expected, actual, words):
    report = compare(expected, actual, "scores")
    assert (report.max_abs_error, report.max_rel_error, report.outputs, report.ranking) == (None, None, (), None)
    judgement = judge(report, "fp32")
    assert judgement.verdict == "fail"
    assert judgement.reason == report.mismatch
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(report.mismatch)


def test_the_fp32_bound_is_where_it_says():
    expected = np.zeros((1, 20)) + np.arange(20)
    for error, verdict in ((0.99 * FP32_MAX_ABS_ERROR, "pass"), (1.01 * FP32_MAX_ABS_ERROR, "fail")):
        judgement = judge(compare({"s": expected}, {"s": expected + error}, "s"), "fp32")
        assert judgement.verdict == verdict
        assert judgement.tolerance.max_abs_error == {"s": 1e-4}
        assert judgement.tolerance.top10_overlap == 1.0


def test_a_large_fp32_output_is_judged_by_the_size_of_its_own_case():
    expected = np.array([[8.0, -8192.0], [8.0, -8.0]])  # ulps of 2^-10 and 2^-20
    limit = 384**0.5 * 2**-24 * 8192
    assert limit == pytest.approx(0.00957, abs=1e-5)
    for case, column, error, words in (
        (0, 0, 0.99 * limit, None),
        (0, 1, 1.01 * limit, "output 's' is off by 0.00966 in case 0, allowed is 0.00957"),
        (1, 0, 0.99e-4, None),
        (1, 1, 1.01e-4, "output 's' is off by 0.000101 in case 1, allowed is 0.0001"),
    ):
        actual = expected.copy()
        actual[case, column] += error
        judgement = judge(compare({"s": expected}, {"s": actual}, None), "fp32")
        assert judgement.tolerance.max_abs_error == {"s": pytest.approx(limit)}
        allowed = (
            "within the fp32 tolerance on all 2 cases; output 's', whose values reach 8.19e+03, may be off by 0.00957"
        )
        assert (judgement.verdict, judgement.reason) == (("fail", words) if words else ("pass", allowed))
    assert np.finfo(np.float32).eps / 2 == FP32_UNIT_ROUNDOFF


def test_fp32_scores_are_held_to_1e_4_until_they_are_large_and_then_to_their_own_roundings():
    for scale, limit in ((11.3, 1e-4), (50.0, 1e-4), (232.0, 1_092**0.5 * 2**-24 * 232)):
        expected = np.array([[scale, 0.0], [1.0, -1.0]])
        for case, error, verdict in (
            (0, 0.99 * limit, "pass"),
            (0, 1.01 * limit, "fail"),
            (1, 0.99e-4, "pass"),
            (1, 1.01e-4, "fail"),
        ):
            actual = expected.copy()
            actual[case, 1] += error
            judgement = judge(compare({"s": expected}, {"s": actual}, "s"), "fp32")
            assert judgement.verdict == verdict, (scale, case)
            assert judgement.tolerance.max_abs_error == {"s": pytest.approx(limit)}
    assert 3.4e-4 < limit < 232 * 2e-4 / 50


def test_one_changed_place_in_the_top_ten_fails_fp32_whatever_the_error():
    expected = np.tile(np.arange(20.0), (256, 1))
    expected[7, 9] = expected[7, 10] - 1e-6  # ranks 11 and 10
    actual = expected.copy()
    actual[7, [9, 10]] = actual[7, [10, 9]]
    judgement = judge(compare({"s": expected}, {"s": actual}, "s"), "fp32")
    assert judgement.verdict == "fail"
    assert judgement.reason.startswith("the top 10 agree to 0.9996")


def test_the_fp16_bound_scales_with_the_scores_and_counts_roundings():
    expected = np.tile(np.arange(101.0), (2, 1))  # scale 100
    limit = 384**0.5 * 2**-11 * 100
    assert limit == pytest.approx(0.957, abs=1e-3)
    for error, verdict in ((0.99 * limit, "pass"), (1.01 * limit, "fail")):
        judgement = judge(compare({"s": expected}, {"s": expected + error}, "s"), "fp16")
        assert judgement.verdict == verdict
        assert judgement.tolerance.max_abs_error == {"s": pytest.approx(limit)}
    assert np.finfo(np.float16).eps / 2 == FP16_UNIT_ROUNDOFF


def test_fp16_rounding_of_the_scores_alone_passes():
    expected = scores(cases=64, candidates=100)
    report = compare({"s": expected}, {"s": expected.astype(np.float16).astype(np.float32)}, "s")
    assert 0 < report.max_abs_error <= FP16_UNIT_ROUNDOFF * report.outputs[0].scale
    assert judge(report, "fp16").verdict == "pass"


def test_fp16_does_not_excuse_a_changed_ranking():
    expected = np.tile(np.linspace(0, 1, 20), (50, 1))
    actual = expected.copy()
    actual[:10, [9, 10]] = actual[:10, [10, 9]]  # ten of fifty lose one of ten places: 0.98
    report = compare({"s": expected}, {"s": actual}, "s")
    assert report.ranking.top10_overlap == pytest.approx(0.98)
    actual[10, [9, 10]] = actual[10, [10, 9]]
    judgement = judge(compare({"s": expected}, {"s": actual}, "s"), "fp16")
    assert judgement.verdict == "fail"
    assert "the top 10 agree to 0.9780, at least 0.98 is asked for" in judgement.reason


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_whole_numbers_must_be_exact(precision):
    chosen = np.array([[1000, 2, 3]], np.int32)
    assert judge(compare({"blocks": chosen}, {"blocks": chosen}, None), precision).verdict == "pass"
    assert judge(compare({"blocks": chosen}, {"blocks": chosen + 1}, None), precision).verdict == "fail"


def test_golden_scores_of_other_weights_are_told():
    stored = scores().astype(np.float32)
    assert golden_scores_off(stored, stored + np.float32(0.9e-4)) is None
    assert golden_scores_off(stored, stored + np.float32(1.1e-4)) == pytest.approx(1.1e-4, rel=0.01)
    assert golden_scores_off(stored, np.full_like(stored, np.nan)) is not None


def test_what_rests_on_unsettled_choices_is_no_pass():
    expected = scores()
    lines = [f"operation 'mod_{number}' (mod): an operand is negative" for number in range(5)]
    same = compare({"s": expected}, {"s": expected.copy()}, "s")
    judgement = judge(same, "fp32", lines)
    assert (judgement.verdict, judgement.tolerance) == ("unverified", judge(same, "fp32").tolerance)
    assert "within the fp32 tolerance on all 4 cases, but" in judgement.reason
    assert all(line in judgement.reason for line in lines[:3])
    assert judgement.reason.endswith("; and 2 more")
    assert judge(same, "fp32", lines[:1]).reason.endswith(lines[0])
    for wrong in ({"s": expected + np.float32(1)}, {}):
        report = compare({"s": expected}, wrong, "s")
        assert judge(report, "fp32", lines) == judge(report, "fp32")
        assert judge(report, "fp32").verdict == "fail"
