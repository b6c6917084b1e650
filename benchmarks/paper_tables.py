"""Table 4 of the CoCorrRec paper out of the code: its FLOPs next to what module hooks see and to true counts.

Per token means per added click, over histories of 10, 15, 20 and 25 clicks (the paper's Figure 4), for models with
64 dimensions and 30,000 items, untrained. The paper prints the count of a batch of 1,024. The columns:

- published: the paper's Table 4.
- hooks: MACs that hooks on torch modules see while every click is encoded once, times 1,024; the published figure.
- products: MACs of all matrix products while every click is encoded, as torch.utils.flop_counter sees it, times 1,024.
- artifact: MACs and FLOPs of the lowered `rerank` program, which computes for the last click alone what only it needs.

Run it as: python benchmarks/paper_tables.py [--target onnx] [MODEL ...]
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from exporter import figures
from exporter.measure.growth import LENGTHS, line
from exporter.pipeline import ExportRequest, growth
from exporter.pipeline import source as sources
from exporter.profiles import load
from models.zoo import load_spec

BATCH = 1024
PUBLISHED = {"din": 12.6, "gru4rec": 30.2, "sasrec": 38.3, "bert4rec": 101.0, "mamba4rec": 68.4, "scn": 17.0}
LEFT_OUT = {
    "din": "products of query and key, the softmax, everything elementwise; the MLP on the candidates is not per click",
    "gru4rec": "nothing of the products; the gates' activations are not MACs",
    "sasrec": "the attention: its projections run inside nn.MultiheadAttention",
    "bert4rec": "products of query, key and value; softmax, GELU and its own layer norm",
    "mamba4rec": "the whole Mamba block: projections, convolution and scan",
    "scn": "test-time training itself: reconstruction, its gradient, the dual form's products; RMSNorm",
}


def row(name: str, target: str) -> dict[str, Any]:
    """Return the figures of one model, all per token; those of the artifact from its own file."""
    quiet = lambda _message: None  # noqa: E731
    request = ExportRequest(name, target, None, "generic", None, "fp32", Path(), untrained=True)
    longest = sources.load(request, max(LENGTHS))
    lowering = growth.Lowering(target, "fp32", load("generic").options_for(target))
    lines = figures.growth(growth.points(longest, lowering, LENGTHS, None, 1, quiet))["lines"]
    return {
        "model": name,
        "published": PUBLISHED.get(name),
        "hooks": longest.module_hook_macs(),
        "products": products(longest),
        "artifact_macs": lines["macs"]["per_token"],
        "artifact_flops": lines["flops"]["per_token"],
        "steps": lines["flops"]["steps"],
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


def main(arguments: Sequence[str]) -> None:
    """Print the table in Markdown."""
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


if __name__ == "__main__":
    main(sys.argv[1:])
