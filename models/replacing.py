"""Which checkpoint stands at a place: one of another model or made from other files is not replaced without --force.

The same model trained again on the same data, with another seed or for more epochs, takes the place of the earlier one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import checkpoint
from models.checkpoint import CheckpointError
from safeio import places

_DIGITS, _LETTERS = 12, 24


@dataclass(frozen=True)
class _File:
    """What a checkpoint was made from: its SHA-256 tells it apart, its name is for people."""

    sha256: str
    name: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name[:_LETTERS]} ({self.sha256[:_DIGITS]})"


def check(folder: Path, facts: places.Facts, force: bool) -> None:
    """Raise OutputError where a checkpoint with other facts stands at `folder`, unless `force` is given.

    What is no checkpoint is for `checkpoint.check_destination` to refuse.
    """
    if force:
        return
    try:
        config = checkpoint.read_config(folder)
    except CheckpointError:
        return  # none is there
    training = config["training"]
    prefix = "file" if "file_sha256" in training else "data"
    held = facts_of(config["model"], config["architecture"], training.get(f"{prefix}_sha256"), training.get(prefix))
    places.check_facts(folder, "checkpoint", held, facts)


def facts_of(model: str, architecture: Mapping[str, Any], sha256: object, name: object) -> places.Facts:
    """Return the facts of a checkpoint: its model, and the data or the weights that it was made from.

    One that does not say what it was made from is another one.
    """
    stated = isinstance(sha256, str) and isinstance(name, str)
    return {
        "model": " ".join([model, *(str(architecture[word]) for word in checkpoint.NAMES if word in architecture)]),
        "made from": _File(str(sha256), str(name)) if stated else "files that it does not name",
    }
