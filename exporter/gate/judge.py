"""What holds of an artifact's limits: its figures now, beside those of the baseline."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from exporter.artifact.manifest import Manifest
from exporter.core.checks import Counted, LimitCheck, Outcome
from exporter.core.sections import Comparison
from exporter.gate.figures import FIGURES, INSTRUCTIONS, LATENCY, Figure
from exporter.gate.limits import Limit
from exporter.gate.lock import Locked

BASELINE = "baseline"
_UPDATE = "look at it, and where it is meant, run this with --update"
_SHORT = 16
_ACCEPTED = "it is the baseline from now on"
_RELATIVE = ("change", "share of the baseline")
_ABSOLUTE = ("at most", "at least")


@dataclass(frozen=True)
class Timed:
    """The artifact and that of the baseline called in turn; None where they are the same file, or with `reason`."""

    comparison: Comparison | None
    reason: str | None
    is_same_file: bool = False


def figures_of(manifest: Manifest) -> dict[str, float]:
    """Return the stable figures of an artifact that it has, by name."""
    rows = {name: figure.read(manifest) for name, figure in FIGURES.items() if figure.in_lock}
    return {name: value for name, value in rows.items() if value is not None}


def judged(
    limits: Mapping[str, tuple[Limit, ...]],
    manifest: Manifest,
    source: str | None,
    baseline: Locked | None,
    counted: Counted,
    timed: Timed,
    accept: bool = False,
) -> tuple[LimitCheck, ...]:
    """Return what holds of each limit; those of the baseline alone are left out where there is none.

    `source` is the SHA-256 of what it is made of. With `accept` nothing is held to the baseline, since it is
    written anew; what moved from it is still told.
    """
    checks: list[LimitCheck] = []
    for name, several in limits.items():
        for limit in several:
            check = _one(limit, name, manifest, source, baseline, counted, timed)
            if check is not None and accept and check.outcome == "broken" and limit.sort not in _ABSOLUTE:
                check = replace(check, outcome="kept", reason=_ACCEPTED)
            if check is not None:
                checks.append(check)
    return tuple(checks)


def without_baseline(lock: str) -> LimitCheck:
    """Return the check of an artifact that the lock does not have: it cannot have moved, and nobody looked at it."""
    return LimitCheck(
        figure=BASELINE,
        unit="",
        limit="in the lock",
        line=None,
        baseline=None,
        value="missing",
        change=None,
        outcome="broken",
        reason=f"{lock} does not have it; {_UPDATE}",
    )


def other_source(limit: Limit, baseline: Locked, source: str | None) -> LimitCheck:
    """Return the check of what an artifact is made of, `source` as in the lock, beside the baseline's."""
    return _identity(limit, baseline.source, source)


def _one(
    limit: Limit,
    name: str,
    manifest: Manifest,
    source: str | None,
    baseline: Locked | None,
    counted: Counted,
    timed: Timed,
) -> LimitCheck | None:
    if limit.sort == "same":
        if baseline is None:
            return None
        if name == "precision":
            return _identity(limit, baseline.precision, manifest.precision)
        return other_source(limit, baseline, source)
    if name == LATENCY:
        return None if baseline is None else _latency(limit, timed)
    if name == INSTRUCTIONS:
        return _instructions(limit, baseline, counted)
    figure = FIGURES[name]
    value, before = figure.read(manifest), None if baseline is None else baseline.figures.get(name)
    if limit.sort in _RELATIVE and before is None:
        if baseline is None or value is None:
            return None
        return _check(limit, figure, None, value, "broken", f"the lock has no {name}; {_UPDATE}")
    if value is None:  # a stable figure that was known, or that a limit was put on, and is not known now
        return _check(limit, figure, before, None, "broken", _unknown(name, manifest))
    return _check(limit, figure, before, value, _outcome(limit, figure, before, value), None)


