"""The figures of one artifact in the HTML report: its plots, or in words why there is nothing to draw."""

import math
from collections.abc import Sequence

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Checked
from exporter.core.checks import Evidence
from exporter.core.explanation import Located
from exporter.report import plots
from exporter.report.rows import GROWING, figure_at, growth_reasons, growth_rows, timing
from exporter.report.units import MISSING, bytes_, count, microseconds
from exporter.report.views import Cell, Figure, Table

_NO_RUN = "this report was made without running the artifact"
_VALUES_SHOWN = 500
# The plots of what one more click costs: their title, the fields in them, and how these are shown.
_GROWTH_PLOTS = (
    ("Operations per call", ("flops", "macs"), count),
    ("Planned activations", ("planned_activation_bytes",), bytes_),
    ("Latency p50 of a call", ("p50_us",), microseconds),
)


def figures_of(name: str, checked: Checked) -> tuple[Figure, ...]:
    """Return the figures of an artifact, whose names in the page begin with `name`."""
    manifest, evidence = checked.manifest, checked.evidence or Evidence(reason=_NO_RUN)
    if manifest is None:
        return ()
    return (
        _scores(name, manifest, evidence),
        _latency(name, manifest, evidence),
        _memory(name, manifest),
        _links(name, manifest),
        _growth(name, manifest),
        _located(name, evidence.located),
    )


def _scores(name: str, manifest: Manifest, evidence: Evidence) -> Figure:
    title = "Scores beside torch's"
    pairs = [pair for pair in zip(evidence.torch, evidence.artifact, strict=False) if all(map(math.isfinite, pair))]
    if not pairs:
        return Figure(title, reasons=(evidence.reason or "no scores are known",))
    parity = manifest.parity
    output = manifest.ranking or manifest.outputs[0].name
    allowed = parity.tolerance.max_abs_error.get(output) if parity.tolerance is not None else None
    words = ["How far each score of the artifact is from torch's, logarithmic away from 0."]
    if parity.flip_margin:
        words.append(
            "Two candidates can change places at rank 10 only where a score leaves the band: half the smallest gap"
            f" between torch's 10th and 11th, which is {parity.flip_margin:.2e}."
        )
    if parity.flip_margin == 0:
        words.append("There is a case in which torch's 10th and 11th score are equal, so that any error may flip them.")
    words += [f"Drawn: {evidence.sampling}."] if evidence.sampling else []
    words += [f"Ran for this report on {evidence.executed_on}."] if evidence.executed_on else []
    left = len(evidence.torch) - len(pairs)
    words += [f"{left} pairs that are not finite are left out."] if left else []
    return Figure(title, " ".join(words), (plots.errors(f"{name}-scores", pairs, parity.flip_margin, allowed),))


def _latency(name: str, manifest: Manifest, evidence: Evidence) -> Figure:
    title, latency = "Latency", manifest.latency
    samples = [sample for sample in evidence.samples_us if math.isfinite(sample)]
    reasons = [latency.reason] if latency is not None and latency.reason else []
    if not samples:
        return Figure(title, reasons=tuple(reasons or [evidence.reason or "no calls were timed"]))
    batch = None if latency is None else latency.calls_per_sample
    each = "calls" if batch is None else f"means of {batch} calls each"
    words = [f"{len(samples):,} {each} of the run for this report" + _on(evidence.executed_on)]
    marks: list[tuple[str, float | None]] = []
    if latency is not None and latency.p50_us is not None:
        marks = [("p50", latency.p50_us), ("p90", latency.p90_us), ("p99", latency.p99_us)]
        words.append(f"Lines: the manifest's figures, {timing(latency)}.")
    return Figure(title, " ".join(words), (plots.latencies(f"{name}-latency", samples, marks),), reasons=tuple(reasons))


def _on(executed_on: str | None) -> str:
    return f", on {executed_on}." if executed_on else "."


def _growth(name: str, manifest: Manifest) -> Figure:
    title, growth, flops = "Cost per click", manifest.growth, manifest.flops
    if growth is None or not growth.points or growth.lines is None:
        reason = growth.reason if growth is not None else flops.per_token_reason if flops is not None else None
        return Figure(title, reasons=(reason or "it was not measured: see `cocorr-export profile`",))
    labels = {key: label for label, key, _ in GROWING}
    drawings, reasons = [], []
    for at, (words, keys, form) in enumerate(_GROWTH_PLOTS):
        there = [(labels[key], key) for key in keys if any(figure_at(p, key) is not None for p in growth.points)]
        if there:
            drawings.append(plots.growth(f"{name}-growth-{at + 1}", words, growth, there, form))
        else:
            reasons.append(f"{words}: no length has a figure")
    header, *rows = growth_rows(growth)
    table = Table(f"{name}-per-click", "Figures at each length, and the line through them", *_body(header, rows))
    users = "" if manifest.batch is None else f", of {manifest.batch} users"
    caption = f"Lines: {growth.method or 'nothing says how they were fitted'}{users}."
    reasons += [growth_reasons(growth)] if growth_reasons(growth) else []
    return Figure(title, caption, tuple(drawings), table, tuple(reasons))


