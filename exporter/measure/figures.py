"""The figures of an artifact as the sections of its manifest: FLOPs, memory, latency, growth per click, network."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TypeVar

from exporter.core.sections import (
    Comparison,
    Delegate,
    Flops,
    Growth,
    GrowthLine,
    GrowthLines,
    GrowthPoint,
    Latency,
    Link,
    Memory,
    Network,
    OperationCost,
    PerToken,
    Uncounted,
)
from exporter.core.types import Lowered, PairedTimes, RunResult
from exporter.measure import latency as statistics
from exporter.measure import memory as division
from exporter.measure.flops import FlopCount
from exporter.measure.growth import line, steps
from exporter.measure.network import transfers

Value = TypeVar("Value")

UNIT = "1 FLOP is one multiply or one add; 1 MAC is 2 FLOPs"
_RSS = (
    "resident set of a process that only loads the artifact and runs it: its peak (VmHWM), what it was with the runtime"
    " imported and nothing loaded, and the difference, in bytes"
)
_HEAP = (
    "memory of the runtime's WebAssembly in the page once all cases were computed, in bytes; it grows and never"
    " shrinks, and much of it is there before a model is loaded"
)
_CALL = (
    "p50 of as many calls of a program that adds one to one number, made after the artifact's in the same process, in"
    " the same way"
)


def flops(lowered: Lowered, counted: FlopCount, per_token: PerToken) -> Flops:
    """Give the counts of a lowered graph: totals, by kind, by operation, and what each delegate took."""
    return Flops(
        unit=UNIT,
        total=counted.total,
        macs=counted.macs,
        moved_bytes=counted.moved_bytes,
        uncounted=tuple(Uncounted(name, number) for name, number in counted.uncounted.items()),
        by_kind=dict(counted.by_kind),
        delegates=_delegates(lowered, counted),
        by_operation=tuple(
            OperationCost(row.name, row.native, row.kind, row.delegate, **asdict(row.cost))
            for row in counted.by_operation
        ),
        **asdict(per_token),
    )


def known_per_token(section: Flops | None) -> PerToken:
    """Return what an artifact's section says of one more click, for a section that is counted anew."""
    if section is None:
        return PerToken(per_token=None, per_token_method=None, per_token_reason="it was never counted")
    return PerToken(
        per_token=section.per_token,
        per_token_method=section.per_token_method,
        per_token_reason=section.per_token_reason,
    )


def _delegates(lowered: Lowered, counted: FlopCount) -> tuple[Delegate, ...]:
    """Return a row for each delegate, None for the runtime's own kernels: what it took, and what that costs."""
    taken: dict[str | None, Counter[str]] = {}
    for operation in lowered.operations:
        taken.setdefault(operation.delegate, Counter())[operation.native] += 1
    costs: Counter[str | None] = Counter()
    for row in counted.by_operation:
        costs[row.delegate] += row.cost.flops
    return tuple(Delegate(name, dict(names.most_common()), costs[name]) for name, names in taken.items())


def memory(lowered: Lowered, inputs: Sequence[str], result: RunResult | None, reason: str | None) -> Memory:
    """Give constants by their use, planned memory, and that of the process, where the runtime itself ran in one."""
    plan, parts = lowered.memory_plan, division.parts(lowered, inputs)
    peak, baseline = (result.peak_rss_bytes, result.baseline_rss_bytes) if result else (None, None)
    without = None if peak is not None else ((result.memory_reason or result.reason) if result else reason)
    return Memory(
        constant_bytes=plan.constant_bytes,
        embedding_bytes=parts.embedding_bytes,
        body_bytes=parts.body_bytes,
        head_bytes=parts.head_bytes,
        stored_twice=parts.stored_twice,
        expanded=parts.expanded,
        planned_activation_bytes=plan.planned_activation_bytes,
        plan_method=plan.plan_method,
        peak_rss_bytes=peak,
        baseline_rss_bytes=baseline,
        artifact_rss_bytes=None if peak is None or baseline is None else peak - baseline,
        rss_method=_RSS,
        wasm_heap_bytes=result.wasm_heap_bytes if result else None,
        wasm_heap_method=_HEAP if result and result.wasm_heap_bytes is not None else None,
        reason="; ".join(filter(None, (plan.reason, without))) or None,
    )


def latency(result: RunResult | None, reason: str | None, warmup: int) -> Latency:
    """Give percentiles of the timed calls, load and first call apart; None and a reason where nothing was timed."""
    if result is None:
        return Latency(reason=reason)
    untimed = Latency(
        instructions=result.instructions,
        counted_on=result.counted_on,
        conditions=dict(result.conditions),
        reason=result.reason,
    )
    if not result.samples_us:
        return untimed
    percentiles = statistics.summarize(result.samples_us)
    calls = result.call_samples_us
    return replace(
        untimed,
        call_us=statistics.summarize(calls).p50 if calls else None,
        call_method=_CALL if calls else None,
        reason="; ".join(filter(None, (result.reason, result.call_reason))) or None,
        connection=result.connection,
        threads=result.threads,
        warmup=warmup if result.warmup is None else result.warmup,
        iterations=len(result.samples_us),
        calls_per_sample=result.calls_per_sample if result.calls_per_sample > 1 else None,
        load_ms=result.load_ms,
        first_us=result.first_us,
        p50_us=percentiles.p50,
        p90_us=percentiles.p90,
        p99_us=percentiles.p99,
    )


