"""The summary that a person reads: one table, a column per artifact."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Compared, Ranking, Refusal, Result
from exporter.core.types import Row
from exporter.report import terminal
from exporter.report.units import MISSING, added, batch, bytes_, count, needed
from safeio.errors import printable

Section = TypeVar("Section")

_STYLES = {"pass": "bold green", "fail": "bold red", "unverified": "bold yellow"}


def print_artifacts(results: Sequence[Result | Refusal]) -> None:
    """Print exported or judged artifacts to stdout, one column each, then reasons and places below.

    Those of one program, profile and precision have a table together.
    """
    console = terminal.console()
    tables: dict[str, list[Result]] = {}
    for result in results:
        if isinstance(result, Result):
            made = result.manifest
            title = f"{made.model}/{made.program}  profile {made.profile}  {made.precision}{batch(made.batch)}"
            tables.setdefault(title, []).append(result)
    for at, (title, group) in enumerate(tables.items()):
        if at:
            console.print()
        manifests = [result.manifest for result in group]
        _print_table(console, manifests, title, [manifest.target for manifest in manifests])
        for shown in group:
            _print_place(console, shown)
    for result in results:
        if isinstance(result, Refusal):
            console.print(Text(f"{result.target}: {result.error}", style="red"), soft_wrap=True)


def _print_place(console: Console, result: Result) -> None:
    """Print where an artifact lies, and what is to be said of it that stands in no table."""
    console.print(Text(f"{result.manifest.target}: {result.place}"), soft_wrap=True)
    for note in _notes(result.manifest):
        console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
    if result.added:
        console.print(Text(f"  {added(result.added)}", style="yellow"), soft_wrap=True)


def print_comparison(compared: Compared) -> None:
    """Print artifacts of one program side by side, a column each, and which of them to take."""
    console = terminal.console()
    first = compared.manifests[0]
    headings = [f"{m.target}\n{m.profile}\n{m.precision}" for m in compared.manifests]
    _print_table(console, compared.manifests, f"{first.model}/{first.program}{batch(first.batch)}", headings)
    for place, manifest in zip(compared.places, compared.manifests, strict=True):
        console.print(Text(f"{manifest.target} {manifest.precision}: {place}"), soft_wrap=True)
    taken = "none" if compared.best is None else compared.places[compared.best]
    console.print(Text(f"recommended: {taken}: {compared.rule}"), soft_wrap=True)


def _print_table(console: Console, manifests: Sequence[Manifest], title: str, headings: Sequence[str]) -> None:
    console.print(Text(title, style="bold"), soft_wrap=True)  # a table's own title is folded to its width
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for heading in headings:
        table.add_column(heading, justify="right")
    for label, cell in _ROWS:
        cells = [cell(manifest) for manifest in manifests]
        if any(str(value) != MISSING for value in cells):
            table.add_row(label, *cells)
    console.print(table)
    console.print()


def print_rows(rows: Sequence[Row]) -> None:
    """Print a list of equal dictionaries as a table."""
    table = Table(box=None, pad_edge=False)
    for at, key in enumerate(rows[0] if rows else ()):
        # What a row is called by is never cut, however narrow the screen is.
        table.add_column(key.replace("_", " "), no_wrap=at == 0, overflow="ignore" if at == 0 else "ellipsis")
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    terminal.console().print(table)


def print_readiness(rows: Sequence[Row]) -> None:
    """Print what is ready here, and below it, each on a line of its own that can be copied, how to get the rest."""
    print_rows([{key: value for key, value in row.items() if key != "install"} for row in rows])
    for row in rows:
        if row["install"] is not None:
            terminal.console(soft_wrap=True).print(f"{next(iter(row.values()))}: {row['install']}")


def print_ranking(ranking: Ranking) -> None:
    """Print ids with their scores, the best first; `--json` has the ids with what does not print in them."""
    manifest, seen = ranking.manifest, len(ranking.history)
    cut = f", of which the latest {seen} are seen" if ranking.left_out else ""
    lines = [
        f"{manifest.model}/{manifest.program}  {manifest.target}  {manifest.precision}",
        f"{seen + ranking.left_out} clicks{cut}; {ranking.candidates} candidates; ran on {ranking.executed_on}",
        f"{'rank':>4}  {'score':>12}  {'id' if ranking.ids == 'raw' else 'row'}",
    ]
    for place, item in enumerate(ranking.ranked, start=1):
        lines.append(f"{place:>4}  {item.score:>12.6f}  {printable(item.id)}")
    lines += [f"not settled: {choice}" for choice in ranking.unsettled]
    console = terminal.console()
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item or 'missing'}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):  # before and after
        return " -> ".join(f"{part:,}" for part in value)
    if isinstance(value, float):
        return f"{value:.3g}"
    return MISSING if value is None else str(value)


def _verdict(manifest: Manifest) -> Text:
    verdict = manifest.parity.verdict
    return Text(verdict, style=_STYLES[verdict])


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


def _microseconds(value: float) -> str:
    return f"{value:.0f} us"


_ROWS: tuple[tuple[str, Callable[[Manifest], str | Text]], ...] = (
    ("verdict", _verdict),
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
    ("first call", _cell(lambda m: m.latency, lambda section: section.first_us, _microseconds)),
    ("latency p50", _cell(lambda m: m.latency, lambda section: section.p50_us, _microseconds)),
    ("  of it the call itself", _cell(lambda m: m.latency, lambda section: section.call_us, "{:.1f} us".format)),
    ("latency p99", _cell(lambda m: m.latency, lambda section: section.p99_us, _microseconds)),
    ("instructions per call", _cell(lambda m: m.latency, lambda section: section.instructions, count)),
)


def _notes(manifest: Manifest) -> list[str]:
    parity = manifest.parity
    notes = [f"ran on {parity.executed_on}"] if parity.executed_on else []
    if manifest.source.untrained:
        notes.append("untrained: weights and histories are drawn, so the rankings say nothing about the model")
    if manifest.drawn is not None:
        notes.append(
            f"{manifest.drawn.as_they_were} of {manifest.drawn.cases} cases as they were: {manifest.drawn.method}"
        )
    if parity.reason:
        notes.append(f"{parity.verdict}: {parity.reason}")
    if manifest.passed_over is not None:
        tried = "; ".join(f"{row.precision} is {row.reason}" for row in manifest.passed_over)
        notes.append(f"precision auto: {manifest.precision}{f', as {tried}' if tried else ', the mildest'}")
    if parity.ranking_reason and parity.ranking_reason != parity.reason:
        notes.append(f"ranking: not judged, {parity.ranking_reason}")
    if manifest.flops is not None and manifest.flops.uncounted:
        listed = ", ".join(f"{row.operation} x{row.count}" for row in manifest.flops.uncounted)
        notes.append(f"not in the FLOPs: {listed}")
    notes += [f"without the pass {effect.name}: {effect.reason}" for effect in manifest.passes or () if effect.reason]
    return [*notes, *_budget_notes(manifest), *_selection_notes(manifest), *_measuring_notes(manifest)]


def _measuring_notes(manifest: Manifest) -> list[str]:
    """Say under what the artifact was timed, and why something could not be measured; a common reason once."""
    notes = []
    if manifest.latency is not None and manifest.latency.conditions:
        conditions = manifest.latency.conditions
        notes.append("timed with " + ", ".join(f"{name} {value}" for name, value in conditions.items()))
    reasons: dict[str, list[str]] = {}
    for name, section in (("memory", manifest.memory), ("latency", manifest.latency)):
        if section is not None and section.reason:
            reasons.setdefault(section.reason, []).append(name)
    return notes + [f"{' and '.join(sections)}: {reason}" for reason, sections in reasons.items()]


def _budget_notes(manifest: Manifest) -> list[str]:
    """Say what budgets allow and what the artifact needs."""
    notes = []
    for row in manifest.budgets or ():
        state = {True: "within budget", False: "over budget", None: f"not known: {row.reason}"}[row.within]
        notes.append(f"{row.budget}: {needed(row.budget, row.value, row.limit)}, {state}")
    return notes


def _selection_notes(manifest: Manifest) -> list[str]:
    """Say which blocks were left out to fit the budgets, and what that cost."""
    selection = manifest.selection
    if selection is None or not selection.left_out:
        return []
    blocks = ", ".join(map(str, selection.left_out))
    agreement = selection.agreement_with_chosen
    pairs = [("top-10 overlap", agreement.top10_overlap), ("Kendall tau", agreement.kendall_tau)] if agreement else []
    figures = [f"{label} {value:.4f}" for label, value in pairs if value is not None]
    with_it = f"; with it {', '.join(figures)}" if figures else ""
    return [f"left out of {selection.chosen} to fit: block {blocks}{with_it}"]
