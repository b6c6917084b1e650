"""How artifacts and their limits stand, in the words that all reports have."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from exporter.artifact.results import Checked, Report
from exporter.core.checks import LimitCheck
from exporter.core.sections import Budget
from exporter.report.units import change, exact

Tone = Literal["good", "bad", "unsure"]
TONES: Mapping[int, Tone] = {0: "good", 1: "bad", 3: "unsure"}
"""What an exit code says of that for which it stands."""

LIMIT_COLUMNS = ("figure", "baseline", "now", "change", "limit", "outcome")
_HEADLINES = {0: "pass", 1: "fail", 3: "unverified"}
_BUDGET_OUTCOMES: Mapping[bool | None, Literal["kept", "broken", "unknown"]] = {
    True: "kept",
    False: "broken",
    None: "unknown",
}
_BUDGET_UNITS: Mapping[str, str] = {
    "memory_bytes": "B",
    "size_bytes": "B",
    "latency_us": "us",
    "flops_per_token": "FLOPs",
}


@dataclass(frozen=True)
class Standing:
    """What is to be said of an artifact first: `word` is `pass` only where its exit code is 0."""

    word: str
    tone: Tone
    reasons: tuple[str, ...]

    @property
    def rank(self) -> int:
        """Return its place in a list that begins with what a reader has to see to."""
        return ("bad", "unsure", "good").index(self.tone)


def standing(checked: Checked) -> Standing:
    """Return how an artifact stands, and why: what keeps it from passing, and what was not judged."""
    if checked.manifest is None:
        return Standing("no artifact", "bad", (checked.error or "nothing says why",))
    parity = checked.manifest.parity
    words: list[str] = [] if parity.verdict == "pass" else [parity.verdict]
    reasons = [f"parity: {parity.reason}"] if parity.reason and words else []
    outcomes = {limit.outcome for limit in checked.limits}
    budgets = {_BUDGET_OUTCOMES[budget.within] for budget in checked.manifest.budgets or ()}
    words += ["limit broken"] if "broken" in outcomes else []
    words += ["over budget"] if "broken" in budgets else []
    words += ["budget not known"] if "unknown" in budgets else []
    reasons += [limit_sentence(limit) for limit in limits_of(checked) if _weighs(limit, checked)]
    unknown = [limit.figure for limit in checked.limits if limit.outcome == "unknown"]
    reasons += [f"limits that nothing here could judge: {', '.join(unknown)}"] if unknown else []
    return Standing(", ".join(words) or "pass", TONES[checked.exit_code], tuple(reasons))


def _weighs(limit: LimitCheck, checked: Checked) -> bool:
    """Say whether a limit keeps an artifact from passing; an unknown budget of its profile does."""
    return limit.outcome == "broken" or (limit.outcome == "unknown" and limit not in checked.limits)


def headline(report: Report) -> tuple[str, str]:
    """Return the verdict on all that was checked, and how many artifacts stand how."""
    if not report.artifacts:
        return "nothing checked", "there is no artifact in this report"
    counts = Counter(standing(checked).word for checked in report.artifacts)
    listed = "; ".join(f"{number} {word}" for word, number in counts.items())
    listed += f"; {len(report.gone)} in the baseline and not checked" if report.gone else ""
    artifacts = "1 artifact" if len(report.artifacts) == 1 else f"{len(report.artifacts)} artifacts"
    return _HEADLINES[report.exit_code], f"{artifacts}: {listed}"


def limits_of(checked: Checked) -> list[LimitCheck]:
    """Return the limits of an artifact, those of its device profile last."""
    budgets = checked.manifest.budgets or () if checked.manifest is not None else ()
    return [*checked.limits, *map(_as_limit, budgets)]


def _as_limit(budget: Budget) -> LimitCheck:
    unit = _BUDGET_UNITS.get(budget.budget, "")
    return LimitCheck(
        figure=f"budget {budget.budget}",
        unit=unit,
        limit=f"at most {exact(budget.limit, unit)}",
        line=None,
        baseline=None,
        value=budget.value,
        change=None,
        outcome=_BUDGET_OUTCOMES[budget.within],
        reason=budget.reason,
    )


def has_moved(limit: LimitCheck) -> bool:
    """Say whether a limit is worth a reader's time: it is not kept, or its figure is not what it was."""
    return limit.outcome != "kept" or (limit.baseline is not None and limit.baseline != limit.value)


def limit_cells(limit: LimitCheck) -> tuple[str, ...]:
    """Return the texts below LIMIT_COLUMNS."""
    outcome = f"{limit.outcome}: {limit.reason}" if limit.reason else limit.outcome
    before, now = (exact(value, limit.unit) for value in (limit.baseline, limit.value))
    return limit.figure, before, now, change(limit.change), limit.limit, outcome


def limit_sentence(limit: LimitCheck) -> str:
    """Return one sentence with a limit's figure, what it was, and what it may be."""
    _, before, now, moved, *_ = limit_cells(limit)
    then = f", in the baseline {before}" if limit.baseline is not None else ""
    by = f" ({moved})" if limit.change is not None else ""
    reason = f": {limit.reason}" if limit.reason else ""
    return f"{limit.figure} is {now}{then}{by}; limit {limit.limit}, {limit.outcome}{reason}"


def what_else_moved(report: Report) -> Sequence[str]:
    """Say which packages are not those of the baseline, and what of it was not checked any more."""
    versions = [
        f"{package} was {then or 'not there'} in the baseline and is {now or 'not there'}"
        for package, (then, now) in report.versions.items()
    ]
    return [
        *versions,
        *(
            f"{name} is in the baseline and was not checked; put it back, or run this with --update"
            for name in report.gone
        ),
    ]
