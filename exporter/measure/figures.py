"""The figures of an artifact as the sections of its manifest: FLOPs, memory, latency, growth per token, network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from exporter.core.types import Lowered, PairedTimes, RunResult
from exporter.measure import flops as formulas
from exporter.measure import latency as statistics
from exporter.measure import memory as division
from exporter.measure.growth import Line, line, steps
from exporter.measure.network import transfers

Section = dict[str, Any]

UNIT = "1 FLOP is one multiply or one add; 1 MAC is 2 FLOPs"
_RSS = (
    "resident set of a process that only loads the artifact and runs it: its peak (VmHWM), what it was with the runtime"
    " imported and nothing loaded, and the difference, in bytes"
)
_GROWING = ("flops", "macs", "planned_activation_bytes", "artifact_rss_bytes", "p50_us")


def flops(lowered: Lowered) -> Section:
    """Count the lowered graph: totals, by kind, by operation, and which operations each delegate took."""
    counted = formulas.count(lowered.operations)
    return {
        "unit": UNIT,
        "total": counted.total,
        "macs": counted.macs,
        "moved_bytes": counted.moved_bytes,
        "uncounted": [{"operation": name, "count": number} for name, number in counted.uncounted.items()],
        "by_kind": dict(counted.by_kind),
        "delegates": _delegates(lowered, counted),
        "by_operation": [
            {
                "name": row.name,
                "operation": row.native,
                "kind": row.kind,
                "delegate": row.delegate,
                **asdict(row.cost),
            }
            for row in counted.by_operation
        ],
    }


def _delegates(lowered: Lowered, counted: formulas.FlopCount) -> list[Section]:
    """Return a row for each delegate, null for the runtime's own kernels: what it took, and what that costs."""
    taken: dict[str | None, Counter[str]] = {}
    for operation in lowered.operations:
        taken.setdefault(operation.delegate, Counter())[operation.native] += 1
    costs: Counter[str | None] = Counter()
    for row in counted.by_operation:
        costs[row.delegate] += row.cost.flops
    return [
        {"delegate": delegate, "operations": dict(names.most_common()), "flops": costs[delegate]}
        for delegate, names in taken.items()
    ]


def memory(lowered: Lowered, inputs: Sequence[str], result: RunResult | None, reason: str | None) -> Section:
    """Give constants by their use, planned memory, and that of the process, where the runtime itself ran in one."""
    plan, parts = lowered.memory_plan, division.parts(lowered, inputs)
    peak, baseline = (result.peak_rss_bytes, result.baseline_rss_bytes) if result else (None, None)
    without = None if peak is not None else (result.reason if result else reason)
    return {
        "constant_bytes": plan.constant_bytes,
        **asdict(parts),
        "planned_activation_bytes": plan.planned_activation_bytes,
        "plan_method": plan.plan_method,
        "peak_rss_bytes": peak,
        "baseline_rss_bytes": baseline,
        "artifact_rss_bytes": None if peak is None or baseline is None else peak - baseline,
        "rss_method": _RSS,
        "reason": "; ".join(filter(None, (plan.reason, without))) or None,
    }


def latency(result: RunResult | None, reason: str | None, warmup: int) -> Section:
    """Give percentiles of the timed calls, load and first call apart; null and a reason where nothing was timed.

    `instructions` are the processor's for one call, where it is an emulated one; `conditions` what the device said of
    its state while it was timed.
    """
    keys = ("connection", "threads", "warmup", "iterations", "load_ms", "first_us", "p50_us", "p90_us", "p99_us")
    told = {
        "instructions": result.instructions if result else None,
        "conditions": dict(result.conditions) if result else {},
    }
    if result is None or not result.samples_us:
        return {**dict.fromkeys(keys), **told, "reason": reason if result is None else result.reason}
    percentiles = statistics.summarize(result.samples_us)
    values = (result.connection, result.threads, warmup, len(result.samples_us), result.load_ms, result.first_us)
    return {
        **dict(zip(keys, (*values, percentiles.p50, percentiles.p90, percentiles.p99), strict=True)),
        **told,
        "reason": result.reason,
    }


def point(tokens: int, counted: Section, measured: Section, timed: Section) -> Section:
    """Return the figures of one history length from the sections of an artifact of that length."""
    return {
        "tokens": tokens,
        "flops": counted["total"],
        "macs": counted["macs"],
        "planned_activation_bytes": measured.get("planned_activation_bytes"),
        "artifact_rss_bytes": measured.get("artifact_rss_bytes"),
        "p50_us": timed.get("p50_us"),
        "reason": timed.get("reason"),
    }


def per_token(state: Mapping[str, str], total: int, found: Section) -> Section:
    """Return the FLOPs of one more click: a whole call's where a program keeps a state, else the slope over lengths.

    `found` has the lines of a growth, or the reason why it has none.
    """
    if state:
        return {"per_token": total, "per_token_method": "one call is one click", "per_token_reason": None}
    if found["lines"] is None:
        return {"per_token": None, "per_token_method": None, "per_token_reason": found["reason"]}
    lengths = ", ".join(str(point["tokens"]) for point in found["points"])
    return {
        "per_token": found["lines"]["flops"]["per_token"],
        "per_token_method": f"least-squares slope over lengths {lengths} of the lowered graph's FLOPs",
        "per_token_reason": None,
    }


def growth(points: Sequence[Section]) -> Section:
    """Fit a line through each figure of points of at least two lengths; null where a length has no such figure."""
    points = sorted(points, key=lambda one: int(one["tokens"]))
    lengths = [one["tokens"] for one in points]
    lines: dict[str, Section | None] = {}
    for name in _GROWING:
        figures = [one[name] for one in points]
        if any(figure is None for figure in figures):
            lines[name] = None
            continue
        fitted: Line = line(dict(zip(lengths, figures, strict=True)))
        lines[name] = {**asdict(fitted), "steps": steps(figures, lengths)}
    return {"method": "least squares over artifacts lowered for each length", "points": list(points), "lines": lines}


def network(
    up: Mapping[str, int], down: Mapping[str, int], links: Sequence[Section], device_us: float | None
) -> Section:
    """Give the bytes of a program's exchange by tensor, and its time over each link beside the device's own time."""
    sent, received = sum(up.values()), sum(down.values())
    rows = []
    for transfer in transfers(sent, received, links):
        calls = None if device_us is None else transfer.total_ms * 1e3 / device_us
        rows.append({**asdict(transfer), "device_calls_meanwhile": calls})
    return {
        "method": "tensors as they are, without framing; bytes over bandwidth plus the round trip",
        "up": dict(up),
        "down": dict(down),
        "up_bytes": sent,
        "down_bytes": received,
        "device_us": device_us,
        "links": rows,
    }


def comparison(first: str, second: str, times: PairedTimes) -> Section:
    """Say which of two artifacts is faster, if the samples allow it; `ratio` is the second's time to the first's."""
    found = statistics.compare_pairs(times.first_us, times.second_us)
    medians = [statistics.summarize(samples).p50 for samples in (times.first_us, times.second_us)]
    names = {"first": first, "second": second, None: None}
    return {
        "method": "called in turn in one process; median of the pairs' ratios, 95 % interval by block bootstrap",
        "first": first,
        "second": second,
        "executed_on": list(times.executed_on),
        "threads": list(times.threads),
        "p50_us": medians,
        "ratio": found.ratio,
        "low": found.low,
        "high": found.high,
        "pairs": found.pairs,
        "faster": names[found.faster],
        "reason": found.reason,
    }
