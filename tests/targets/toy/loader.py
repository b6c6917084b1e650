"""How the agent loads a toy file: with torch."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

from exporter.connections.agent.contract import Input, Model, Runtime, version_of


def start(threads: int, options: dict[str, Any]) -> Runtime:
    """Start torch."""
    import torch

    torch.set_num_threads(threads)

    def load(path: Path, data: Path | None) -> Model:
        document = json.loads(path.read_text(encoding="ascii"))
        program = torch.export.load(io.BytesIO(base64.b64decode(document["program"]))).module()
        inputs = [Input(entry["name"], entry["shape"], entry["dtype"]) for entry in document["inputs"]]
        return Model(
            inputs,
            document["outputs"],
            lambda arrays: {name: torch.from_numpy(array) for name, array in arrays.items()},
            lambda feed: program(**feed),
            lambda result: [result[name].detach().numpy() for name in document["outputs"]],
        )

    return Runtime(f"Toy {version_of('torch')} ({options['mood']})", torch.get_num_threads(), load)
