"""What crosses the pipes between an engine and its workers: frames of arrays, or of the words of an error."""

import io
import json
from typing import IO, Literal

import numpy as np

from exporter.core.types import Arrays

Kind = Literal["arrays", "error", "settings", "ready"]
_KINDS: tuple[Kind, ...] = ("arrays", "error", "settings", "ready")
_LENGTH_BYTES = 8
MOST_BYTES = 1 << 30


class BrokenFrameError(Exception):
    """The other side ended, or wrote what is no frame."""


def write(file: IO[bytes], kind: Kind, payload: bytes = b"") -> None:
    """Write one frame; raises OSError where the other side is gone."""
    file.write(bytes([_KINDS.index(kind)]) + len(payload).to_bytes(_LENGTH_BYTES, "little") + payload)
    file.flush()


def read(file: IO[bytes]) -> tuple[Kind, bytes] | None:
    """Read one frame, None where the other side has closed its end; raises BrokenFrameError."""
    head = file.read(1 + _LENGTH_BYTES)
    if not head:
        return None
    size = int.from_bytes(head[1:], "little")
    if len(head) <= _LENGTH_BYTES or head[0] >= len(_KINDS) or size > MOST_BYTES:
        raise BrokenFrameError
    payload = file.read(size)
    if len(payload) < size:
        raise BrokenFrameError
    return _KINDS[head[0]], payload


def of_arrays(arrays: Arrays) -> bytes:
    """Return arrays by name as one payload."""
    stored = io.BytesIO()
    np.savez(stored, **arrays)  # type: ignore[arg-type]  # names are ours, none is an option of savez
    return stored.getvalue()


def to_arrays(payload: bytes) -> dict[str, np.ndarray]:
    """Return what `of_arrays` was given; raises BrokenFrameError."""
    try:
        with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError) as error:
        raise BrokenFrameError from error


def of_words(document: object) -> bytes:
    """Return a JSON document as a payload."""
    return json.dumps(document).encode()
