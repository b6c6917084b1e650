"""`cocorr-export passes`: the passes that make programs faster, and what each of them does to one."""

from typing import TYPE_CHECKING

from exporter.pipeline.lengths import Report
from exporter.pipeline.listing import require_model
from exporter.targets import TARGETS
from models import zoo

if TYPE_CHECKING:
    from exporter.core.precision import Fold
    from exporter.core.types import Captured, Row
    from exporter.pipeline.request import ProgramChoice
    from exporter.pipeline.source import Source


def passes(choice: "ProgramChoice | None", report: Report, fold: "Fold" = "same_size") -> "list[Row]":
    """Return a row for each optional pass: its targets and what it does, or what it alone does to one program.

    For a program these are the nodes of the graph, the MACs of its matrix products and the bytes of its constants
    before and after, and the largest difference on golden inputs; `fold` is how far rows are folded.
    Raises BadInputError.
    """
    from exporter.graph import OPTIONAL, PASSES

    if choice is None:
        return [
            {"pass": step.name, "targets": _targets(step.name), "description": step.summary}
            for step in PASSES
            if step.name in OPTIONAL
        ]
    require_model(choice.model)
    from exporter.pipeline import source as sources

    report("loading the checkpoint")
    source = sources.load(choice)
    with zoo.foreign(choice.model):
        return [_row(source, name, fold, report) for name in OPTIONAL]


def _row(source: "Source", name: str, fold: "Fold", report: Report) -> "Row":
    from exporter.core.types import PassChoice

    report(f"trying {name}")
    before = source.captured("inputs", "captured")
    after = source.captured("inputs", "captured", PassChoice((name,), fold=fold))
    (effect,) = after.passes
    return {
        "pass": name,
        "applied": effect.applied,
        "nodes": [effect.nodes_before, effect.nodes_after],
        "product_macs": [_macs(source, before), _macs(source, after)],
        "constant_bytes": [_bytes(before), _bytes(after)],
        "max_error": effect.max_error,
        "reason": effect.reason or (None if effect.applied else "nothing here that it rewrites"),
    }


def _targets(name: str) -> str:
    """Return the targets that have a pass."""
    return ", ".join(target.name for target in TARGETS.values() if name in target.passes)


def _macs(source: "Source", captured: "Captured") -> int:
    """Return the MACs of the matrix products of a graph, as torch's own counter sees them for the first golden case."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    case = {name: torch.from_numpy(array[0].copy()) for name, array in source.inputs.items()}
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        captured.exported.module(check_guards=False)(**case)
    return int(counter.get_total_flops()) // 2


def _bytes(captured: "Captured") -> int:
    """Return the bytes of the constants that a graph reads."""
    exported = captured.exported
    signature = exported.graph_signature
    targets = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    targets |= signature.inputs_to_lifted_tensor_constants
    read = {targets[node.name] for node in exported.graph.nodes if node.name in targets and node.users}
    tensors = {**exported.state_dict, **exported.constants}
    return sum(tensors[name].nbytes for name in read)
