"""The folder of a run, as the agent sees it: which files it has, and what is read from it and written to it."""

from __future__ import annotations

import errno
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.contract import OUT_OF_MEMORY, RefusalError

PROTOCOL = 4

AGENT = "agent.pyz"
# All that the two sides put there but the models; log.txt is where the other side may send what the runtime prints.
FILES = (
    *(AGENT, "request.json", "inputs.npz", "rival.npz", "response.json", "response.json.part"),
    *("outputs.npz", "outputs.npz.part", "log.txt", "trivial"),
)
# Those that an error leaves of no use to anybody; its message may need their room.
SPENT = ("inputs.npz", "rival.npz", "outputs.npz.part", "outputs.npz")
# The folder for a data file with the weights of one case; it has the name that the model knows the file by.
SWAPPED = "swapped"

# What the system says where a disk, a quota or a limit leaves no room for a file.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class DataFile:
    """The file from which a model reads weights: where each tensor begins in it, and its dtype."""

    path: Path
    tensors: dict[str, tuple[int, str]]

    @classmethod
    def of(cls, folder: Path, request: dict[str, Any]) -> DataFile | None:
        """Return the data file of a request, beside its model file, or None."""
        entry = request["data"]
        return entry and cls((folder / request["model_file"]).with_name(entry["name"]), entry["tensors"])

    def write(self, weights: dict[str, np.ndarray], folder: Path) -> Path:
        """Write a copy of the file in `folder` with these weights in it."""
        content = bytearray(self.path.read_bytes())
        for name, (offset, dtype) in self.tensors.items():
            tensor = weights[name].astype(dtype).tobytes()
            content[offset : offset + len(tensor)] = tensor
        changed = folder / SWAPPED / self.path.name
        changed.parent.mkdir(exist_ok=True)
        # Unlinked and made anew: a runtime may still have the last one mapped into memory.
        changed.unlink(missing_ok=True)
        changed.write_bytes(content)
        return changed


def read_inputs(path: Path, request: dict[str, Any]) -> tuple[dict[str, np.ndarray], int]:
    """Return the input arrays by name, in the order of the request, and the number of cases they all have."""
    with np.load(path, allow_pickle=False) as stored:
        inputs = {name: np.ascontiguousarray(stored[f"arr_{i}"]) for i, name in enumerate(request["inputs"])}
    cases = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    if len(cases) != 1 or 0 in cases:
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        raise RefusalError("request", f"the inputs must share one number of cases of at least 1 on axis 0: {shapes}")
    return inputs, cases.pop()


def write_outputs(folder: Path, outputs: list[np.ndarray]) -> None:
    """Write outputs.npz so that nobody ever reads half of it."""
    partial = folder / "outputs.npz.part"
    with partial.open("wb") as file:
        np.savez(file, *outputs)
    partial.replace(folder / "outputs.npz")


def respond(folder: Path, response: dict[str, Any]) -> None:
    """Write response.json so that nobody ever reads half of it."""
    partial = folder / "response.json.part"
    partial.write_text(json.dumps({**response, "protocol": PROTOCOL}, allow_nan=False), encoding="utf-8")
    partial.replace(folder / "response.json")


def discard_spent(folder: Path) -> None:
    """Remove the arrays of a run that failed, so that there is room for its response."""
    for name in SPENT:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / SWAPPED, ignore_errors=True)


def refusal_of(error: Exception) -> dict[str, Any]:
    """Return the response that tells of an error: its kind and its words."""
    words = str(error) or type(error).__name__
    if isinstance(error, RefusalError):
        kind = error.kind
    elif isinstance(error, OSError) and error.errno in NO_ROOM:
        kind = "room"
    elif isinstance(error, MemoryError) or OUT_OF_MEMORY.search(words):
        kind = "memory"
    else:
        kind = "runtime"
    return {"status": "error", "kind": kind, "message": words[:2000]}
