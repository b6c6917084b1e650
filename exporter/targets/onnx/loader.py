"""How the agent loads an ONNX model: with ONNX Runtime."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from exporter.connections.agent.contract import Input, Model, Runtime

_DTYPES = {"float": "float32", "double": "float64", "bool": "bool"}


def start(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - none changes how it runs
    """Start ONNX Runtime on its CPU execution provider."""
    # From 1.29 on it reports to its maker from the import on, from a thread of its own; only this variable prevents it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4  # fatal only: errors come as exceptions

    def load(path: Path, data: Path | None) -> Model:
        source: str | bytes = str(path)
        if data is not None:  # a model given as bytes finds its data file, by name, in the folder of this setting
            settings.add_session_config_entry("session.model_external_initializers_file_folder_path", str(data.parent))
            source = path.read_bytes()
        session = onnxruntime.InferenceSession(source, settings, providers=["CPUExecutionProvider"])
        inputs = []
        for value in session.get_inputs():
            element = re.sub(r"^tensor\((.*)\)$", r"\1", value.type)
            shape = [size if isinstance(size, int) else None for size in value.shape]
            inputs.append(Input(value.name, shape, _DTYPES.get(element, element)))
        names = [output.name for output in session.get_outputs()]
        return Model(inputs, names, lambda arrays: arrays, lambda feed: session.run(names, feed), list)

    return Runtime(f"ONNX Runtime {onnxruntime.__version__} (CPUExecutionProvider)", threads, load)
