"""Lower a torch module for a target, without checkpoint and command."""

from pathlib import Path

import numpy as np
from torch import nn

from exporter import graph
from exporter.core.types import Lowered
from exporter.graph import unroll
from exporter.graph.capture import capture
from exporter.targets import TARGETS

MODEL_FILES = {"executorch": "model.pte", "coreml": "model.mlpackage", "onnx": "model.onnx", "tflite": "model.tflite"}
OPTIONS = {
    "executorch": {"delegate": "xnnpack"},
    "coreml": {"deployment_target": "iOS17"},
    "onnx": {"opset": 20},
    "tflite": {},
}


def lower(target: str, module: nn.Module, examples: dict[str, np.ndarray], folder: Path, **options: object) -> Path:
    """Return the model file of a module with one output, "y"."""
    captured = capture("test", "piece", module.eval(), examples, ("y",))
    if any(str(node.target) == "aten.gru.input" for node in captured.exported.graph.nodes):
        steps = (unroll.PASS,) if unroll.PASS.name in TARGETS[target].passes else ()
        captured = graph.rewritten(captured, steps)
    return TARGETS[target].lower(captured, "fp32", {**OPTIONS[target], **options}, folder)


def read(target: str, module: nn.Module, examples: dict[str, np.ndarray], folder: Path, **options: object) -> Lowered:
    """Return what the target reads from the file of a module with one output, "y"."""
    return TARGETS[target].read(lower(target, module, examples, folder, **options))
