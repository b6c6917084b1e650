"""The figures of an artifact as a person reads them, one list for all reports, and how each was had."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from exporter.artifact.manifest import Manifest
from exporter.core.sections import Growth, GrowthLine, GrowthPoint, Latency
from exporter.report.units import MISSING, bytes_, count, microseconds

Section = TypeVar("Section")
VERDICT = "verdict"
_PLACE = "  timed over"


def _cell(
    section: Callable[[Manifest], Section | None],
    figure: Callable[[Section], float | None],
    form: Callable[[float], str],
) -> Callable[[Manifest], str]:
    """Return what shows a figure of a section, and a dash where there is none."""

    def cell(manifest: Manifest) -> str:
        part = section(manifest)
        value = None if part is None else figure(part)
        return MISSING if value is None else form(value)

    return cell


def _whole_microseconds(value: float) -> str:
    return f"{value:.0f} us"


ROWS: tuple[tuple[str, Callable[[Manifest], str]], ...] = (
    (VERDICT, lambda m: m.parity.verdict),
    ("structure", lambda m: MISSING if m.selection is None else m.selection.structure),
    ("golden cases", _cell(lambda m: m.parity, lambda section: section.cases, str)),
    ("max abs error", _cell(lambda m: m.parity, lambda section: section.max_abs_error, "{:.2e}".format)),
    ("max rel error", _cell(lambda m: m.parity, lambda section: section.max_rel_error, "{:.2e}".format)),
    ("top-10 overlap", _cell(lambda m: m.parity, lambda section: section.top10_overlap, "{:.4f}".format)),
    ("  beside tables in fp32", _cell(lambda m: m.parity.scheme, lambda part: part.top10_overlap, "{:.4f}".format)),
    ("Kendall tau", _cell(lambda m: m.parity, lambda section: section.kendall_tau, "{:.6f}".format)),
    ("  beside tables in fp32", _cell(lambda m: m.parity.scheme, lambda part: part.kendall_tau, "{:.6f}".format)),
    ("smallest gap at rank 10", _cell(lambda m: m.parity, lambda section: section.flip_margin, "{:.2e}".format)),
    ("cases that could flip", _cell(lambda m: m.parity, lambda section: section.could_flip, "{:.0f}".format)),
    ("FLOPs per call", _cell(lambda m: m.flops, lambda section: section.total, count)),
    ("MACs per call", _cell(lambda m: m.flops, lambda section: section.macs, count)),
    ("constants", _cell(lambda m: m.memory, lambda section: section.constant_bytes, bytes_)),
    ("planned activations", _cell(lambda m: m.memory, lambda section: section.planned_activation_bytes, bytes_)),
    ("peak memory, process", _cell(lambda m: m.memory, lambda section: section.peak_rss_bytes, bytes_)),
    ("  of it the empty runtime", _cell(lambda m: m.memory, lambda section: section.baseline_rss_bytes, bytes_)),
    ("model size", lambda m: bytes_(m.size_bytes)),
    ("load", _cell(lambda m: m.latency, lambda section: section.load_ms, "{:.1f} ms".format)),
    ("first call", _cell(lambda m: m.latency, lambda section: section.first_us, _whole_microseconds)),
    ("latency p50", _cell(lambda m: m.latency, lambda section: section.p50_us, _whole_microseconds)),
    (_PLACE, lambda m: MISSING if m.latency is None else m.latency.connection or MISSING),
    ("  of it the call itself", _cell(lambda m: m.latency, lambda section: section.call_us, "{:.1f} us".format)),
    ("latency p99", _cell(lambda m: m.latency, lambda section: section.p99_us, _whole_microseconds)),
    ("instructions per call", _cell(lambda m: m.latency, lambda section: section.instructions, count)),
)
"""Label and text of each figure. A label that begins with spaces belongs to the row above it."""

GROWING: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("FLOPs", "flops", count),
    ("MACs", "macs", count),
    ("planned", "planned_activation_bytes", bytes_),
    ("peak memory", "artifact_rss_bytes", bytes_),
    ("latency p50", "p50_us", microseconds),
)
"""What grows per click: its label, the field that points and lines have it in, and how it is shown."""


def shown_rows(manifests: Sequence[Manifest]) -> list[tuple[str, list[str]]]:
    """Return the rows in which at least one of these artifacts has a figure, each with a text for every artifact.

    That times were taken on this host goes without saying, where none of them was taken elsewhere.
    """
    rows = [(label, [cell(manifest) for manifest in manifests]) for label, cell in ROWS]
    elsewhere = any(one.latency is not None and one.latency.connection not in (None, "host") for one in manifests)
    return [
        (label, cells)
        for label, cells in rows
        if (elsewhere if label == _PLACE else any(cell != MISSING for cell in cells))
    ]


def whole_label(label: str) -> str:
    """Return the label of a row for where spaces before it say nothing."""
    return f"… {label.strip()}" if label.startswith(" ") else label


def growth_rows(growth: Growth) -> list[list[str]]:
    """Return the figures over the lengths, a header first: of each its points, then its line and how well that fits."""
    lines, points = growth.lines, growth.points
    if lines is None:
        return []
    rows = [["", *(f"N={point.tokens}" for point in points), "per click", "R2"]]
    for label, key, form in GROWING:
        shown = [form(figure_at(point, key)) for point in points]
        rows.append([label, *shown, *_line_cells(line_of(growth, key), form)])
    return rows


def figure_at(point: GrowthPoint, key: str) -> float | None:
    """Return the figure of one length that GROWING names."""
    figure: float | None = getattr(point, key)
    return figure


def line_of(growth: Growth, key: str) -> GrowthLine | None:
    """Return the line through the figures that GROWING names, None where not all lengths have them."""
    line: GrowthLine | None = getattr(growth.lines, key, None)
    return line


def growth_reasons(growth: Growth) -> str:
    """Say of which lengths there is no time, and why; a reason that all share is the latency's, and stands there."""
    reasons = [f"N={point.tokens}: {point.reason}" for point in growth.points if point.p50_us is None]
    return "; ".join(reasons) if len(reasons) < len(growth.points) else ""


