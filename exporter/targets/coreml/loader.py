"""How the agent loads a Core ML package: with macOS's own Core ML."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.contract import Input, Model, RefusalError, Runtime


def start(threads: int, options: dict[str, Any]) -> Runtime:  # noqa: ARG001 - Core ML offers no such setting
    """Start Core ML through coremltools, on macOS; it chooses threads itself, and a processor among those allowed."""
    if platform.system() != "Darwin":
        raise RefusalError("no_runtime", f"Core ML runs on macOS only, this is {platform.system()}")
    import coremltools

    compute_units = options.get("compute_units", "ALL")

    def load(path: Path, data: Path | None) -> Model:  # noqa: ARG001 - external weights are inputs here
        model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit[compute_units])
        description = model.get_spec().description
        inputs = []
        for value in description.input:
            tensor = value.type.multiArrayType
            inputs.append(Input(value.name, list(tensor.shape), tensor.ArrayDataType.Name(tensor.dataType).lower()))
        names = [output.name for output in description.output]
        return Model(
            inputs,
            names,
            lambda arrays: arrays,
            lambda feed: model.predict(dict(feed)),  # a copy: predict replaces values of what it is given
            lambda result: [np.asarray(result[name]) for name in names],
        )

    return Runtime(f"Core ML (coremltools {coremltools.__version__}, compute units {compute_units})", None, load)
