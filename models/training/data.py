"""Interaction files and their chronological leave-one-out split.

A file is tab separated, optionally gzipped, with a header of `user`, `item` and `order` or `timestamp`; all cells
are whole numbers.
"""

import gzip
import hashlib
import io
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

TIME_COLUMNS = ("order", "timestamp")


class DataError(ValueError):
    """An interaction file that cannot be trained on; the message is one line and names file and line."""


@dataclass(frozen=True)
class Interactions:
    """Clicks sorted by user and time: item ids 1..V-1 [n], and where each user's clicks start, then n, [U + 1]."""

    items: np.ndarray
    starts: np.ndarray
    vocabulary: int
    sha256: str

    @property
    def users(self) -> int:
        """Return U."""
        return len(self.starts) - 1

    @property
    def owners(self) -> np.ndarray:
        """Return the user, 0..U-1, of each click [n]."""
        return np.repeat(np.arange(self.users), np.diff(self.starts))


@dataclass(frozen=True)
class Split:
    """Positions in `Interactions.items` of the targets; a target's history is what its user clicked before."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_interactions(path: Path, seed: int) -> Interactions:
    """Read a .tsv or .tsv.gz; items become a seeded permutation of 1..V-1, which does not show the file's own ids."""
    data = _read_bytes(path)
    user, item, time = _parse(path, data)
    order = np.lexsort((time, user))  # stable: equal times keep the file's order
    _, counts = np.unique(user, return_counts=True)
    names, index = np.unique(item[order], return_inverse=True)
    permutation = np.random.default_rng(seed).permutation(len(names)) + 1
    return Interactions(
        items=permutation[index].astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(counts)]),
        vocabulary=len(names) + 1,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def leave_one_out(interactions: Interactions) -> Split:
    """Take each user's last click for the test, the one before for validation and the rest for training.

    A user with fewer than three clicks is in the training part only; a first click has no history and is no target.
    """
    starts, stops = interactions.starts[:-1], interactions.starts[1:]
    tested = stops - starts >= 3
    train_stops = np.where(tested, stops - 2, stops)
    position = np.arange(len(interactions.items))
    owner = interactions.owners
    train = position[(position > starts[owner]) & (position < train_stops[owner])]
    return Split(train, stops[tested] - 2, stops[tested] - 1)


def histories(interactions: Interactions, targets: np.ndarray, length: int) -> np.ndarray:
    """Return up to `length` latest clicks before each target, padded with 0 on the right, [targets, length] int32."""
    starts = interactions.starts[np.searchsorted(interactions.starts, targets, side="right") - 1]
    begin = np.maximum(starts, targets - length)
    positions = begin[:, None] + np.arange(length)  # [targets, length]
    inside = positions < targets[:, None]
    return np.where(inside, interactions.items[np.where(inside, positions, 0)], 0).astype(np.int32)


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a .tsv or .tsv.gz with columns user, item, order") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _parse(path: Path, data: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the columns user, item and time as int64."""
    header, _, body = data.partition(b"\n")
    names = header.decode(errors="replace").strip().split("\t")
    time = next((name for name in TIME_COLUMNS if name in names), None)
    if time is None or "user" not in names or "item" not in names:
        found = ", ".join(names)[:80]
        raise DataError(f"{path}, line 1: expected a header of user, item and order or timestamp, found {found!r}")
    if not body.strip(b"\r\n"):
        raise DataError(f"{path} has a header and no interactions")
    try:
        table = np.loadtxt(io.BytesIO(body), dtype=np.int64, delimiter="\t", comments=None, ndmin=2)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{path}, {_first_fault(body, len(names))}") from error
    if table.shape[1] != len(names):
        raise DataError(f"{path}, line 2: expected {len(names)} columns, found {table.shape[1]}")
    return table[:, names.index("user")], table[:, names.index("item")], table[:, names.index(time)]


def _first_fault(body: bytes, columns: int) -> str:
    """Say where the body stops being whole numbers; only called once the fast reader has refused it."""
    for number, line in enumerate(body.splitlines(), start=2):
        cells = line.decode(errors="replace").split("\t")
        if len(cells) != columns:
            return f"line {number}: expected {columns} columns, found {len(cells)}"
        for cell in cells:
            try:
                np.int64(cell)
            except (ValueError, OverflowError):
                return f"line {number}: {cell[:40]!r} is not a whole number"
    return "which is not a table of whole numbers"
