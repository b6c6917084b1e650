"""What a person reads of an artifact's figures, on one screen: each with its unit, its method or why it is missing."""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.report.units import MISSING, bytes_, count, microseconds

Document = Mapping[str, Any]

_KINDS_SHOWN = 8
_GROWING = (
    ("FLOPs", "flops", count),
    ("MACs", "macs", count),
    ("planned", "planned_activation_bytes", bytes_),
    ("peak memory", "artifact_rss_bytes", bytes_),
    ("latency p50", "p50_us", microseconds),
)


def print_profile(document: Document) -> None:
    """Print the figures of one artifact to stdout."""
    console = Console(file=sys.stdout, highlight=False, markup=False, soft_wrap=True)
    names = " ".join(str(document[key]) for key in ("target", "profile", "precision"))
    parity = document["parity"]
    title = f"{document['model']}/{document['program']}  {names}  parity {parity['verdict']}"
    console.print(Text(title, style="bold"))
    if parity["verdict"] != "pass":
        _reason(console, parity["reason"])
    for print_part in (_print_costs, _print_memory, _print_latency, _print_growth, _print_network, _print_comparison):
        print_part(console, document)
    console.print(Text(f"written to {document['artifact']}/manifest.json", style="dim"))


def _print_costs(console: Console, document: Document) -> None:
    flops = document["flops"]
    _heading(console, "compute", flops["unit"])
    totals = (
        f"{count(flops['total'])} FLOPs, {count(flops['macs'])} MACs, {bytes_(flops['moved_bytes'])} moved per call"
    )
    if flops["per_token"] is not None:
        totals += f"; {count(flops['per_token'])} FLOPs per click"
    hooks = document["growth"]["module_hook_macs_per_token"]
    console.print(totals)
    if hooks is not None:
        console.print(f"module-hook count: {hooks:,.0f} MACs per click; what forward computes itself is not in it")
    kinds = list(flops["by_kind"].items())
    shown = [f"{kind} {count(number)}" for kind, number in kinds[:_KINDS_SHOWN] if number]
    rest = sum(number for _, number in kinds[_KINDS_SHOWN:])
    console.print("by kind: " + ", ".join(shown) + (f", others {count(rest)}" if rest else ""))
    for row in flops["delegates"]:
        listed = ", ".join(f"{name} x{number}" for name, number in row["operations"].items())
        taken = row["delegate"] or "the runtime's own kernels"
        console.print(f"{taken}: {count(row['flops'])} FLOPs in {listed}")
    if flops["uncounted"]:
        listed = ", ".join(f"{row['operation']} x{row['count']}" for row in flops["uncounted"])
        console.print(Text(f"not counted: {listed}", style="bold yellow"))


def _print_memory(console: Console, document: Document) -> None:
    memory = document["memory"]
    _heading(console, "memory", memory["plan_method"])
    constants = f"constants {bytes_(memory['constant_bytes'])}"
    parts = ", ".join(f"{part} {bytes_(memory[f'{part}_bytes'])}" for part in ("embedding", "body", "head"))
    console.print(f"{constants}: {parts}; planned activations {bytes_(memory['planned_activation_bytes'])}")
    console.print(
        f"process: peak {bytes_(memory['peak_rss_bytes'])}, of it the empty runtime"
        f" {bytes_(memory['baseline_rss_bytes'])}, the artifact {bytes_(memory['artifact_rss_bytes'])}"
    )
    for twice in memory["stored_twice"]:
        console.print(f"stored twice: {' and '.join(twice['names'])}, {bytes_(twice['bytes'])} each")
    for grown in memory["expanded"]:
        sources = ", ".join(grown["constants"])
        console.print(f"expanded in each run: {sources} by {grown['operation']} to {bytes_(grown['bytes'])}")
    _reason(console, memory["reason"])


def _print_latency(console: Console, document: Document) -> None:
    latency = document["latency"]
    if latency["p50_us"] is None:
        _heading(console, "latency", "")
    else:
        calls = f"{latency['iterations']} calls after {latency['warmup']} to warm up"
        _heading(console, "latency", f"{latency['connection']}, {latency['threads'] or 'its own'} threads, {calls}")
        centiles = ", ".join(f"p{part} {microseconds(latency[f'p{part}_us'])}" for part in (50, 90, 99))
        console.print(f"load {latency['load_ms']:.1f} ms, first call {microseconds(latency['first_us'])}, {centiles}")
    if latency.get("instructions") is not None:
        console.print(f"{latency['instructions']:,} instructions per call")
    if latency.get("conditions"):
        console.print(", ".join(f"{name} {value}" for name, value in latency["conditions"].items()))
    _reason(console, latency["reason"])


def _print_growth(console: Console, document: Document) -> None:
    growth = document["growth"]
    if growth["lines"] is None:
        _heading(console, "per click", "")
        _reason(console, growth["reason"])
        return
    _heading(console, "per click", growth["method"])
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for point in growth["points"]:
        table.add_column(f"N={point['tokens']}", justify="right")
    for name in ("per click", "R2"):
        table.add_column(name, justify="right")
    for label, key, form in _GROWING:
        fitted = growth["lines"][key]
        cells = [form(point[key]) for point in growth["points"]]
        if fitted is None:
            table.add_row(label, *cells, MISSING, MISSING)
            continue
        r_squared = MISSING if fitted["r_squared"] is None else f"{fitted['r_squared']:.4f}"
        table.add_row(label, *cells, form(fitted["per_token"]), r_squared)
    console.print(table)
    between = ", ".join(count(step) for step in growth["lines"]["flops"]["steps"])
    console.print(f"FLOPs per click from point to point: {between}")
    reasons = [f"N={point['tokens']}: {point['reason']}" for point in growth["points"] if point["p50_us"] is None]
    if len(reasons) < len(growth["points"]):  # one for all is the latency's own, and stands there
        _reason(console, "; ".join(reasons))


def _print_network(console: Console, document: Document) -> None:
    network = document["network"]
    if network is None:
        return
    _heading(console, "network", network["method"])
    ways = [f"{network[f'{way}_bytes']:,} B {way} ({', '.join(network[way]) or 'nothing'})" for way in ("up", "down")]
    console.print(", ".join(ways))
    for link in network["links"]:
        line = f"{link['link']}: {link['total_ms']:.3f} ms (up {link['up_ms']:.3f}, down {link['down_ms']:.3f})"
        if link["device_calls_meanwhile"] is not None:
            line += f", in which this program runs {link['device_calls_meanwhile']:,.1f} times"
        console.print(line)
    if not network["links"]:
        _reason(console, "the profile of this artifact names no links")


def _print_comparison(console: Console, document: Document) -> None:
    found = document.get("comparison")
    if found is None:
        return
    _heading(console, "comparison", found.get("method", ""))
    if found["ratio"] is not None:
        medians = [microseconds(median) for median in found["p50_us"]]
        console.print(f"{found['second']} {medians[1]} against {found['first']} {medians[0]}")
        console.print(f"ratio {found['ratio']:.3f}, 95 % interval {found['low']:.3f} to {found['high']:.3f}")
        if found["faster"]:
            console.print(f"faster: {found['faster']}")
    _reason(console, found["reason"])


def _heading(console: Console, name: str, method: str) -> None:
    console.print()
    console.print(Text(name, style="bold"), Text(method, style="dim"))


def _reason(console: Console, reason: str | None) -> None:
    if reason:
        console.print(Text(reason, style="yellow"))