def _outcome(limit: Limit, figure: Figure, before: float | None, value: float) -> Outcome:
    """Compare exact fractions of the figures as they are written."""
    now = Fraction(str(value))
    if limit.sort == "at most":
        return "kept" if now <= limit.amount else "broken"
    if limit.sort == "at least":
        return "kept" if now >= limit.amount else "broken"
    was = Fraction(str(before))
    allowed = limit.amount * abs(was) if limit.sort == "share of the baseline" else limit.amount
    worse = now - was if figure.lower_is_better else was - now
    return "kept" if worse <= allowed else "broken"


def _check(
    limit: Limit, figure: Figure, before: float | None, value: float | None, outcome: Outcome, reason: str | None
) -> LimitCheck:
    # Of shares the difference counts, and a percentage of a share beside it would only confuse.
    change = None if value is None or not before or figure.kind == "share" else (value - before) / abs(before)
    change = change if change is None or math.isfinite(change) else None
    return LimitCheck(
        figure=figure.name,
        unit=figure.unit,
        limit=limit.text,
        line=limit.line,
        baseline=before,
        value=value,
        change=change,
        outcome=outcome,
        reason=reason,
    )


def _identity(limit: Limit, before: str | None, value: str | None) -> LimitCheck:
    same = before == value and value is not None
    return LimitCheck(
        figure=limit.figure,
        unit="",
        limit=limit.text,
        line=limit.line,
        baseline=None if before is None else before[:_SHORT],
        value=None if value is None else value[:_SHORT],
        change=None,
        outcome="kept" if same else "broken",
        reason=None if same else f"not that of the baseline; {_UPDATE}",
    )


def _instructions(limit: Limit, baseline: Locked | None, counted: Counted) -> LimitCheck | None:
    """Compare counts of the same counter and processor only; otherwise nothing here can tell."""
    figure = FIGURES[INSTRUCTIONS]
    known = {} if baseline is None else baseline.instructions
    before = None if counted.by is None else known.get(counted.by)
    number = counted.number
    if number is None and before is not None:  # of the artifact of the baseline itself
        if limit.sort in _RELATIVE:
            return _check(limit, figure, None, None, "kept", counted.reason)
        number = before
    if number is None:
        return None if counted.reason is None else _check(limit, figure, None, None, "unknown", counted.reason)
    if limit.sort not in _RELATIVE or before is not None:
        return _check(
            limit, figure, before, number, _outcome(limit, figure, before, number), f"counted by {counted.by}"
        )
    if baseline is None:
        return None
    others = ", ".join(sorted(known)) or "nothing"
    reason = f"counted by {counted.by}; the baseline was counted by {others}, and only like is compared with like"
    return _check(limit, figure, None, number, "unknown", reason)


def _latency(limit: Limit, timed: Timed) -> LimitCheck:
    """Judge by the interval of the ratio: a limit is broken where all of the interval lies beyond it."""
    comparison = timed.comparison
    ratio = None if comparison is None else comparison.ratio
    outcome: Outcome = "kept" if timed.is_same_file else "unknown"
    reason = timed.reason
    if comparison is not None and ratio is not None and comparison.low is not None and comparison.high is not None:
        allowed = 1 + float(limit.amount)
        interval = f"{ratio:.3f} times the baseline's time ({comparison.low:.3f} to {comparison.high:.3f}, 95 %)"
        interval += f" on {comparison.executed_on[1]}" if comparison.executed_on else ""
        if comparison.low > allowed:
            outcome, reason = "broken", f"{interval}, more than {allowed:g}"
        elif comparison.high <= allowed:
            outcome, reason = "kept", interval
        else:
            reason = f"{interval}: too noisy to tell"
    return LimitCheck(
        figure=LATENCY,
        unit="times",
        limit=limit.text,
        line=limit.line,
        baseline=None,
        value=None if ratio is None else round(ratio, 3),
        change=None if ratio is None else ratio - 1,
        outcome=outcome,
        reason=reason,
    )


def _unknown(name: str, manifest: Manifest) -> str:
    if name in ("top10_overlap", "kendall_tau"):
        return manifest.parity.ranking_reason or "its ranking was not compared with torch's"
    if name == "memory" and manifest.memory is not None and manifest.memory.reason:
        return manifest.memory.reason
    return "it could not be counted in this file"