def _line_cells(line: GrowthLine | None, form: Callable[[float | None], str]) -> tuple[str, str]:
    if line is None:
        return MISSING, MISSING
    return form(line.per_token), MISSING if line.r_squared is None else f"{line.r_squared:.4f}"


def timing(latency: Latency) -> str:
    """Return how the times of an artifact were taken."""
    each = "calls" if latency.calls_per_sample is None else f"means of {latency.calls_per_sample} calls"
    calls = f"{latency.iterations} {each} after {latency.warmup} to warm up"
    threads = f"{latency.threads or 'its own'} thread{'' if latency.threads == 1 else 's'}"
    return f"{latency.connection}, {threads}, {calls}"


def methods(manifest: Manifest) -> list[tuple[str, str]]:
    """Return how the figures of an artifact were had: what is meant, and the method."""
    parity, flops, memory, latency = manifest.parity, manifest.flops, manifest.memory, manifest.latency
    compared = None
    if parity.cases is not None:
        where = f", on {parity.executed_on}" if parity.executed_on else ""
        compared = f"the artifact's outputs beside torch's for {parity.cases} golden cases{where}"
    had = (
        ("errors and ranking", compared),
        ("FLOPs, MACs", flops and f"{flops.unit}; counted in the artifact's own file"),
        ("planned activations", memory and memory.plan_method),
        ("peak memory, process", memory and memory.rss_method),
        ("memory of WebAssembly", memory and memory.wasm_heap_method),
        ("latency", timing(latency) if latency is not None and latency.p50_us is not None else None),
        ("the call itself", latency and latency.call_method),
        ("per click", manifest.growth and manifest.growth.method),
        ("network", manifest.network and manifest.network.method),
    )
    return [(what, method) for what, method in had if method]
