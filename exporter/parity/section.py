"""The parity section of a manifest: a run's outputs against torch's, or why there is no comparison."""

from dataclasses import asdict
from typing import Any

import numpy as np

from exporter.core.types import Arrays, Precision, RunResult, Verdict
from exporter.parity.compare import compare, ranking_figures
from exporter.parity.verdict import judge

Section = dict[str, Any]

_FIGURES = (
    *("executed_on", "cases", "max_abs_error", "max_rel_error", "output_errors", "top10_overlap", "kendall_tau"),
    *("flip_margin", "twice_max_error", "could_flip", "ranking_reason", "tolerance"),
)


def judged(result: RunResult, expected: Arrays, ranking: str | None, precision: Precision) -> Section:
    """Compare a run with the torch outputs by name, each [cases, ...], and give the verdict."""
    report = compare(expected, result.outputs, ranking)
    judgement = judge(report, precision, result.unsettled)
    figures = report.ranking
    return {
        "verdict": judgement.verdict,
        "reason": judgement.reason,
        "executed_on": result.executed_on,
        "cases": report.cases,
        "max_abs_error": report.max_abs_error,
        "max_rel_error": report.max_rel_error,
        "output_errors": {output.name: output.max_abs_error for output in report.outputs} or None,
        "top10_overlap": figures.top10_overlap if figures else None,
        "kendall_tau": figures.kendall_tau if figures else None,
        "flip_margin": figures.flip_margin if figures else None,
        "twice_max_error": figures.twice_max_error if figures else None,
        "could_flip": figures.could_flip if figures else None,
        "unsettled": list(result.unsettled),
        "ranking_reason": report.ranking_reason or (figures.reason if figures else None),
        "tolerance": None if judgement.tolerance is None else asdict(judgement.tolerance),
    }


def agreement(name: str, expected: np.ndarray, actual: np.ndarray) -> Section:
    """Say how far two scores [cases, ..., candidates] of the same candidates rank them alike."""
    figures = ranking_figures(name, expected, actual)
    return {
        "cases": len(expected),
        "top10_overlap": figures.top10_overlap if figures else None,
        "kendall_tau": figures.kendall_tau if figures else None,
        "reason": figures.reason if figures else "one candidate leaves nothing to rank",
    }


def unjudged(verdict: Verdict, reason: str) -> Section:
    """Return the parity section of an artifact that was not compared."""
    return {"verdict": verdict, "reason": reason, **dict.fromkeys(_FIGURES), "unsettled": []}
