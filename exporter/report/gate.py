"""What a person at a terminal reads of the gate: what moved in one table, and why it passes or does not."""

from rich.text import Text

from exporter.artifact.results import Report
from exporter.report import terminal
from exporter.report.standing import (
    LIMIT_COLUMNS,
    has_moved,
    headline,
    limit_cells,
    limits_of,
    standing,
    what_else_moved,
)
from safeio.errors import printable

_STYLES = {"good": "green", "bad": "bold red", "unsure": "bold yellow"}
_OUTCOMES = {"kept": "", "broken": "bold red", "unknown": "yellow"}


def print_check(report: Report) -> None:
    """Print artifacts with how they stand, one table of what moved or is not kept, and what else moved."""
    console = terminal.console(soft_wrap=True)
    for checked in report.artifacts:
        stands = standing(checked)
        console.print(Text(f"{stands.word:<12}", style=_STYLES[stands.tone]), Text(printable(checked.name)), end="")
        console.print(Text(f"  {printable(checked.place or '')}", style="dim"))
        parity = checked.manifest.parity if checked.manifest is not None else None
        reason = checked.error if parity is None else parity.reason if parity.verdict != "pass" else None
        if reason:
            console.print(Text(f"  because: {printable(reason)}", style=_STYLES[stands.tone]))
    _print_moved(report)
    for line in what_else_moved(report):
        console.print(Text(f"also: {printable(line)}", style="yellow"))
    word, counts = headline(report)
    held = [limit.outcome == "kept" for checked in report.artifacts for limit in limits_of(checked)]
    console.print(Text(f"{word}: {counts}; {sum(held)} of {len(held)} limits kept"))


def _print_moved(report: Report) -> None:
    """Print the limits that are not kept or whose figure moved, a line each that is as long as it is.

    No line begins with a name, which could be one that a CI's runner takes for a command.
    """
    console = terminal.console(soft_wrap=True)
    pairs = [(checked, limit) for checked in report.artifacts for limit in limits_of(checked) if has_moved(limit)]
    if not pairs:
        return
    console.print()
    figure, *others, outcome = LIMIT_COLUMNS
    rows = [(outcome, "artifact", figure, *others, "why")]
    for checked, limit in pairs:
        figure, *others, _ = limit_cells(limit)
        where = "" if limit.line is None else f" (line {limit.line})"
        cells = (checked.name, figure, *others[:-1], f"{others[-1]}{where}", limit.reason or "")
        rows.append((limit.outcome, *map(printable, cells)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    styles = ["dim", *(_OUTCOMES[limit.outcome] for _, limit in pairs)]
    for cells, style in zip(rows, styles, strict=True):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        console.print(Text("  ".join(padded).rstrip(), style=style))
    console.print()