def point(tokens: int, counted: FlopCount, measured: Memory, timed: Latency) -> GrowthPoint:
    """Return the figures of a program that was lowered for a history of `tokens` clicks."""
    return GrowthPoint(
        tokens=tokens,
        flops=counted.total,
        macs=counted.macs,
        planned_activation_bytes=measured.planned_activation_bytes,
        artifact_rss_bytes=measured.artifact_rss_bytes,
        p50_us=timed.p50_us,
        reason=timed.reason,
    )


def per_token(clicks: int | None, counted: FlopCount, growth: Growth) -> PerToken:
    """Return the FLOPs of one more click: a call's by its `clicks` where a program has a state, else the slope.

    `clicks` is None for a program without a state, and the slope is that over lengths of the history.
    """
    if clicks is not None:
        method = "one call is one click" if clicks == 1 else f"one call is {clicks} clicks"
        each = counted.total if clicks == 1 else counted.total / clicks
        return PerToken(per_token=each, per_token_method=method, per_token_reason=None)
    if growth.lines is None:
        return PerToken(per_token=None, per_token_method=None, per_token_reason=growth.reason)
    lengths = ", ".join(str(point.tokens) for point in growth.points)
    method = f"least-squares slope over lengths {lengths} of the lowered graph's FLOPs"
    return PerToken(per_token=growth.lines.flops.per_token, per_token_method=method, per_token_reason=None)


def growth(points: Sequence[GrowthPoint]) -> Growth:
    """Fit a line through each figure of points of at least two lengths; None where a length has no such figure."""
    points = sorted(points, key=lambda point: point.tokens)
    lengths = [point.tokens for point in points]

    def fitted(figures: Sequence[float]) -> GrowthLine:
        return GrowthLine(
            **asdict(line(dict(zip(lengths, figures, strict=True)))), steps=tuple(steps(figures, lengths))
        )

    def fitted_where_all_are(figures: Sequence[float | None]) -> GrowthLine | None:
        known = [figure for figure in figures if figure is not None]
        return fitted(known) if len(known) == len(figures) else None

    return Growth(
        method="least squares over artifacts lowered for each length",
        points=tuple(points),
        lines=GrowthLines(
            flops=fitted([point.flops for point in points]),
            macs=fitted([point.macs for point in points]),
            planned_activation_bytes=fitted_where_all_are([point.planned_activation_bytes for point in points]),
            artifact_rss_bytes=fitted_where_all_are([point.artifact_rss_bytes for point in points]),
            p50_us=fitted_where_all_are([point.p50_us for point in points]),
        ),
    )


def network(up: Mapping[str, int], down: Mapping[str, int], links: Sequence[Link], timed: Latency) -> Network:
    """Give the bytes of a program's exchange by tensor, and its time over each link beside the device's own time."""
    sent, received = sum(up.values()), sum(down.values())
    device_us, elsewhere = timed.p50_us, timed.connection not in (None, "host")
    return Network(
        method="tensors as they are stored, without framing; bytes over bandwidth plus the round trip"
        + (f"; calls as they were timed over {timed.connection}" if elsewhere else ""),
        up=dict(up),
        down=dict(down),
        up_bytes=sent,
        down_bytes=received,
        device_us=device_us,
        links=transfers(sent, received, links, device_us),
    )


def comparison(first: str, second: str, times: PairedTimes) -> Comparison:
    """Say which of two artifacts is faster, if the samples allow it; `ratio` is the second's time to the first's."""
    compared = statistics.compare_pairs(times.first_us, times.second_us)
    names = {"first": first, "second": second, None: None}
    return Comparison(
        method="called in turn in one process; median of the pairs' ratios, 95 % interval by block bootstrap",
        first=first,
        second=second,
        executed_on=times.executed_on,
        threads=times.threads,
        p50_us=(statistics.summarize(times.first_us).p50, statistics.summarize(times.second_us).p50),
        ratio=compared.ratio,
        low=compared.low,
        high=compared.high,
        pairs=compared.pairs,
        faster=names[compared.faster],
        reason=compared.reason,
    )


def swapped(compared: Comparison) -> Comparison:
    """Return a comparison as it would be with first and second exchanged: the inverse ratio and its interval."""
    if compared.ratio is None or compared.low is None or compared.high is None:
        return replace(compared, first=compared.second, second=compared.first)
    return replace(
        compared,
        first=compared.second,
        second=compared.first,
        executed_on=_turned(compared.executed_on),
        threads=_turned(compared.threads),
        p50_us=_turned(compared.p50_us),
        ratio=1 / compared.ratio,
        low=1 / compared.high,
        high=1 / compared.low,
    )


def together(rounds: Sequence[Comparison]) -> Comparison:
    """Return comparisons of the same two artifacts as one: the median ratio, and an interval that holds all of theirs.

    All of them have a ratio.
    """
    lows, highs = (
        [value for value in side if value is not None] for side in zip(*((c.low, c.high) for c in rounds), strict=True)
    )
    ratios = sorted(compared.ratio for compared in rounds if compared.ratio is not None)
    low, high, first = min(lows), max(highs), rounds[0]
    faster = first.second if high < 1 else first.first if low > 1 else None
    return replace(
        first,
        method=f"{first.method}; the interval of {len(rounds)} processes together, in both orders",
        ratio=ratios[len(ratios) // 2],
        low=low,
        high=high,
        pairs=sum(compared.pairs or 0 for compared in rounds),
        faster=faster,
        reason=None if faster else "the noise is larger than the difference: no verdict",
    )


def _turned(pair: tuple[Value, Value] | None) -> tuple[Value, Value] | None:
    return None if pair is None else (pair[1], pair[0])
