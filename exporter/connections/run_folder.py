"""The folder of a run: the request for the agent goes in, its response is read with distrust.

The agent may have crashed half-way, run on a machine of somebody else or be of another version, so nothing of what it
wrote is used before its type, size and finiteness are checked.
"""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from exporter.connections.agent.folder import PROTOCOL
from exporter.core.errors import (
    ArtifactError,
    BadInputError,
    CocorrError,
    DeviceError,
    MissingExtraError,
    OutputError,
    RuntimeCrashError,
    RuntimeMemoryError,
    RuntimeMissingError,
)
from exporter.core.types import Arrays, PairedTimes, RunRequest, RunResult, TensorSpec
from safeio import files, npz, strict_json
from safeio.packages import missing

MAX_RESPONSE_BYTES = 64 * 2**20
LOG_TAIL_BYTES = 4096
MAX_CONDITIONS = 16
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
    response = answer(folder, request)
    swaps = response.get("swap_ms")
    if not isinstance(swaps, list) or len(swaps) not in (0, cases_of(request.inputs)):
        unusable("swap_ms must be no numbers or one for each case")
    reason, call_reason = response.get("reason"), response.get("call_reason")
    calls = 0 if response.get("call_samples_us") == [] else request.iterations
    return RunResult(
        outputs=read_outputs(folder / "outputs.npz", request.outputs, cases_of(request.inputs)),
        executed_on=text(response, "executed_on"),
        load_ms=number(response.get("load_ms"), "load_ms"),
        first_us=number(response.get("first_us"), "first_us"),
        samples_us=samples_of(response, "samples_us", request.iterations),
        peak_rss_bytes=count_or_none(response, "peak_rss_bytes"),
        baseline_rss_bytes=count_or_none(response, "baseline_rss_bytes"),
        threads=count_or_none(response, "threads"),
        reason=None if reason is None else text(response, "reason"),
        swap_ms=tuple(number(sample, "swap_ms") for sample in swaps),
        conditions=conditions_of(response),
        call_samples_us=samples_of(response, "call_samples_us", calls),
        call_reason=None if call_reason is None else text(response, "call_reason"),
    )


def read_comparison(folder: Path, request: RunRequest) -> PairedTimes:
    """Read what the agent wrote for `request` and its rival; raises as `read_response` does."""
    response = answer(folder, request)
    return PairedTimes(
        executed_on=(text(response, "executed_on"), text(response, "rival_executed_on")),
        first_us=samples_of(response, "samples_us", request.iterations),
        second_us=samples_of(response, "rival_samples_us", request.iterations),
        threads=(count_or_none(response, "threads"), count_or_none(response, "rival_threads")),
    )


def conditions_of(response: Mapping[str, Any]) -> dict[str, str]:
    """What the device told of itself, a few short words by name."""
    conditions = response.get("conditions")
    if not isinstance(conditions, dict) or len(conditions) > MAX_CONDITIONS:
        unusable(f"conditions must be at most {MAX_CONDITIONS} strings by name")
    return {printable(str(name)): text(conditions, name) for name in conditions}


def answer(folder: Path, request: RunRequest) -> dict[str, Any]:
    """The response with status ok; raises the error that the agent reports otherwise."""
    response = parse_response(folder)
    if response.get("status") == "error":
        raise_reported(response, request, log_tail(folder))
    if response.get("status") != "ok":
        unusable("no status")
    return response


def samples_of(response: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    """So many times in microseconds."""
    samples = response.get(key)
    if not isinstance(samples, list) or len(samples) != count:
        unusable(f"{key} must be {count} numbers")
    return tuple(number(sample, key) for sample in samples)


def parse_response(folder: Path) -> dict[str, Any]:
    """The response as a dictionary of this protocol version; raises RuntimeCrashError for anything else."""
    try:
        response = strict_json.loads(files.read_file(folder / "response.json", MAX_RESPONSE_BYTES))
    except files.UnreadableError as error:
        if error.missing:
            raise RuntimeCrashError(f"the runtime's process ended without an answer{log_tail(folder)}") from None
        unusable(f"response.json {error}")
    except ValueError as error:
        raise RuntimeCrashError(f"the agent's answer cannot be read: {printable(str(error))}") from error
    if not isinstance(response, dict):
        unusable("it is not a JSON object")
    if response.get("protocol") != PROTOCOL:
        spoken = printable(repr(response.get("protocol")))
        unusable(f"it speaks protocol {spoken}, this side {PROTOCOL}; put the same version on both sides")
    return response


def raise_reported(response: Mapping[str, Any], request: RunRequest, tail: str) -> NoReturn:
    """Raise the error of our tree for an error that the agent reports; `tail` is what the runtime said last."""
    kind, words = text(response, "kind"), text(response, "message")
    name = request.target.name
    if kind == "missing_package":
        raise MissingExtraError(missing(request.target.runtime.packages) or words, request.target.extra)
    errors: dict[str, CocorrError] = {
        "no_runtime": RuntimeMissingError(words),
        "request": BadInputError(words),
        "busy": DeviceError(words),
        "room": OutputError(f"the {name} runtime's results cannot be written: {words}; make room for them (TMPDIR)"),
        "protocol": BadInputError(f"{words}; put the same version on both sides"),
        "signature": ArtifactError(f"the {name} model does not fit its manifest: {words}; export it again"),
        "memory": RuntimeMemoryError(f"the {name} runtime ran out of memory: {words}{tail}"),
        "runtime": RuntimeCrashError(f"the {name} runtime failed: {words}{tail}"),
    }
    raise errors.get(kind, RuntimeCrashError(f"the agent reports an unknown kind of error, {kind!r}: {words}"))


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


def unusable(why: str) -> NoReturn:
    """Raise RuntimeCrashError for an answer that breaks the protocol."""
    raise RuntimeCrashError(f"the agent's answer is not usable: {why}")


def text(response: Mapping[str, Any], key: str) -> str:
    """A string field, made printable."""
    value = response.get(key)
    if not isinstance(value, str):
        unusable(f"{key} must be a string")
    return printable(value)


def number(value: object, key: str) -> float:
    """A finite number that is not negative."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        unusable(f"{key} must be a finite number, not {printable(repr(value))}")
    return float(value)


def count_or_none(response: Mapping[str, Any], key: str) -> int | None:
    """A whole number that is not negative, or None."""
    value = response.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        unusable(f"{key} must be a whole number or null, not {printable(repr(value))}")
    return value


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


def printable(words: str) -> str:
    """One line of at most 500 characters without control characters: what a device says shall not steer a terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", words[:2000])
    return "".join(sign if sign.isprintable() else " " for sign in plain)[:500]
