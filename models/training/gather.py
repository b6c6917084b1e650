"""Interactions as they are read, line by line or many at once, gathered into the columns of one table."""

import re
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.training.layouts import Row
from models.training.times import Moments, Times
from safeio.errors import BadInputError

MOST = 500_000_000
"""Interactions that are read; a small file that unpacks without end stops there."""
_WAITING_BYTES = 256 << 20
_WAITING_ROWS = 1 << 16
_WHOLE_NUMBER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)


class DataError(BadInputError, ValueError):
    """An interaction file that cannot be trained on; the message is one line and names file and line."""


@dataclass(frozen=True)
class Table:
    """Columns of n interactions in the file's order, how many blank lines it has, and the sha256 of its content.

    Users and items are the ranks of their names in `rank_names`; `time` orders as the file's times do (`Times.column`).
    `item_names` and `user_names` are their names as the file has them, by rank.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    blank: int
    sha256: str
    item_names: tuple[str, ...]
    user_names: tuple[str, ...]


@dataclass(frozen=True)
class Piece:
    """Many interactions in the file's order: ids as Arrow's arrays of text, which may be dictionaries."""

    user: pa.Array
    item: pa.Array
    time: Moments
    rating: np.ndarray | None


class Gathered:
    """What was read of a file so far."""

    def __init__(self) -> None:
        self.count = 0
        self._users, self._items, self._times = _Names(), _Names(), Times()
        self._ratings: list[np.ndarray] = []
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add one interaction; raises ValueError where its time is none or of another kind, or there are too many."""
        self._times.append(row.time)
        self._count(1)
        self._rows.append(row)
        if len(self._rows) == _WAITING_ROWS:
            self._flush()

    def extend(self, piece: Piece) -> bool:
        """Add many interactions, and return True; or False, with nothing added, where times are of another kind."""
        self._flush()
        if not self._times.extend(piece.time):
            return False
        self._count(len(piece.user))
        self._users.add(piece.user)
        self._items.add(piece.item)
        if piece.rating is not None:
            self._ratings.append(piece.rating)
        return True

    def table(self, blank: int, sha256: str) -> Table:
        """Return all of it, one interaction or more."""
        self._flush()
        user, user_names = self._users.ranked()
        item, item_names = self._items.ranked()
        rating = np.concatenate(self._ratings) if self._ratings else None
        return Table(user, item, self._times.column(), rating, blank, sha256, item_names, user_names)

    def _count(self, more: int) -> None:
        self.count += more
        if self.count > MOST:
            raise ValueError(
                f"there are more than {MOST} interactions, which is all that is read; take the latest ones"
            )

    def _flush(self) -> None:
        if self._rows:
            users, items, _, ratings = zip(*self._rows, strict=True)
            self._users.add(pa.array(users, pa.string()))
            self._items.add(pa.array(items, pa.string()))
            if ratings[0] is not None:
                self._ratings.append(np.array(ratings))
            self._rows = []


class _Names:
    """The names of a column: each once, for it may be long and on thousands of lines, and a number for each row."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._rows: list[np.ndarray] = []
        self._waiting: list[pa.Array] = []
        self._waiting_bytes = 0

    def add(self, names: pa.Array) -> None:
        # Arrow finds equal names faster the more of them it is given at once.
        if isinstance(names, pa.DictionaryArray):
            self._number(names.dictionary, [names.indices])
            return
        self._waiting.append(names)
        self._waiting_bytes += names.nbytes
        if self._waiting_bytes > _WAITING_BYTES:
            self._encode()

    def ranked(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return the rank of each row's name, [n] int64, and the names by rank."""
        self._encode()
        rank = rank_names(self._numbers)
        names = tuple(np.array(list(self._numbers), object)[np.argsort(rank)])
        return rank[np.concatenate(self._rows)], names

    def _encode(self) -> None:
        if self._waiting:
            chunks = pa.chunked_array(self._waiting).dictionary_encode().chunks
            self._number(chunks[-1].dictionary, [chunk.indices for chunk in chunks])
            self._waiting, self._waiting_bytes = [], 0

    def _number(self, dictionary: pa.Array, indices: list[pa.Array]) -> None:
        numbers = self._numbers
        ours = np.array([numbers.setdefault(name, len(numbers)) for name in dictionary.to_pylist()], np.int32)
        self._rows += [ours[index.to_numpy()] for index in indices]


def rank_names(names: dict[str, int]) -> np.ndarray:
    """Return for names with the indices 0..n-1, in this order, the place of each in their order, [n] int64.

    Where all are whole numbers of 64 bits as one writes them, without a plus or leading zeros, their order is that of
    numbers, else that of code points, which is that of UTF-8 bytes. The order decides which item gets which id.
    """
    ordered = sorted(names, key=int) if all(map(_is_whole_number, names)) else sorted(names)
    rank = np.empty(len(names), np.int64)
    rank[[names[name] for name in ordered]] = np.arange(len(names))
    return rank


def _is_whole_number(name: str) -> bool:
    return _WHOLE_NUMBER.fullmatch(name) is not None and -(2**63) <= int(name) < 2**63
