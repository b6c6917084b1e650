"""Artifacts that somebody names, each by its folder, or many by a folder that holds them."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from exporter.core.errors import ArtifactError
from safeio.places import MANIFEST

MOST_ENTRIES = 100_000
"""How many files and folders are looked at below what was named: whoever names `/` by mistake is told soon."""


def artifact_folders(named: Iterable[Path]) -> list[Path]:
    """Return the folders of artifacts, each once; one without a manifest stands for the artifacts below it, sorted.

    One without any below it stands for itself, and whoever opens it says what is wrong. No link is followed below what
    was named, and folders whose names begin with a dot, as those of unfinished artifacts do, are left out. Raises
    ArtifactError where there is too much to look at.
    """
    found: dict[str, Path] = {}
    left = MOST_ENTRIES
    for folder in named:
        below, left = _below(folder, left)
        for artifact in below or [folder]:
            found.setdefault(os.path.realpath(artifact), artifact)
    return list(found.values())


def _below(top: Path, left: int) -> tuple[list[Path], int]:
    """Return the folders with a manifest, `top` or some below it, and how many entries may be looked at after that."""
    artifacts, waiting = [], [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                listed = list(islice(entries, left + 1))
        except OSError:  # what cannot be listed is no artifact; `top` is opened all the same, which says why
            continue
        left -= len(listed)
        if left < 0:
            raise ArtifactError(f"{top} holds more than {MOST_ENTRIES:,} files and folders; name the artifacts in it")
        if any(entry.name == MANIFEST for entry in listed):
            artifacts.append(folder)
        else:
            inner = [entry.name for entry in listed if entry.is_dir(follow_symlinks=False)]
            waiting += [folder / name for name in inner if not name.startswith(".")]
    return sorted(artifacts), left
