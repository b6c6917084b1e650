"""Which checkpoint stands at a place: one of another model or made from other files is not replaced without --force.

Another model is one of another name, of other sizes (heads, blocks, a table of positions) or of other items. The same
model trained again on the same data, with another seed or learning rate or for more epochs, takes the place of the
earlier one.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models import checkpoint
from models.checkpoint import CheckpointError
from safeio import places

_DIGITS, _LETTERS = 12, 24


@dataclass(frozen=True)
class File:
    """What a checkpoint was made from: its SHA-256 tells it apart, its name is for people."""

    sha256: str
    name: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.name[:_LETTERS]} ({self.sha256[:_DIGITS]})"


@dataclass(frozen=True)
class Facts:
    """What tells a checkpoint apart: its model, the data or the weights that it was made from, its items.

    `made_from` is None for one that does not say it, which is another one; `ids` is what `ids_of` gives for its items.
    """

    model: str
    architecture: Mapping[str, Any]
    made_from: File | None
    ids: str | None

    @property
    def whose(self) -> places.Facts:
        """Return the model and what it was made from."""
        words = [str(self.architecture[word]) for word in checkpoint.NAMES if word in self.architecture]
        return {"model": " ".join([self.model, *words]), "made from": self.made_from or "files that it does not name"}

    def sizes(self, names: Iterable[str]) -> places.Facts:
        """Return the sizes of these names."""
        return {name: self.architecture.get(name, "none") for name in names}


def ids_of(items: bytes | None, ordered: bool) -> str | None:
    """Return a digest of the ids in an items.tsv, None for a checkpoint that has rows only.

    Weights that were imported go by the rows, so their order counts; every training numbers its items by its seed.
    """
    if items is None:
        return None
    ids = [b"".join(line.split(b"\t")[1:2]) for line in items.split(b"\n")]
    return hashlib.sha256(b"\n".join(ids if ordered else sorted(ids))).hexdigest()[:_DIGITS]


def check(folder: Path, made: Facts, force: bool) -> None:
    """Raise OutputError where a checkpoint with other facts stands at `folder`, unless `force` is given.

    One without items.tsv may be given one. What is no checkpoint is for `checkpoint.check_destination` to refuse.
    """
    if force:
        return
    try:
        config = checkpoint.read_config(folder)
    except CheckpointError:
        return  # none is there
    training = config["training"]
    imported = "file_sha256" in training
    prefix = "file" if imported else "data"
    sha256, name = training.get(f"{prefix}_sha256"), training.get(prefix)
    stated = isinstance(sha256, str) and isinstance(name, str)
    made_from = File(str(sha256), str(name)) if stated else None
    held = Facts(config["model"], config["architecture"], made_from, ids_of(checkpoint.read_items(folder), imported))
    # The sizes and the items of another model, or of other data, are other ones too, and would say nothing more.
    places.check_facts(folder, "checkpoint", held.whose, made.whose)
    names = [name for name in {**held.architecture, **made.architecture} if name not in checkpoint.NAMES]
    places.check_facts(folder, "checkpoint", held.sizes(names), made.sizes(names))
    places.check_facts(folder, "checkpoint", {"ids": held.ids}, {"ids": made.ids or "none"})
