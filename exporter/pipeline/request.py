"""What the command line asks for, and the histories that it names."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.core.errors import BadInputError
from exporter.core.types import Precision
from safeio import files

Embeddings = Literal["shipped", "cached"]

_MAX_HISTORY_BYTES = 1 << 20
_MAX_DIGITS = 18


@dataclass(frozen=True)
class ProgramChoice:
    """Which program of which trained model; None stands for the model's own choice.

    `history` is a list of ids or a file of them, `structure` one digit per block; both choose a sub-network. With
    `untrained`, weights and golden histories are drawn, for the costs of an architecture and its parity.
    """

    model: str
    program: str | None = None
    checkpoint: Path | None = None
    history: str | None = None
    structure: str | None = None
    embeddings: Embeddings = "shipped"
    untrained: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """What `cocorr-export MODEL` was asked for: the program, the target or `all`, the device profile, and the place.

    `precision` None stands for the profile's.
    """

    choice: ProgramChoice
    target: str
    output: Path
    profile: str = "generic"
    precision: Precision | None = None


def read_history(text: str) -> list[int]:
    """Return the item ids of `3,17,5`, or of a text file of ids; raises BadInputError."""
    source = "--history"
    if not re.fullmatch(r"[\s\d,+-]*", text, re.ASCII):
        source, path = text, Path(text)
        try:
            text = files.read_file(path, _MAX_HISTORY_BYTES, follow_link=True).decode()
        except files.UnreadableError as error:
            what = "is neither item ids nor a file of them" if error.missing else str(error)
            raise BadInputError(f"{text!r} {what}; give the ids, 3,17,5, or a text file") from error
        except UnicodeDecodeError as error:
            raise BadInputError(f"{path} is no text; give a file of item ids, or the ids: 3,17,5") from error
    words = [word for word in re.split(r"[\s,]+", text) if word]
    for word in words:
        if not re.fullmatch(r"[+-]?\d+", word, re.ASCII) or len(word) > _MAX_DIGITS:
            raise BadInputError(f"{source}: {word[:40]!r} is no item id; write whole numbers with commas between")
    return [int(word) for word in words]
