"""The summary that a person reads: one table, a column per artifact."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Compared, Ranking, Refusal, Result
from exporter.core.types import Row
from exporter.report import terminal
from exporter.report.notes import notes
from exporter.report.rows import VERDICT, shown_rows
from exporter.report.units import MISSING, added, batch
from safeio.errors import printable


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
    for note in notes(result.manifest):
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
    for label, cells in shown_rows(manifests):
        styled = [Text(cell, style=terminal.VERDICT_STYLES.get(cell, "") if label == VERDICT else "") for cell in cells]
        table.add_row(label, *styled)
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
