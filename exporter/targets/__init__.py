"""The targets: one file each, one line here."""

from exporter.core.protocols import Target
from exporter.targets.coreml import CoreMLTarget
from exporter.targets.executorch import ExecuTorchTarget
from exporter.targets.onnx import OnnxTarget
from exporter.targets.tflite import TFLiteTarget

TARGETS: dict[str, Target] = {
    "executorch": ExecuTorchTarget(),
    "coreml": CoreMLTarget(),
    "onnx": OnnxTarget(),
    "tflite": TFLiteTarget(),
}
