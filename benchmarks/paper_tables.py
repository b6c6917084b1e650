"""Tables 4 and 5 of the CoCorrRec paper out of the code: its FLOPs next to true counts, its exchange with our times.

Table 4. Per token means per added click, over histories of 10, 15, 20 and 25 clicks (the paper's Figure 4), for
untrained models with 64 dimensions and 30,000 items. The paper prints the count of a batch of 1,024. The columns:

- published: the paper's Table 4.
- hooks: MACs that hooks on torch modules see while every click is encoded once, times 1,024; the published figure.
- products: MACs of all matrix products while every click is encoded, as torch.utils.flop_counter sees it, times 1,024.
- artifact: MACs and FLOPs of the lowered `rerank` program, which computes for the last click alone what only it needs.

Table 5. The device sends its hidden state up and gets the global correction down; the table has the bytes of both,
their time over each link of the profile `paper-links`, the time of the cloud's program on this machine, and how often
the device could rerank by itself meanwhile. Times are medians of this run, of untrained models in the target's runtime.

Run it as: python benchmarks/paper_tables.py [--target onnx] [MODEL ...]
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter.core.sections import GrowthPoint, Network
from exporter.measure import figures
from exporter.measure.growth import LENGTHS, line
from exporter.pipeline import ExportRequest, ProgramChoice, export, lengths
from exporter.pipeline import source as sources
from exporter.profiles import load
from models.zoo import load_spec

BATCH = 1024
PUBLISHED = {"din": 12.6, "gru4rec": 30.2, "sasrec": 38.3, "bert4rec": 101.0, "mamba4rec": 68.4, "scn": 17.0}
LEFT_OUT = {
    "din": "attention of each of 100 candidates to each click, and everything elementwise",
    "gru4rec": "nothing of the products; the gates' activations are not MACs",
    "sasrec": "the attention: its projections run inside nn.MultiheadAttention",
    "bert4rec": "products of query, key and value; softmax, GELU and its own layer norm",
    "mamba4rec": "the whole Mamba block: projections, convolution and scan",
    "scn": "test-time training itself: reconstruction, its gradient, the dual form's products; RMSNorm",
}


def lowered(name: str, target: str, timed: tuple[int, int] | None = None) -> tuple[sources.Source, list[GrowthPoint]]:
    """Return an untrained model, and the figures of its artifacts at each length; `timed` is (warm-up, timed) calls."""
    quiet = lambda _message: None  # noqa: E731
    longest = sources.load(ProgramChoice(name, untrained=True), max(LENGTHS))
    lowering = lengths.Lowering(target, "fp32", load("generic").options_for(target))
    return longest, lengths.points(longest, lowering, LENGTHS, timed, 1, quiet)


def row(name: str, target: str) -> dict[str, Any]:
    """Return the figures of one model, all per token; those of the artifact from its own file."""
    longest, points = lowered(name, target)
    lines = figures.growth(points).lines
    return {
        "model": name,
        "published": PUBLISHED.get(name),
        "hooks": longest.module_hook_macs(),
        "products": products(longest),
        "artifact_macs": lines.macs.per_token,
        "artifact_flops": lines.flops.per_token,
        "steps": lines.flops.steps,
    }


def products(source: sources.Source) -> float:
    """Return the MACs of the matrix products of `encode` per token, the slope over the lengths."""
    encode = load_spec(source.checkpoint.model).encode
    assert encode is not None
    found = {}
    for length in LENGTHS:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encode(source.model, torch.ones(1, length, dtype=torch.int32))
        found[length] = counter.get_total_flops() / 2
    return line(found).per_token


def exchange(target: str) -> tuple[Network, dict[str, float]]:
    """Return an exchange's bytes with the links' times, and the median of a call of each program in microseconds."""
    with tempfile.TemporaryDirectory() as name:
        made = {}
        for program in ("rerank", "hidden_state", "correct", "rerank_corrected"):
            choice = ProgramChoice("scn", program, untrained=True)
            request = ExportRequest(choice, target, Path(name), "paper-links", "fp32")
            (result,) = export(request, lambda _message: None)
            made[program] = result.manifest
    cloud = made["correct"]
    up, down = (
        {tensor.name: 4 * math.prod(tensor.shape) for tensor in tensors if tensor.name in names}
        for tensors, names in ((cloud.inputs, cloud.exchange.up), (cloud.outputs, cloud.exchange.down))
    )
    times = {program: manifest.latency.p50_us for program, manifest in made.items()}
    return figures.network(up, down, made["rerank"].links, made["rerank"].latency), times


def exchange_table(target: str) -> str:
    """Return Table 5 in Markdown: SCN alone and with the correction of its GCN."""
    found, times = exchange(target)
    device = times["hidden_state"] + times["rerank_corrected"]
    lines = [
        f"up {found.up_bytes:,} B, down {found.down_bytes:,} B; `correct` takes {times['correct']:,.0f} us",
        f"and the device {device:,.0f} us in two programs, where `rerank` alone takes {times['rerank']:,.0f} us:\n",
        "| link | up, ms | down, ms | exchange with the cloud's time, ms | `rerank` runs meanwhile |",
        "|---|---:|---:|---:|---:|",
    ]
    for link in found.links:
        whole = link.total_ms + times["correct"] / 1e3
        calls = 1e3 * whole / times["rerank"]
        lines.append(f"| {link.link} | {link.up_ms:.3f} | {link.down_ms:.3f} | {whole:.3f} | {calls:,.1f} |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Print both tables in Markdown; the second only where all models were asked for, or SCN."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="*", default=list(PUBLISHED))
    parser.add_argument("--target", default="onnx")
    chosen = parser.parse_args(arguments)
    print(f"MFLOPs per token at batch {BATCH:,}, as the paper prints them (one multiply-accumulate counted once):\n")
    print("| model | published | hooks | products | artifact MACs | artifact FLOPs | FLOPs per click, 10-15-20-25 |")
    print("|---|---:|---:|---:|---:|---:|---|")
    for name in chosen.models:
        found = row(name, chosen.target)
        cells = [found["hooks"], found["products"], found["artifact_macs"], found["artifact_flops"]]
        steps = ", ".join(f"{step:,.0f}" for step in found["steps"])
        shown = " | ".join(f"{cell * BATCH / 1e6:.1f}" for cell in cells)
        print(f"| {name} | {found['published']} | {shown} | {steps} |", flush=True)
    print("\nWhat the published count leaves out:\n")
    for name in chosen.models:
        print(f"- {name}: {LEFT_OUT[name]}")
    if "scn" in chosen.models:
        print("\nTable 5, the exchange of SCN with its GCN, of 10 clicks:\n")
        print(exchange_table(chosen.target))


if __name__ == "__main__":
    main(sys.argv[1:])
