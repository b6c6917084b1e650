"""What a person reads of an artifact's figures, on one screen: each with its unit, its method or why it is missing."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from exporter.artifact.manifest import Manifest
from exporter.artifact.results import Result
from exporter.core.sections import Comparison, Growth, Network
from exporter.report import terminal
from exporter.report.notes import comparison_lines
from exporter.report.rows import growth_reasons, growth_rows, timing
from exporter.report.units import MISSING, added, batch, bytes_, count, microseconds

_KINDS_SHOWN = 8


def print_profile(result: Result, written: bool = True) -> None:
    """Print the figures of one artifact to stdout, and where they were written, if they were."""
    console = terminal.console(soft_wrap=True)
    manifest, parity = result.manifest, result.manifest.parity
    names = f"{manifest.target} {manifest.profile} {manifest.precision}{batch(manifest.batch)}"
    title = f"{manifest.model}/{manifest.program}  {names}  parity {parity.verdict}"
    console.print(Text(title, style="bold"))
    if parity.verdict != "pass":
        _reason(console, parity.reason)
    _print_costs(console, manifest)
    _print_memory(console, manifest)
    _print_latency(console, manifest)
    if manifest.growth is not None:
        _print_growth(console, manifest.growth, manifest.batch)
    if manifest.network is not None:
        _print_network(console, manifest.network, manifest.batch)
    if result.comparison is not None:
        _print_comparison(console, result.comparison)
    if result.added:
        _reason(console, added(result.added))
    if written:
        console.print(Text(f"written to {result.place}/manifest.json", style="dim"))


def _print_costs(console: Console, manifest: Manifest) -> None:
    flops = manifest.flops
    if flops is None:
        return
    _heading(console, "compute", flops.unit)
    users = "" if manifest.batch is None else f" of {manifest.batch} users"
    totals = f"{count(flops.total)} FLOPs, {count(flops.macs)} MACs, {bytes_(flops.moved_bytes)} moved per call{users}"
    if flops.per_token is not None:
        totals += f"; {count(flops.per_token)} FLOPs per click{users}"
    console.print(totals)
    hooks = manifest.growth.module_hook_macs_per_token if manifest.growth else None
    if hooks is not None:
        console.print(f"module-hook count: {hooks:,.0f} MACs per click; what forward computes itself is not in it")
    kinds = list(flops.by_kind.items())
    shown = [f"{kind} {count(number)}" for kind, number in kinds[:_KINDS_SHOWN] if number]
    rest = sum(number for _, number in kinds[_KINDS_SHOWN:])
    console.print("by kind: " + ", ".join(shown) + (f", others {count(rest)}" if rest else ""))
    for row in flops.delegates:
        listed = ", ".join(f"{name} x{number}" for name, number in row.operations.items())
        taken = row.delegate or "the runtime's own kernels"
        console.print(f"{taken}: {count(row.flops)} FLOPs in {listed}")
    if flops.uncounted:
        listed = ", ".join(f"{row.operation} x{row.count}" for row in flops.uncounted)
        console.print(Text(f"not counted: {listed}", style="bold yellow"))


def _print_memory(console: Console, manifest: Manifest) -> None:
    memory = manifest.memory
    if memory is None:
        return
    _heading(console, "memory", memory.plan_method or "")
    parts = {"embedding": memory.embedding_bytes, "body": memory.body_bytes, "head": memory.head_bytes}
    listed = ", ".join(f"{part} {bytes_(size)}" for part, size in parts.items())
    planned = bytes_(memory.planned_activation_bytes)
    console.print(f"constants {bytes_(memory.constant_bytes)}: {listed}; planned activations {planned}")
    console.print(
        f"process: peak {bytes_(memory.peak_rss_bytes)}, of it the empty runtime"
        f" {bytes_(memory.baseline_rss_bytes)}, the artifact {bytes_(memory.artifact_rss_bytes)}"
    )
    if memory.wasm_heap_bytes is not None:
        console.print(f"WebAssembly: {bytes_(memory.wasm_heap_bytes)}, {memory.wasm_heap_method}")
    for twice in memory.stored_twice:
        console.print(f"stored twice: {' and '.join(twice.names)}, {bytes_(twice.bytes)} each")
    for grown in memory.expanded:
        sources = ", ".join(grown.constants)
        console.print(f"expanded in each run: {sources} by {grown.operation} to {bytes_(grown.bytes)}")
    _reason(console, memory.reason)


def _print_latency(console: Console, manifest: Manifest) -> None:
    latency = manifest.latency
    if latency is None:
        return
    if latency.p50_us is None:
        _heading(console, "latency", "")
    else:
        _heading(console, "latency", timing(latency))
        pairs = ((50, latency.p50_us), (90, latency.p90_us), (99, latency.p99_us))
        centiles = ", ".join(f"p{part} {microseconds(value)}" for part, value in pairs)
        load = MISSING if latency.load_ms is None else f"{latency.load_ms:.1f} ms"
        console.print(f"load {load}, first call {microseconds(latency.first_us)}, {centiles}")
    if latency.call_us is not None:
        console.print(f"of it the call itself {microseconds(latency.call_us)}: {latency.call_method}")
    if latency.instructions is not None:
        console.print(f"{latency.instructions:,} instructions per call")
    if latency.connection == "browser":
        console.print(f"ran on {manifest.parity.executed_on}")
    if latency.conditions:
        console.print(", ".join(f"{name} {value}" for name, value in latency.conditions.items()))
    _reason(console, latency.reason)


def _print_growth(console: Console, growth: Growth, batch: int | None) -> None:
    lines = growth.lines
    if lines is None:
        _heading(console, "per click", "")
        _reason(console, growth.reason)
        return
    method = growth.method or ""
    _heading(console, "per click", method if batch is None else f"{method}; of {batch} users")
    table = Table(box=None, pad_edge=False)
    header, *rows = growth_rows(growth)
    table.add_column("")
    for name in header[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    between = ", ".join(count(step) for step in lines.flops.steps)
    console.print(f"FLOPs per click from point to point: {between}")
    _reason(console, growth_reasons(growth))


def _print_network(console: Console, network: Network, batch: int | None) -> None:
    _heading(console, "network", network.method if batch is None else f"{network.method}; of one user of {batch}")
    up, down = (", ".join(names) or "nothing" for names in (network.up, network.down))
    console.print(f"{network.up_bytes:,} B up ({up}), {network.down_bytes:,} B down ({down})")
    for link in network.links:
        line = f"{link.link}: {link.total_ms:.3f} ms (up {link.up_ms:.3f}, down {link.down_ms:.3f})"
        if link.device_calls_meanwhile is not None:
            line += f", in which this program runs {link.device_calls_meanwhile:,.1f} times"
        console.print(line)
    if not network.links:
        _reason(console, "the profile of this artifact names no links")


def _print_comparison(console: Console, comparison: Comparison) -> None:
    _heading(console, "comparison", comparison.method or "")
    for line in comparison_lines(comparison):
        console.print(line)
    _reason(console, comparison.reason)


def _heading(console: Console, name: str, method: str) -> None:
    console.print()
    console.print(Text(name, style="bold"), Text(method, style="dim"))


def _reason(console: Console, reason: str | None) -> None:
    if reason:
        console.print(Text(reason, style="yellow"))
