"""The answer of whoever ran an artifact, read with distrust.

It may have crashed half-way, run on a machine of somebody else or be of another version, so nothing of what it says is
used before its type, size and finiteness are checked.
"""

import re
from collections.abc import Mapping
from typing import Any, NoReturn

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
from exporter.core.types import Arrays, PairedTimes, RunRequest, RunResult
from safeio import strict_json
from safeio.packages import missing

MAX_RESPONSE_BYTES = 64 * 2**20
MAX_CONDITIONS = 16


def parse_response(content: bytes) -> dict[str, Any]:
    """Return an answer as a dictionary of this protocol version; raises RuntimeCrashError for anything else."""
    try:
        response = strict_json.loads(content)
    except ValueError as error:
        raise RuntimeCrashError(f"the agent's answer cannot be read: {printable(str(error))}") from error
    if not isinstance(response, dict):
        unusable("it is not a JSON object")
    if response.get("protocol") != PROTOCOL:
        spoken = printable(repr(response.get("protocol")))
        unusable(f"it speaks protocol {spoken}, this side {PROTOCOL}; put the same version on both sides")
    return response


def require_success(response: Mapping[str, Any], request: RunRequest, tail: str) -> None:
    """Raise the error that an answer reports; `tail` is what the runtime said last."""
    if response.get("status") == "error":
        raise_reported(response, request, tail)
    if response.get("status") != "ok":
        unusable("no status")


def result_of(response: Mapping[str, Any], outputs: Arrays, request: RunRequest, cases: int) -> RunResult:
    """Return what an answer to `request` says, with the outputs that came beside it."""
    swaps = response.get("swap_ms")
    if not isinstance(swaps, list) or len(swaps) not in (0, cases):
        unusable("swap_ms must be no numbers or one for each case")
    reason, call_reason = response.get("reason"), response.get("call_reason")
    calls = 0 if response.get("call_samples_us") == [] else request.iterations
    return RunResult(
        outputs=outputs,
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
        wasm_heap_bytes=count_or_none(response, "wasm_heap_bytes"),
        warmup=count_or_none(response, "warmup"),
        calls_per_sample=count_or_none(response, "calls_per_sample") or 1,
    )


def times_of(response: Mapping[str, Any], request: RunRequest) -> PairedTimes:
    """Return what an answer to a comparison says, with the counts of `request`."""
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


def samples_of(response: Mapping[str, Any], key: str, count: int) -> tuple[float, ...]:
    """So many times in microseconds."""
    samples = response.get(key)
    if not isinstance(samples, list) or len(samples) != count:
        unusable(f"{key} must be {count} numbers")
    return tuple(number(sample, key) for sample in samples)


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
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**63:
        unusable(f"{key} must be a whole number or null, not {printable(repr(value))}")
    return value


def printable(words: str) -> str:
    """One line of at most 500 characters without control characters: what a device says shall not steer a terminal."""
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", words[:2000])
    return "".join(sign if sign.isprintable() else " " for sign in plain)[:500]
