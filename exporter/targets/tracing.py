"""The one way to see every value of an artifact: its file is run by the vendor's runtime, in a process of its own.

Files come from strangers, as in `reading`; what comes back is held to what it says of itself before it is used.
"""

import json
import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter.core.errors import BadInputError, MissingExtraError, OutputError, RuntimeCrashError, RuntimeFailureError
from exporter.core.explanation import TracedValue
from exporter.core.protocols import Target, Tracing
from exporter.core.types import MOST_PARTS, Arrays
from exporter.targets import apart
from safeio import files, npz
from safeio.staging import scratch

_MOST_VALUE_BYTES = 1 << 30  # of all values of all cases
_MOST_ANSWER_BYTES = 16 << 20
_NAME_LENGTH = 1000
_MEMORY_BYTES, _MEMORY_PER_BYTE = 4 << 30, 6
_CPU_S, _WALL_S = 240, 300.0
_TYPES = ("float16", "float32", "float64")
_INPUTS, _VALUES = "inputs.npz", "values.npz"

_START = apart.start(__name__)


@dataclass(frozen=True)
class _Entry:
    """A value without its numbers, which lie in a file: `shape` has the cases first."""

    name: str
    operation: str
    kind: str | None
    origin: str | None
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class _Answer:
    """One of three: the values; why they cannot be had; or what is missing here, whatever the file says."""

    values: tuple[_Entry, ...] | None = None
    damage: str | None = None
    refusal: str | None = None


def trace(target: Target, model_file: Path, inputs: Arrays) -> tuple[TracedValue, ...]:
    """Return every value of floats that a file computes for cases [cases, *shape], in the order of its graph.

    Raises RuntimeFailureError where its runtime gives none, and BadInputError where this machine lacks what that takes.
    """
    with scratch("trace") as folder:
        with (folder / _INPUTS).open("wb") as file:
            npz.write(file, inputs, compress=False)
        arguments = [target.name, str(model_file.resolve())]
        data, status = apart.ask(_START, arguments, folder, _WALL_S, _MOST_ANSWER_BYTES)
        if status or not data:
            raise RuntimeCrashError(f"{model_file}: its values cannot be had: {_end(status)}")
        answer = _parsed(data, model_file)
        if answer.refusal is not None:
            raise BadInputError(answer.refusal)
        if answer.values is None:
            raise RuntimeFailureError(f"{model_file}: its values cannot be had: {answer.damage}")
        cases = len(next(iter(inputs.values())))
        return _with_numbers(answer.values, folder / _VALUES, cases, model_file)


def _parsed(data: bytes, model_file: Path) -> _Answer:
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(_Answer).validate_json(data, strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise RuntimeCrashError(f"{model_file}: what came of it makes no sense: {first['msg']}") from error


def _with_numbers(entries: Sequence[_Entry], path: Path, cases: int, model_file: Path) -> tuple[TracedValue, ...]:
    """Return the values with their numbers; raises RuntimeCrashError where these are not as they should be."""
    import numpy as np

    expected = {f"value_{at}": (entry.shape, np.dtype(entry.dtype)) for at, entry in enumerate(entries)}
    try:
        if len(entries) > MOST_PARTS:
            raise ValueError(f"more than {MOST_PARTS:,} values")
        for entry in entries:
            words = (entry.name, entry.operation, entry.kind or "", entry.origin or "")
            if not all(len(word) <= _NAME_LENGTH and word.isprintable() for word in words):
                raise ValueError("it has names that cannot be shown")
            if entry.dtype not in _TYPES or entry.shape[:1] != (cases,):
                raise ValueError(f"{entry.name!r} is {entry.dtype} {list(entry.shape)[:8]}")
        size = sum(math.prod(shape) * dtype.itemsize + npz.MAX_HEADER for shape, dtype in expected.values())
        if size > _MOST_VALUE_BYTES + npz.MAX_HEADER * len(entries):
            raise ValueError(f"values of {size} bytes")
        arrays = npz.read(files.read_file(path, 2 * size + (1 << 20)), size, expected) if entries else {}
    except (ValueError, files.UnreadableError) as error:
        raise RuntimeCrashError(f"{model_file}: its values cannot be used: {error}") from error
    return tuple(
        TracedValue(entry.name, entry.operation, entry.kind, entry.origin, arrays[f"value_{at}"])
        for at, entry in enumerate(entries)
    )


def _end(status: int) -> str:
    """Say how a process ended that gave no answer."""
    match -status:
        case signal.SIGXCPU | signal.SIGALRM:
            return f"computing them takes more than {_CPU_S} s of processor time, or {_WALL_S:g} s"
        case signal.SIGKILL:
            return "the runtime's process was killed, most likely for want of memory"
        case number if number > 0:
            return f"its runtime crashed with {signal.Signals(number).name}"
    return f"its runtime ended with status {status} and without an answer"


def main(target: str, model_file: str) -> None:
    """Run a file in this process, which has no other task; write the values beside the inputs, and what they are."""
    path = Path(model_file)
    size = apart.size_of(path)
    apart.answer(
        lambda: json.dumps(_answer_to(target, path), default=vars).encode("ascii"),
        _MEMORY_BYTES + _MEMORY_PER_BYTE * size,
        2 * _MOST_VALUE_BYTES + size,
        _CPU_S,
    )


def _answer_to(target: str, model_file: Path) -> _Answer:
    """Run a file here and now; return the answer, which says what went wrong, whatever it was."""
    from exporter.targets import TARGETS

    try:
        inputs = npz.read(Path(_INPUTS).read_bytes(), _MOST_VALUE_BYTES)
        return _Answer(values=_written(TARGETS[target].tracing(), model_file, inputs))
    except (MissingExtraError, OutputError) as error:
        return _Answer(refusal=str(error))
    except MemoryError:
        return _Answer(damage="computing them takes more memory than a file of its size is given")
    except Exception as error:  # whatever a runtime raises
        text = " ".join(str(error)[:300].split()).rstrip(".")
        return _Answer(damage=text if isinstance(error, BadInputError) else f"{type(error).__name__}: {text}")


def _written(tracing: Tracing | None, model_file: Path, inputs: Arrays) -> tuple[_Entry, ...]:
    """Write the numbers of all values to a file; return what each of them is."""
    import numpy as np

    if tracing is None:
        raise BadInputError("nothing here looks into such files")
    run = tracing.load(model_file)
    rows, taken = [], 0
    for case in zip(*inputs.values(), strict=True):
        values = run(dict(zip(inputs, case, strict=True)))
        taken += sum(value.numbers.nbytes for value in values)
        if taken > _MOST_VALUE_BYTES:
            raise BadInputError(f"they take more than {_MOST_VALUE_BYTES >> 30} GiB")
        rows.append(values)
    arrays = {
        f"value_{at}": np.stack([value.numbers for value in same]) for at, same in enumerate(zip(*rows, strict=True))
    }
    with Path(_VALUES).open("xb") as file:
        npz.write(file, arrays, compress=False)
    return tuple(
        _Entry(value.name, value.operation, value.kind, value.origin, array.shape, array.dtype.name)
        for value, array in zip(rows[0], arrays.values(), strict=True)
    )
