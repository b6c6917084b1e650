"""The verdict on a comparison: every tolerance of the project stands in this file."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from exporter.core.precision import Body, Precision, Tables, body_of, has_own_tables
from exporter.core.sections import Scheme, SchemeCost, Tolerance
from exporter.core.types import Verdict
from exporter.parity.compare import OutputError, ParityReport, SchemeChanges

FP32_MAX_ABS_ERROR = 1e-4
TOP10_OVERLAP: Mapping[Body, float] = {"fp32": 1.0, "fp16": 0.98}

# fp16 rounds every result by at most u = 2^-11 of its size. If the roundings that meet in one score are independent and
# centred, n of them leave an error of about sqrt(n) * u of the values' size (Higham and Mary 2019, SIAM J. Sci. Comput.
# 41:A2815), while the certain bound n * u would pass almost anything. Along the longest path of SCN stand eight matrix
# products, over 64 values (Q/K/V, W_o, W_1, W_2 and the score itself: five), 16 (K W0 and Q K^T) and 10 (the step over
# the mini-batch), 362 terms, and some 20 elementwise stages and normalisations: n = 384 counts each term's rounding, as
# if products were summed in fp16. So a score may be off by sqrt(384) * 2^-11 = 0.96 % of the largest score.
# The shipped SCN in torch's fp16 is off by 2.3 u, 0.11 % of the largest score, on its 256 golden cases.
ROUNDINGS = 384
FP16_UNIT_ROUNDOFF = 2.0**-11

# Scores are held to FP32_MAX_ABS_ERROR while they are of some tens. What rounds grows with them, so that beyond that
# they are allowed roundings as fp16's are, with fp32's own u = 2^-24 and by the size of each case. The longest path of
# the deepest model here, a BERT4Rec of two blocks with D = 64, four heads and 10 clicks, has in a block products over
# 64 (keys), 16 (Q K^T), 10 (the sum of the softmax), 10 (its rows times V), 64 (W_o), 64 and 256 (the two of the feed-
# forward), 484 terms, and some 30 roundings of norms, activations and sums; then 64 of the score: n = 2 * 514 + 64 =
# 1,092, and sqrt(n) * u is 2.0e-6 of the largest score: more than 1e-4 beyond 50.8. A SASRec with scores up to 232 was
# off by 3.4e-4 with equal rankings, where 4.6e-4 are allowed; weights that were rounded to fp16 move scores by 2e-4 of
# their size, a hundred times as much.
# States and corrections have no fixed range: the scan of a Mamba4Rec after training holds values of thousands, where
# torch's own fp32 is off by 1e-3 from its float64, so that what rounds in another order cannot be within 1e-4 of it.
# There fp32 has the same allowance as fp16, ROUNDINGS roundings, with its own u = 2^-24 and by the size of each case.
# It exceeds 1e-4 only beyond 1e-4 / (sqrt(384) * 2^-24) = 85.6; the scan of that Mamba4Rec is off by 11 u, where 19.6
# u are allowed.
FP32_UNIT_ROUNDOFF = 2.0**-24
FP32_SCORE_ROUNDINGS = 1_092

# A program that finds the best K of a catalogue itself gives their ids, in falling order of their scores, and nobody
# sees the scores of all other items. Let an artifact have scores a(i) of all items i and torch s(i), |a(i) - s(i)| <=
# e, which is what passes where all scores are seen. Then of the two lists, whose last scores are a_K and s_K:
# - At each rank the scores differ by e at most: to sort does not move two lists further apart than they are.
# - An item that both lists have has scores that differ by e at most, whatever its ranks.
# - An item that torch alone has is not above the artifact's last: a(i) <= a_K, so s(i) <= a_K + e.
# - An item that the artifact alone has is not above torch's last: s(i) <= s_K, so a(i) <= s_K + e.
# `selection.py` takes the largest of these four as the error of a case, which is held to what any ranking's scores are
# held to. So ids are torch's in torch's order but where scores are nearer to each other, or to the last one, than 2 e
# (a_K <= s_K + e); of the last id itself nothing else is known. The top 10 are held to TOP10_OVERLAP by their ids.

# A checkpoint brings the scores that torch gave in fp32 where it was trained. Torch elsewhere may sum in another order,
# so they are held to what the scores of an fp32 artifact are held to. Those of the shipped checkpoints reach 11.3 and
# are within 3.4e-6 of the same models in float64; weights that are off by 1e-4 of their size, or fp32 ones that were
# rounded to fp16, move them by 2.4e-3 or more.
GOLDEN_SCORES_MAX_ABS_ERROR = FP32_MAX_ABS_ERROR

# A pass over the graph computes the same in another order, in torch and in fp32. What it may change of an output, of
# the largest value or of 1, is a tenth of what an artifact may be off by, so that the runtime keeps the rest; all
# passes together move the scores of the shipped SCN, which reach 11.3, by 2.4e-6.
PASS_ERROR = FP32_MAX_ABS_ERROR / 10

# A scheme stores tables in fewer bits, and torch with the same tables is what an artifact is held to, by the rules
# above. What the scheme itself changes of a ranking is judged apart, torch against torch. Errors of a row are
# independent of it and of those of other rows, and of relative size r = RMSE(T) / RMS(T). A score u . x of a
# candidate's row x with errors e is off by u . e, and the scores of a user's candidates spread by the standard
# deviation of u . x: where rows point everywhere, the one is r of the other. A user u that follows one click's row is
# itself off by r, which moves scores as much again; of n clicks of like weight it is r / sqrt(n). Two such errors are
# independent, so that they add up as squares do: for each place where rows are looked up, r^2. What rows have in
# common moves all scores of a case alike and takes from their spread, and norms and activations mostly take from the
# error. So the root mean square of the change is held to the root of that sum, in the spread within cases: sqrt(2) r
# of one table for clicks and candidates. On two SCNs and one Forward-OFA it was 0.56 to 0.79 of r, in int8 and in int4,
# over 22,363 users, and their top 10 of 100 agreed to 0.9957 and more in int8, to 0.944 to 0.969 in int4; on the
# Forward-OFA that ships it is 1.36 to 1.39 of r, with 0.9930 in int8 and 0.911 in int4, which fails. A largest error
# would say nothing: it grows with the number of scores. What a state's change costs shows in the scores that are
# computed of it.
#
# Weights W [O, K] of a package are rounded by rows too, and y = W x + b is off by what e x is, r of the size of W x.
# What follows passes that on as a share of what it is added to: a bias and the residual stream make it smaller, and
# where nothing makes it larger (a softmax may, where its scores are large), the state u is off by r at most. Errors of
# tensors are independent of each other and of those of tables, so that all of them together are held to the root of
# the sum of their squares, as several tables are, and no tensor has an allowance of its own. Of that root the packages
# of the shipped Forward-OFA in int8 take 0.03 to 0.08 (256 users, first, last and all blocks: large biases, which stay
# in fp32, carry most), and 0.30 to 0.95 with drawn weights, SASRec and NextItNet of 16 to 64 numbers and of 1 to 6
# blocks.
#
# No table's own error allows more than half of the spread, beyond which scores before and after correlate by less than
# 0.9 (1 / sqrt(1 + 0.5^2)): a table whose numbers are lost would allow anything. And what fp32 itself rounds, as above,
# is no change of the scheme's: rows of equal numbers are stored exactly, and their scores still differ in the last bit.
MOST_OF_SPREAD = 0.5
SCHEME_TOP10_OVERLAP: Mapping[Tables, float] = {"fp16": 0.99, "int8": 0.99, "int4": 0.93}

# Of all users of a catalogue each is held to what the scores of a golden case are held to, in fp16 by the scale of the
# golden cases: who else is judged changes nothing. But among very many users some have two scores at the border of the
# top 10 that are nearer to each other than any rounding, and which of them comes first is nobody's fault. One item of
# one list in 256 is the least that golden cases could have shown; so many may be others in fp32, on the mean.
USERS_TOP10_OVERLAP: Mapping[Body, float] = {"fp32": 1 - 0.1 / 256, "fp16": TOP10_OVERLAP["fp16"]}

# Where an artifact's values have no names, one whose numbers differ from a value of torch's by less than this, RMS of
# the difference by that of the value, is taken for it: as much as fp16 may be off by. Nothing is judged by it.
SAME_VALUE = math.sqrt(ROUNDINGS) * FP16_UNIT_ROUNDOFF

# Torch may take many users at once where that gives what it gives for each: the order of sums is another one, and with
# it what they round to. So much of the error that an artifact is allowed may come of it; the rest is the artifact's.
BATCH_SHARE = 0.1

WORST_FIRST: tuple[Verdict, ...] = ("fail", "unverified", "pass")
_LINES_SHOWN = 3


@dataclass(frozen=True)
class Judgement:
    """The verdict, why, and the tolerance it was measured by (None where nothing was measured)."""

    verdict: Verdict
    reason: str
    tolerance: Tolerance | None


def error_limits(precision: Precision, output: OutputError, scale: float | None = None) -> tuple[float, ...]:
    """The largest absolute error that passes in each case; whole numbers must be exact at every precision.

    `scale` is what fp16 is held to where it is not the largest value of these cases.
    """
    cases = len(output.errors)
    if not output.dtype.startswith("float"):
        return (0.0,) * cases
    if body_of(precision) == "fp16":
        return (math.sqrt(ROUNDINGS) * FP16_UNIT_ROUNDOFF * (scale or output.scale),) * cases
    roundings = FP32_SCORE_ROUNDINGS if output.is_ranking else ROUNDINGS
    return tuple(max(FP32_MAX_ABS_ERROR, math.sqrt(roundings) * FP32_UNIT_ROUNDOFF * scale) for scale in output.scales)


def judge(report: ParityReport, precision: Precision, unsettled: Sequence[str] = ()) -> Judgement:
    """Judge a comparison by the tolerance of its precision: `pass`, or `fail` with every bound that was broken.

    A `pass` names the fp32 outputs that were allowed more than FP32_MAX_ABS_ERROR. What would pass on `unsettled`
    choices of the reference is `unverified`: on the device the scores may be others. What fails, fails.
    """
    if report.mismatch is not None:
        return Judgement("fail", report.mismatch, None)
    overlap = report.ranking.top10_overlap if report.ranking is not None else None
    limits = {output.name: error_limits(precision, output) for output in report.outputs}
    tolerance = Tolerance(
        {name: max(of_cases) for name, of_cases in limits.items()},
        None if overlap is None else TOP10_OVERLAP[body_of(precision)],
    )
    broken, notes = [], [f"within the {body_of(precision)} tolerance on all {report.cases} cases"]
    for output in report.outputs:
        judged = zip(output.errors, limits[output.name], strict=True)
        over, case = max((error - limit, case) for case, (error, limit) in enumerate(judged))
        if over > 0:
            error, limit = output.errors[case], limits[output.name][case]
            broken.append(f"output {output.name!r} is off by {error:.3g} in case {case}, allowed is {limit:.3g}")
        most = tolerance.max_abs_error[output.name]
        if body_of(precision) == "fp32" and most > FP32_MAX_ABS_ERROR:
            notes.append(f"output {output.name!r}, whose values reach {output.scale:.3g}, may be off by {most:.3g}")
    if overlap is not None and tolerance.top10_overlap is not None and overlap < tolerance.top10_overlap:
        broken.append(f"the top 10 agree to {overlap:.4f}, at least {tolerance.top10_overlap} is asked for")
    if broken:
        return Judgement("fail", "; ".join(broken), tolerance)
    if unsettled:
        return Judgement("unverified", f"{'; '.join(notes)}, but {_unsettled(unsettled)}", tolerance)
    return Judgement("pass", "; ".join(notes), tolerance)


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    """Return what all of some verdicts say together: one that fails fails all, `unverified` where there is none."""
    return min(verdicts, key=WORST_FIRST.index, default="unverified")


def judge_users(users: int, failed: int, unsettled: int, overlap: float | None, precision: Precision) -> Judgement:
    """Judge an artifact by all users: `failed` are beyond their error limits, `overlap` is the mean of their top 10."""
    asked = None if overlap is None else USERS_TOP10_OVERLAP[body_of(precision)]
    broken = [f"the scores of {failed:,} of {users:,} users are off by more than is allowed"] if failed else []
    if overlap is not None and asked is not None and overlap < asked:
        broken.append(f"the top 10 agree to {overlap:.6f}, at least {asked:.6f} is asked for")
    if broken:
        return Judgement("fail", "; ".join(broken), None)
    if not users:
        return Judgement("unverified", "no user could be ranked for", None)
    beside = " of torch with the same tables" if has_own_tables(precision) else ""
    within = f"within the {body_of(precision)} tolerance{beside} for all {users:,} users"
    if unsettled:
        return Judgement("unverified", f"{within}, but for {unsettled:,} of them only a Mac can tell", None)
    return Judgement("pass", within, None)


def judge_scheme(scheme: Scheme, changes: SchemeChanges, untrained: bool) -> SchemeCost:
    """Judge what stored tables and weights change of a ranking; what they do to `untrained` ones is not judged."""
    root = math.sqrt(sum(table.lookups * table.relative_rmse**2 for table in scheme.stored))
    rounding = math.sqrt(FP32_SCORE_ROUNDINGS) * FP32_UNIT_ROUNDOFF * changes.scale_to_spread
    allowed = max(min(root, MOST_OF_SPREAD), rounding)
    figures = changes.ranking
    overlap = figures.top10_overlap if figures is not None else None
    asked = None if overlap is None else SCHEME_TOP10_OVERLAP[scheme.tables]
    verdict: Verdict = "pass"
    reasons = []
    if changes.mismatch is not None:
        verdict, reasons = "fail", [f"golden outputs in fp32 and with stored tables: {changes.mismatch}"]
    elif untrained or figures is None:
        verdict, reasons = "unverified", [f"not judged, {'the weights are drawn' if untrained else changes.no_ranking}"]
    elif (ratio := changes.error_to_spread.get(figures.output)) is not None:
        reasons = [f"{_moving(scheme)} move scores by {ratio:.3g} of their spread, allowed is {allowed:.3g}"]
        verdict = "pass" if ratio <= allowed else "fail"
    if changes.mismatch is None and verdict != "unverified" and overlap is not None and asked is not None:
        reasons.append(f"the top 10 agree to {overlap:.4f}, at least {asked} is asked for")
        verdict = "fail" if overlap < asked else verdict
    return SchemeCost(
        verdict=verdict,
        reason="; ".join(reasons),
        error_to_spread={
            name: ratio if math.isfinite(ratio) else None for name, ratio in changes.error_to_spread.items()
        },
        allowed=allowed,
        top10_overlap=overlap,
        top10_asked=asked,
        top10_changed=figures.top10_changed if figures is not None else None,
        kendall_tau=figures.kendall_tau if figures is not None else None,
    )


def _moving(scheme: Scheme) -> str:
    """Return in words what a scheme stores otherwise."""
    of_package = {one.name is not None for one in scheme.stored}
    words = ((f"{scheme.tables} tables", False), ("int8 weights", True))
    return " and ".join(word for word, is_of_package in words if is_of_package in of_package)


def _unsettled(lines: Sequence[str]) -> str:
    more = f"; and {len(lines) - _LINES_SHOWN} more" if len(lines) > _LINES_SHOWN else ""
    return f"what Core ML does there only a Mac can tell: {'; '.join(lines[:_LINES_SHOWN])}{more}"


def golden_scores_off(stored: np.ndarray, computed: np.ndarray) -> float | None:
    """Return by how much a checkpoint's golden scores differ from those of its weights, None where they are the same.

    Both are [cases, candidates]; NaN differs from everything.
    """
    largest = float(np.abs(stored - computed).max())
    return None if largest <= GOLDEN_SCORES_MAX_ABS_ERROR else largest


def are_same_weights(first: np.ndarray, second: np.ndarray, in_half: bool) -> bool:
    """Say whether two tensors are one user's weights, computed for that user alone or with others.

    What is summed in another order may be off by as much as an fp32 output; `in_half` one of them was stored in fp16.
    """
    roundoff = math.sqrt(ROUNDINGS) * FP32_UNIT_ROUNDOFF + (FP16_UNIT_ROUNDOFF if in_half else 0.0)
    scale = float(np.abs(second).max(initial=0.0))
    return first.shape == second.shape and float(np.abs(first - second).max(initial=0.0)) <= roundoff * scale


def are_as_alone(together: np.ndarray, alone: np.ndarray) -> bool:
    """Say whether torch gives users of one call what it gives each alone, [users, ...]; as exactly as a pass does."""
    if together.shape != alone.shape:
        return False
    scale = max(1.0, float(np.abs(alone).max(initial=0.0)))
    return float(np.abs(together.astype(np.float64) - alone).max(initial=0.0)) <= PASS_ERROR * scale
