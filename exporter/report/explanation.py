"""Where the error of an artifact comes from, as a person reads it: constants, then values in the order of the graph."""

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from exporter.artifact.results import Explained
from exporter.core.explanation import ConstantLoss, Located, Losses, OffValue, Unmatched
from exporter.core.sections import OperationCost
from exporter.report import terminal
from exporter.report.units import MISSING, added, bytes_, count

_CONSTANTS_SHOWN = 12
_UNMATCHED_SHOWN = 12
_PROGRAM = "(program)"


def print_explanation(explained: Explained) -> None:
    """Print what is known of an artifact's error to stdout."""
    console = terminal.console(soft_wrap=True)
    manifest = explained.manifest
    names = f"{manifest.model}/{manifest.program}  {manifest.target} {manifest.profile} {manifest.precision}"
    verdict = f"{manifest.parity.verdict} when it was judged; here the first {explained.cases} golden cases"
    console.print(Text(f"{names}  {verdict}", style="bold"))
    _print_losses(console, explained.losses)
    _print_located(console, explained.located)
    if explained.operations:
        _print_operations(console, explained.operations)
    if explained.added:
        console.print(Text(added(explained.added), style="yellow"))


def _print_losses(console: Console, losses: Losses) -> None:
    _heading(console, "constants", losses.method)
    if losses.constants:
        shown = losses.constants[:_CONSTANTS_SHOWN]
        columns = ("constant", "module", "read by", "largest change", "share")
        _print_table(console, columns, [_constant_cells(row) for row in shown])
        hidden = len(losses.constants) - _CONSTANTS_SHOWN
        if hidden > 0:
            console.print(f"and {hidden} more, with smaller shares")
    if losses.modules:
        listed = ", ".join(f"{module or _PROGRAM} {_percent(share)}" for module, share in losses.modules.items())
        console.print(f"by module: {listed}")
    if losses.left is not None:
        console.print(
            f"shares of what all of them change of {', '.join(losses.outputs)}; left: {_percent(losses.left)}"
        )
    if losses.of_artifact is not None:
        console.print(f"all of them explain {_percent(losses.of_artifact)} of the artifact's own error")
    _reason(console, losses.reason)


def _print_located(console: Console, located: Located) -> None:
    _heading(console, "values", located.method)
    if located.values:
        columns = (
            "module",
            "operation",
            "in the file",
            "matched by",
            "max abs error",
            "rel RMS",
            "bound",
            "growth",
            "",
        )
        rows = [_cells(row, at == located.first_beyond) for at, row in enumerate(located.values)]
        _print_table(console, columns, rows, ["red" if row.is_beyond else "" for row in located.values])
        console.print(Text(_first(located), style="bold"))
    for constant in located.foreign_constants:
        stands = f", which stands for {constant.likely}" if constant.likely else ""
        words = f"constant {constant.name} {list(constant.shape)} of the file is not the program's{stands}"
        console.print(Text(words, style="bold red"))
    if located.form_error is not None:
        console.print(f"outputs of what is looked into differ from the artifact's own by {located.form_error:.2g}")
    elif located.values:
        console.print("outputs of what is looked into are no numbers that the artifact's own could be compared with")
    _print_unmatched(console, "values of the file that are no value of torch's", located.unmatched)
    _print_unmatched(console, "values of torch's that are none of the file's", located.not_seen)
    _reason(console, located.reason)


def _constant_cells(row: ConstantLoss) -> tuple[str, ...]:
    change = f"{row.overflows} overflow" if row.overflows else _figure(row.max_change)
    return f"{row.name} {list(row.shape)}", row.module or _PROGRAM, row.read_by, change, _percent(row.share)


def _cells(row: OffValue, is_first: bool) -> tuple[str, ...]:
    error = f"{row.not_finite} not finite" if row.not_finite else _figure(row.max_abs_error)
    mark = "first beyond its bound" if is_first else "beyond" if row.is_beyond else ""
    figures = (_figure(row.relative_rms), _figure(row.bound), MISSING if row.growth is None else f"{row.growth:.1f}x")
    operation = f"{row.operation} {list(row.shape)}"
    return (row.module or _PROGRAM, operation, row.own_operation, row.matched_by, error, *figures, mark)


def _first(located: Located) -> str:
    if located.first_beyond is None:
        return "no value is beyond its bound"
    first = located.values[located.first_beyond]
    return f"first beyond its bound: {first.operation} of {first.module or _PROGRAM} ({first.node})"


def _print_unmatched(console: Console, what: str, rows: Sequence[Unmatched]) -> None:
    if rows:
        listed = ", ".join(f"{row.name} ({row.operation})" for row in rows[:_UNMATCHED_SHOWN])
        more = f" and {len(rows) - _UNMATCHED_SHOWN} more" if len(rows) > _UNMATCHED_SHOWN else ""
        console.print(Text(f"{what}: {listed}{more}", style="dim"))


def _print_operations(console: Console, rows: Sequence[OperationCost]) -> None:
    _heading(console, "operations", "the costliest of the file, as the manifest counts them")
    cells = [
        (row.operation, row.name, row.delegate or MISSING, count(row.flops), bytes_(row.moved_bytes)) for row in rows
    ]
    _print_table(console, ("operation", "name", "delegate", "FLOPs", "moved"), cells)


def _print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], styles: Sequence[str] = ()
) -> None:
    """Print rows below their columns; a line is as long as it is, since a name that is cut names nothing."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for cells, style in zip((columns, *rows), ("dim", *(styles or [""] * len(rows))), strict=True):
        padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
        console.print(Text("  ".join(padded).rstrip(), style=style))


def _figure(number: float | None) -> str:
    return MISSING if number is None else f"{number:.2e}"


def _percent(share: float | None) -> str:
    return MISSING if share is None else f"{100 * share:.1f} %"


def _heading(console: Console, name: str, method: str) -> None:
    console.print()
    console.print(Text(name, style="bold"), Text(method, style="dim"))


def _reason(console: Console, reason: str | None) -> None:
    if reason:
        console.print(Text(reason, style="yellow"))
