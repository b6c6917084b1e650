"""The targets: one folder each, one line here."""

from importlib import import_module

from exporter.core.protocols import Target

_FOLDERS = (
    "executorch",
    "coreml",
    "onnx",
    "tflite",
)
TARGETS: dict[str, Target] = {folder: import_module(f"{__name__}.{folder}").TARGET for folder in _FOLDERS}
