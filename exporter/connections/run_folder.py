"""The folder of a run: the request for the agent goes in, its response is read with distrust.

The agent may have crashed half-way, run on a machine of somebody else or be of another version, so nothing of what it
wrote is used before its type, size and finiteness are checked.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np

from exporter.connections.agent.folder import PROTOCOL
from exporter.connections.response import (
    MAX_RESPONSE_BYTES,
    parse_response,
    printable,
    require_success,
    result_of,
    times_of,
    unusable,
)
from exporter.core.errors import ArtifactError, BadInputError, RuntimeCrashError
from exporter.core.types import Arrays, PairedTimes, RunRequest, RunResult, TensorSpec
from safeio import files, npz

LOG_TAIL_BYTES = 4096
MAX_ARCHIVE_BYTES = 1 << 20
"""What an .npz may hold besides its arrays."""


def write_request(
    folder: Path,
    request: RunRequest,
    model_file: str,
    memory_limit_bytes: int | None,
    watch_stdin: bool,
    rival: tuple[RunRequest, str] | None = None,
    mark: bool = False,
    instrument: bool = False,
    pin: bool = False,
    lock: str | None = None,
) -> None:
    """Write request.json and inputs.npz; `model_file` is the path there, absolute or relative to the folder.

    A `rival` is the other artifact of a comparison and its path there; counts, threads and limits are `request`'s.
    `mark` asks for one more call of case 0, between markers that whoever counts instructions stops at, `instrument`
    that callgrind counts from there on; `pin` for the fastest cores only; `lock` names a file there that only one
    run may hold.
    Raises BadInputError for a request that no runtime could serve.
    """
    document = {
        "protocol": PROTOCOL,
        **_artifact(request, model_file, folder / "inputs.npz"),
        "rival": None if rival is None else _artifact(*rival, folder / "rival.npz"),
        "outputs": [{"name": out.name, "shape": list(out.shape), "dtype": out.dtype} for out in request.outputs],
        "warmup": request.warmup,
        "iterations": request.iterations,
        "threads": request.threads,
        "time_limit_s": request.time_limit_s,
        "memory_limit_bytes": memory_limit_bytes,
        "watch_stdin": watch_stdin,
        "mark": mark,
        "instrument": instrument,
        "pin": pin,
        "lock": lock,
    }
    (folder / "request.json").write_text(json.dumps(document), encoding="utf-8")


def _artifact(request: RunRequest, model_file: str, inputs: Path) -> dict[str, Any]:
    """Write the inputs of an artifact; return what the agent must know to load and feed it."""
    check_request(request)
    with inputs.open("wb") as file:
        np.savez(file, *request.inputs.values())
    return {
        "target": request.target.name,
        "options": dict(request.options),
        "model_file": model_file,
        "inputs": list(request.inputs),
        "data": None if request.data is None else {"name": request.data.name, "tensors": dict(request.data.tensors)},
    }


def require_models(*requests: RunRequest) -> None:
    """Raise ArtifactError where a request's model file is not there."""
    for request in requests:
        if not request.model_file.exists():
            raise ArtifactError(f"{request.model_file} does not exist; export the artifact again")


def check_request(request: RunRequest) -> None:
    """Raise BadInputError where counts are out of range or the inputs are not numbers with a common cases axis."""
    if request.warmup < 0 or request.iterations < 0 or request.threads < 1:
        raise BadInputError("warmup and iterations must be 0 or more, threads 1 or more")
    if not 0 < request.time_limit_s < math.inf:
        raise BadInputError("the time limit must be a positive number of seconds")
    if not request.inputs or not request.outputs:
        raise BadInputError("a run needs at least one input and one output")
    if len({output.name for output in request.outputs}) != len(request.outputs):
        raise BadInputError("two outputs of the request share a name")
    for name, array in request.inputs.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise BadInputError(f"input {name!r} must hold numbers with the cases on its first axis")
    if cases_of(request.inputs) < 1:
        raise BadInputError("the inputs hold no cases")


def cases_of(inputs: Arrays) -> int:
    """The number of cases that all inputs share; raises BadInputError where they differ."""
    counts = [array.shape[0] for array in inputs.values()]
    if len(set(counts)) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in inputs.items())
        raise BadInputError(f"the inputs differ in their number of cases: {shapes}")
    return int(counts[0])


def read_response(folder: Path, request: RunRequest) -> RunResult:
    """Read what the agent wrote for `request`.

    Raises the error that the agent reports, with the last words of the runtime's log, and RuntimeCrashError for a
    response that is missing or not what the protocol says.
    """
    response = _read(folder, request)
    cases = cases_of(request.inputs)
    outputs = read_outputs(folder / "outputs.npz", request.outputs, cases)
    return result_of(response, outputs, request, cases)


def read_comparison(folder: Path, request: RunRequest) -> PairedTimes:
    """Read what the agent wrote for `request` and its rival; raises as `read_response` does."""
    return times_of(_read(folder, request), request)


def _read(folder: Path, request: RunRequest) -> dict[str, Any]:
    try:
        content = files.read_file(folder / "response.json", MAX_RESPONSE_BYTES)
    except files.UnreadableError as error:
        if error.missing:
            raise RuntimeCrashError(f"the runtime's process ended without an answer{log_tail(folder)}") from None
        unusable(f"response.json {error}")
    response = parse_response(content)
    require_success(response, request, log_tail(folder))
    return response


def read_outputs(path: Path, outputs: tuple[TensorSpec, ...], cases: int) -> Arrays:
    """Read the outputs as [cases, *shape] arrays by name.

    An array is read only after its header agrees with the request, so that a forged size allocates nothing.
    """
    expected = {
        f"arr_{index}": ((cases, *output.shape), np.dtype(output.dtype)) for index, output in enumerate(outputs)
    }
    size = sum(math.prod(shape) * dtype.itemsize + npz.MAX_HEADER for shape, dtype in expected.values())
    try:
        arrays = npz.read(files.read_file(path, size + MAX_ARCHIVE_BYTES), size, expected)
    except files.UnreadableError as error:
        raise RuntimeCrashError(f"the agent's outputs cannot be used: outputs.npz {error}") from error
    return {output.name: arrays[f"arr_{index}"] for index, output in enumerate(outputs)}


def log_tail(folder: Path) -> str:
    """The last two lines of the runtime's log in brackets, to be appended to a message; empty where it said nothing.

    ExecuTorch ends an error with a list of all arguments' types, which says less than the line before.
    """
    path = folder / "log.txt"
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - LOG_TAIL_BYTES, 0))
        lines = [printable(line) for line in file.read().decode("utf-8", "replace").splitlines()]
    last = [line for line in lines if line.strip() and not re.search(r"\] arg \d+ with type id", line)][-2:]
    return f" [its last words: {' | '.join(last)}]" if last else ""
