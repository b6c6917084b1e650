"""The parity section of a manifest: a run's outputs against torch's, or why there is no comparison."""

from dataclasses import replace

import numpy as np

from exporter.core.precision import Precision
from exporter.core.sections import Agreement, InOneCall, Parity, Scheme, SchemeCost
from exporter.core.types import EQUAL_ELEMENTS, Arrays, RunResult
from exporter.parity.compare import compare, ranking_figures, scheme_changes
from exporter.parity.positives import positives
from exporter.parity.selection import compare_lists, order_is_settled
from exporter.parity.verdict import judge, judge_scheme, worst


def judged(
    result: RunResult, expected: Arrays, ranking: str | None, precision: Precision, ranked: str | None = None
) -> Parity:
    """Compare a run with the torch outputs by name, each [cases, ...], and give the verdict.

    `ranking` and `ranked` are those of a manifest.
    """
    unsettled = result.unsettled
    if ranking is None or ranked is None:
        report = compare(expected, result.outputs, ranking)
    else:
        report = compare_lists(expected, result.outputs, ranking, ranked)
        if report.mismatch is None and order_is_settled(result.outputs[ranking]):
            unsettled = tuple(line for line in unsettled if not line.endswith(f"(topk): {EQUAL_ELEMENTS}"))
    judgement = judge(report, precision, unsettled)
    figures = report.ranking
    return Parity(
        verdict=judgement.verdict,
        reason=judgement.reason,
        executed_on=result.executed_on,
        cases=report.cases,
        max_abs_error=report.max_abs_error,
        max_rel_error=report.max_rel_error,
        output_errors={output.name: output.max_abs_error for output in report.outputs} or None,
        top10_overlap=figures.top10_overlap if figures else None,
        kendall_tau=figures.kendall_tau if figures else None,
        flip_margin=figures.flip_margin if figures else None,
        twice_max_error=figures.twice_max_error if figures else None,
        could_flip=figures.could_flip if figures else None,
        unsettled=unsettled,
        ranking_reason=report.ranking_reason or (figures.reason if figures else None),
        tolerance=judgement.tolerance,
    )


def with_scheme(parity: Parity, cost: SchemeCost) -> Parity:
    """Return a parity section whose verdict is of both: of the artifact beside torch with its tables, and of these.

    Where the tables do not fail, the verdict is that of the artifact: what was not run stays `unverified`.
    """
    over = f" over {cost.cases} cases" if cost.cases != parity.cases else ""
    reason = f"lowering: {parity.reason}; scheme{over}: {cost.reason}"
    verdict = "fail" if "fail" in (parity.verdict, cost.verdict) else parity.verdict
    return replace(parity, verdict=verdict, reason=reason, lowering=parity.verdict, scheme=cost)


def with_one_call(parity: Parity, judged: InOneCall) -> Parity:
    """Return a parity section whose verdict is of both: of a call for each case, and of one call for all of them."""
    words = "too" if judged.verdict == "pass" else judged.reason
    reason = f"{parity.reason}; all {judged.users} users in one call: {words}"
    return replace(parity, verdict=worst([parity.verdict, judged.verdict]), reason=reason, in_one_call=judged)


def scheme_cost(
    golden: tuple[Arrays, Arrays],
    ranking: str | None,
    ranked: str | None,
    scheme: Scheme,
    untrained: bool,
    positive: np.ndarray | None = None,
) -> SchemeCost:
    """Judge what a scheme changes of golden outputs in fp32 and with stored tables, [cases, ...] by name.

    What drawn weights make of it says nothing of a model, and is not judged. `positive` [cases] has the place of the
    candidate that was clicked next.
    """
    fp32, stored = golden
    if ranking is None or ranked is None:
        report = compare(fp32, stored, ranking)
    else:
        report = compare_lists(fp32, stored, ranking, ranked)
    cost = replace(judge_scheme(scheme, scheme_changes(fp32, stored, report, ranked), untrained), cases=report.cases)
    if positive is None or ranking is None or report.mismatch is not None:
        return cost
    before, after = (arrays[ranking].reshape(len(positive), -1) for arrays in golden)
    return replace(cost, positives=positives(before, after, positive))


def agreement(name: str, expected: np.ndarray, actual: np.ndarray) -> Agreement:
    """Say how far two scores [cases, ..., candidates] of the same candidates rank them alike."""
    figures = ranking_figures(name, expected, actual)
    return Agreement(
        cases=len(expected),
        top10_overlap=figures.top10_overlap if figures else None,
        kendall_tau=figures.kendall_tau if figures else None,
        reason=figures.reason if figures else "one candidate leaves nothing to rank",
    )
