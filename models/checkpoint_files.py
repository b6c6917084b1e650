"""Which files a checkpoint has, and what tells one from another: without torch, for whoever only compares them."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from safeio import catalogue, files
from safeio.errors import BadInputError

WEIGHTS, CONFIG, GOLDEN = FILES = ("model.safetensors", "config.json", "golden.npz")
ITEMS = catalogue.FILE
MAX_BYTES = {WEIGHTS: 4 << 30, CONFIG: 1 << 20, GOLDEN: 64 << 20, ITEMS: catalogue.MAX_BYTES}


def sha256_of(folder: Path) -> str | None:
    """Return the sha256 of a checkpoint, which need not be whole otherwise; None where one of its files is missing.

    Raises BadInputError for a file that cannot be read, and a link.
    """
    digests = {}
    for name in (*FILES, *([ITEMS] if os.path.lexists(folder / ITEMS) else [])):
        try:
            with files.open_file(folder / name) as file:
                digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
        except files.UnreadableError as error:
            if error.missing:
                return None
            raise BadInputError(f"{folder / name} {error}; give a checkpoint that can be read") from error
    return together(digests)


def together(digests: Mapping[str, str]) -> str:
    """Return the sha256 of a checkpoint out of those of its files, in the order of FILES."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()
