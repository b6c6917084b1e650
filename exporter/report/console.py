"""The summary that a person reads: one table, a column per artifact."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.report.units import MISSING, bytes_, count

Document = dict[str, Any]

_STYLES = {"pass": "bold green", "fail": "bold red", "unverified": "bold yellow"}


def print_artifacts(documents: Sequence[Document]) -> None:
    """Print exported or judged artifacts to stdout, one column each, then reasons and places below."""
    console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=False)
    done = [document for document in documents if "error" not in document]
    if done:
        first = done[0]
        title = f"{first['model']}/{first['program']}  profile {first['profile']}  {first['precision']}"
        console.print(Text(title, style="bold"), soft_wrap=True)  # a table's own title is folded to its width
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for document in done:
            table.add_column(document["target"], justify="right")
        for label, cell in _ROWS:
            cells = [cell(document) for document in done]
            if any(str(value) != MISSING for value in cells):
                table.add_row(label, *cells)
        console.print(table)
        console.print()
    for document in done:
        console.print(Text(f"{document['target']}: {document['artifact']}"), soft_wrap=True)
        for note in _notes(document):
            console.print(Text(f"  {note}", style="dim"), soft_wrap=True)
    for document in documents:
        if "error" in document:
            console.print(Text(f"{document['target']}: {document['error']}", style="red"), soft_wrap=True)


def print_rows(rows: Sequence[Document]) -> None:
    """Print a list of equal dictionaries as a table."""
    table = Table(box=None, pad_edge=False)
    for key in rows[0] if rows else ():
        table.add_column(key.replace("_", " "))
    for row in rows:
        table.add_row(*(_plain(value) for value in row.values()))
    Console(file=sys.stdout, highlight=False, markup=False).print(table)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item or 'missing'}" for key, item in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return MISSING if value is None else str(value)


def _verdict(document: Document) -> Text:
    verdict = document["parity"]["verdict"]
    return Text(verdict, style=_STYLES[verdict])


def _number(section: str, key: str, form: Callable[[float], str]) -> Callable[[Document], str]:
    def cell(document: Document) -> str:
        value = document.get(section, {}).get(key)
        return MISSING if value is None else form(value)

    return cell


def _size(document: Document) -> str:
    return bytes_(document["size_bytes"]) if "size_bytes" in document else MISSING


def _structure(document: Document) -> str:
    selection = document.get("selection")
    return MISSING if selection is None else str(selection["structure"])


def _cases(document: Document) -> str:
    cases = document["parity"].get("cases")
    return MISSING if cases is None else f"{cases}"


_ROWS: tuple[tuple[str, Callable[[Document], Any]], ...] = (
    ("verdict", _verdict),
    ("structure", _structure),
    ("golden cases", _cases),
    ("max abs error", _number("parity", "max_abs_error", lambda x: f"{x:.2e}")),
    ("max rel error", _number("parity", "max_rel_error", lambda x: f"{x:.2e}")),
    ("top-10 overlap", _number("parity", "top10_overlap", lambda x: f"{x:.4f}")),
    ("Kendall tau", _number("parity", "kendall_tau", lambda x: f"{x:.6f}")),
    ("smallest gap at rank 10", _number("parity", "flip_margin", lambda x: f"{x:.2e}")),
    ("cases that could flip", _number("parity", "could_flip", lambda x: f"{x:.0f}")),
    ("FLOPs per call", _number("flops", "total", count)),
    ("MACs per call", _number("flops", "macs", count)),
    ("constants", _number("memory", "constant_bytes", bytes_)),
    ("planned activations", _number("memory", "planned_activation_bytes", bytes_)),
    ("peak memory, process", _number("memory", "peak_rss_bytes", bytes_)),
    ("  of it the empty runtime", _number("memory", "baseline_rss_bytes", bytes_)),
    ("model size", _size),
    ("load", _number("latency", "load_ms", lambda x: f"{x:.1f} ms")),
    ("first call", _number("latency", "first_us", lambda x: f"{x:.0f} us")),
    ("latency p50", _number("latency", "p50_us", lambda x: f"{x:.0f} us")),
    ("latency p99", _number("latency", "p99_us", lambda x: f"{x:.0f} us")),
    ("instructions per call", _number("latency", "instructions", count)),
)


def _notes(document: Document) -> list[str]:
    judged = document["parity"]
    notes = [f"ran on {judged['executed_on']}"] if judged.get("executed_on") else []
    if document["source"].get("untrained"):
        notes.append("untrained: weights and histories are drawn, so the rankings say nothing about the model")
    if judged.get("reason"):
        notes.append(f"{judged['verdict']}: {judged['reason']}")
    flops = document.get("flops", {})
    if flops.get("uncounted"):
        listed = ", ".join(f"{row['operation']} x{row['count']}" for row in flops["uncounted"])
        notes.append(f"not in the FLOPs: {listed}")
    notes += _costs(document)
    conditions = document.get("latency", {}).get("conditions")
    if conditions:
        notes.append("timed with " + ", ".join(f"{name} {value}" for name, value in conditions.items()))
    reasons: dict[str, list[str]] = {}
    for section in ("memory", "latency"):
        reason = document.get(section, {}).get("reason")
        if reason:
            reasons.setdefault(reason, []).append(section)
    notes += [f"{' and '.join(sections)}: {reason}" for reason, sections in reasons.items()]
    return notes


def _costs(document: Document) -> list[str]:
    """Say what budgets allow, what the artifact needs, and what fitting it to them cost."""
    notes = []
    for row in document.get("budgets", ()):
        state = {True: "within budget", False: "over budget", None: f"not known: {row['reason']}"}[row["within"]]
        value = MISSING if row["value"] is None else f"{row['value']:,.6g}"
        notes.append(f"{row['budget']}: {value} of {row['limit']:,.6g}, {state}")
    selection = document.get("selection") or {}
    if selection.get("left_out"):
        blocks = ", ".join(map(str, selection["left_out"]))
        agreement = selection["agreement_with_chosen"] or {}
        figures = [
            f"{label} {agreement[key]:.4f}"
            for label, key in (("top-10 overlap", "top10_overlap"), ("Kendall tau", "kendall_tau"))
            if agreement.get(key) is not None
        ]
        with_it = f"; with it {', '.join(figures)}" if figures else ""
        notes.append(f"left out of {selection['chosen']} to fit: block {blocks}{with_it}")
    return notes
