"""How the agent loads an ONNX model: with ONNX Runtime."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np

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
            shape = [size if isinstance(size, int) else None for size in value.shape]
            inputs.append(Input(value.name, shape, _dtype(value.type)))
        outputs = session.get_outputs()

        def prepare(arrays: dict[str, np.ndarray]) -> Any:
            """Bind the inputs where they lie, and memory for the outputs that no other call writes into."""
            binding = session.io_binding()
            for name, array in arrays.items():
                binding.bind_cpu_input(name, array)
            for output in outputs:
                dtype = _dtype(output.type)
                if all(isinstance(size, int) for size in output.shape) and hasattr(np, dtype):
                    memory = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output.shape, getattr(np, dtype))
                    binding.bind_ortvalue_output(output.name, memory)
                else:  # the runtime finds its size in each call
                    binding.bind_output(output.name)
            return binding, arrays  # the binding has no hold on them

        def run(feed: Any) -> Any:
            session.run_with_iobinding(feed[0])
            return feed

        names = [output.name for output in outputs]
        return Model(inputs, names, prepare, run, lambda feed: [np.array(v.numpy()) for v in feed[0].get_outputs()])

    return Runtime(f"ONNX Runtime {onnxruntime.__version__} (CPUExecutionProvider)", threads, load)


def _dtype(kind: str) -> str:
    """Return numpy's name of what ONNX Runtime calls `tensor(float)`."""
    element = re.sub(r"^tensor\((.*)\)$", r"\1", kind)
    return _DTYPES.get(element, element)