def _body(header: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[tuple[Cell, ...], ...]]:
    cells = tuple((Cell(row[0]), *(Cell(text, is_figure=True) for text in row[1:])) for row in rows)
    return (header[0] or "figure", *header[1:]), cells


def _memory(name: str, manifest: Manifest) -> Figure:
    title, memory = "Memory", manifest.memory
    if memory is None:
        return Figure(title, reasons=("nothing counted it",))
    parts = (
        ("embeddings", memory.embedding_bytes),
        ("body", memory.body_bytes),
        ("head", memory.head_bytes),
        ("planned activations", memory.planned_activation_bytes),
    )
    process = (("the empty runtime", memory.baseline_rss_bytes), ("the artifact", memory.artifact_rss_bytes))
    reasons = [f"{label}: not known" for label, size in parts if size is None]
    reasons += [memory.reason] if memory.reason else []
    drawings = []
    for at, (words, rows) in enumerate(
        (("Constants and planned activations", parts), ("Peak of the process", process))
    ):
        sizes = [(label, float(size), bytes_(size)) for label, size in rows if size is not None and size >= 0]
        if any(size for _, size, _ in sizes):
            drawings.append(plots.parts(f"{name}-memory-{at + 1}", words, sizes))
    peak = f", the process at its peak {bytes_(memory.peak_rss_bytes)}" if memory.peak_rss_bytes is not None else ""
    caption = f"Constants {bytes_(memory.constant_bytes)}{peak}."
    return Figure(title, caption, tuple(drawings), reasons=tuple(reasons))


def _located(name: str, located: Located | None) -> Figure:
    title = "Error of each value inside"
    if located is None or not located.values:
        reason = located.reason if located is not None else None
        return Figure(title, reasons=(reason or "nobody looked inside: see `cocorr-export explain`",))
    rows = tuple(
        (
            Cell(str(at), at, is_figure=True),
            Cell(value.module or "(program)"),
            Cell(f"{value.operation} {list(value.shape)}"),
            Cell(value.own_operation),
            Cell(_size(value.max_abs_error), value.max_abs_error, is_figure=True),
            Cell(_size(value.relative_rms), value.relative_rms, is_figure=True),
            Cell(_size(value.bound), value.bound, is_figure=True),
            Cell(
                f"beyond, {value.not_finite} not finite"
                if value.not_finite
                else "beyond"
                if value.is_beyond
                else "within",
                int(not value.is_beyond),
                "bad" if value.is_beyond else "good",
            ),
        )
        for at, value in enumerate(located.values[:_VALUES_SHOWN])
    )
    columns = ("value", "module", "operation", "in the file", "max abs error", "relative RMS", "bound", "outcome")
    left = len(located.values) - len(rows)
    reasons = (f"{left} more values are drawn and not listed",) if left > 0 else ()
    return Figure(
        title,
        f"Seen: {located.method}{_on(located.executed_on)} An error of 0 stands at the lower edge.",
        (plots.located(f"{name}-located", located.values, located.first_beyond),),
        Table(f"{name}-values", "Values in the order of torch's graph", columns, rows, is_sortable=True),
        (*reasons, *((located.reason,) if located.reason else ())),
    )


def _size(number: float | None) -> str:
    return MISSING if number is None else f"{number:.2e}"


def _links(name: str, manifest: Manifest) -> Figure:
    title, network, exchange = "Links of the device", manifest.network, manifest.exchange
    if network is None:
        crosses = exchange is not None and (exchange.up or exchange.down)
        reason = (
            "it was not counted: see `cocorr-export profile`"
            if crosses
            else "nothing of this program crosses a network"
        )
        return Figure(title, reasons=(reason,))
    words = f"{network.up_bytes:,} B up, {network.down_bytes:,} B down: {network.method}."
    if not network.links:
        return Figure(title, words, reasons=("the profile of this artifact names no links",))
    rows = tuple(
        (
            Cell(link.link),
            *(
                Cell(MISSING if value is None else f"{value:,.3f} ms", value, is_figure=True)
                for value in (link.up_ms, link.down_ms, link.round_trip_ms, link.total_ms)
            ),
            Cell(
                MISSING if link.device_calls_meanwhile is None else f"{link.device_calls_meanwhile:,.1f}",
                link.device_calls_meanwhile,
                is_figure=True,
            ),
        )
        for link in network.links
    )
    columns = ("link", "up", "down", "round trip", "in all", "calls meanwhile")
    table = Table(f"{name}-links", "One exchange over each link", columns, rows, is_sortable=True)
    return Figure(title, words, (plots.links(f"{name}-network", network.links),), table)
