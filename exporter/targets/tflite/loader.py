"""How the agent loads a TFLite model: with LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.contract import Input, Model, RefusalError, Runtime, memory_limit, only_one, version_of


def start(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - it has none
    """Start LiteRT: its interpreter with its default delegate, fed by name through the model's one signature."""
    from ai_edge_litert.interpreter import Interpreter

    def load(path: Path, data: Path | None) -> Model:  # noqa: ARG001 - external weights are inputs here
        interpreter = Interpreter(model_path=str(path), num_threads=threads)
        try:
            interpreter.allocate_tensors()
        except RuntimeError as error:
            if not str(error):  # what it says, or rather does not say, when the arena cannot be had
                largest = max(
                    int(np.prod(t["shape"])) * np.dtype(t["dtype"]).itemsize for t in interpreter.get_tensor_details()
                )
                message = f"LiteRT could not allocate its tensors and gave no reason; the largest has {largest} bytes"
                raise RefusalError("memory" if largest > memory_limit() else "runtime", message) from error
            raise
        signature = only_one("signature", interpreter.get_signature_list())
        runner = interpreter.get_signature_runner(signature)
        inputs = []
        for name, detail in runner.get_input_details().items():
            shape = [int(size) if size >= 0 else None for size in detail["shape_signature"]]
            inputs.append(Input(name, shape, np.dtype(detail["dtype"]).name))
        names = list(runner.get_output_details())
        return Model(
            inputs,
            names,
            lambda arrays: arrays,
            lambda feed: runner(**feed),
            lambda result: [result[name] for name in names],
        )

    return Runtime(f"LiteRT {version_of('ai-edge-litert')}", threads, load)
