"""How the agent loads a TFLite model: with LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.contract import Input, Model, RefusalError, Runtime, memory_limit, only_one, version_of


def start(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - it has none
    """Start LiteRT: its interpreter with its default delegate; the model's one signature names inputs and outputs."""
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
        taken, given = runner.get_input_details(), runner.get_output_details()
        del (
            runner
        )  # through it a call takes longer by a fifth of an SCN; the interpreter runs only while nothing has it
        inputs = []
        for name, detail in taken.items():
            shape = [int(size) if size >= 0 else None for size in detail["shape_signature"]]
            inputs.append(Input(name, shape, np.dtype(detail["dtype"]).name))
        places = [detail["index"] for detail in given.values()]

        def prepare(arrays: dict[str, np.ndarray]) -> list[tuple[int, np.ndarray]]:
            """Return the inputs by their tensors, whose free sizes are set to theirs."""
            free = [name for name in arrays if (taken[name]["shape_signature"] < 0).any()]
            for name in free:
                interpreter.resize_tensor_input(taken[name]["index"], arrays[name].shape)
            if free:
                interpreter.allocate_tensors()
            return [(taken[name]["index"], array) for name, array in arrays.items()]

        def run(feed: list[tuple[int, np.ndarray]]) -> list[np.ndarray]:
            for place, array in feed:
                interpreter.set_tensor(place, array)
            interpreter.invoke()
            return [interpreter.get_tensor(place) for place in places]  # copies

        return Model(inputs, list(given), prepare, run, list)

    return Runtime(f"LiteRT {version_of('ai-edge-litert')}", threads, load)
