"""Interactions as they are read, line by line or many at once, gathered into the columns of one table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from models.training.layouts import Row
from models.training.names import NameColumn, are_whole_numbers, in_order, inverse
from models.training.times import Moments, Times
from safeio.errors import BadInputError

MOST = 500_000_000
"""Interactions that are read; a small file that unpacks without end stops there."""
_WAITING_ROWS = 1 << 16


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


@dataclass(frozen=True)
class Batch:
    """Rows in the file's order, one or more: positions [n] among the names of users and of items, and their times."""

    user: np.ndarray
    user_names: pa.LargeStringArray
    item: np.ndarray
    item_names: pa.LargeStringArray
    times: Times
    rating: np.ndarray | None


class Gathered:
    """What was read of a file so far, `most` interactions in all.

    With `hand_on` not all of it is held: as soon as there are `rows` of them, or names of so many `name_bytes`, these
    are handed on as a batch.
    """

    def __init__(
        self,
        most: int = MOST,
        hand_on: Callable[[Batch], None] | None = None,
        rows: int = 0,
        name_bytes: int = 0,
    ) -> None:
        self.count = 0
        self._most, self._hand_on, self._most_held, self._most_bytes = most, hand_on, rows, name_bytes
        self._held = 0
        self._users, self._items, self._times = NameColumn(), NameColumn(), Times()
        self._ratings: list[np.ndarray] = []
        self._rows: list[Row] = []

    def add(self, row: Row) -> None:
        """Add one interaction; raises ValueError where its time is none or of another kind, or there are too many."""
        self._times.append(row.time)
        self._count(1)
        self._rows.append(row)
        if len(self._rows) == _WAITING_ROWS:
            self._flush()
            self._hand_on_if_full()

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
        self._hand_on_if_full()
        return True

    def table(self, blank: int, sha256: str) -> Table:
        """Return all of it, one interaction or more."""
        held = self.taken()
        user, user_names = _ranked(held.user, held.user_names)
        item, item_names = _ranked(held.item, held.item_names)
        return Table(user, item, held.times.column(), held.rating, blank, sha256, item_names, user_names)

    @property
    def held(self) -> int:
        """Return how many interactions are held."""
        return self._held

    def taken(self) -> Batch:
        """Return what is held, one interaction or more, and hold it no longer."""
        self._flush()
        rating = np.concatenate(self._ratings) if self._ratings else None
        self._held, self._ratings = 0, []
        return Batch(*self._users.taken(), *self._items.taken(), self._times.taken(), rating)

    def _hand_on_if_full(self) -> None:
        if self._hand_on is not None and (
            self._held >= self._most_held or self._users.nbytes + self._items.nbytes >= self._most_bytes
        ):
            self._hand_on(self.taken())

    def _count(self, more: int) -> None:
        self.count += more
        self._held += more
        if self.count > self._most:
            raise ValueError(
                f"there are more than {self._most} interactions, which is all that is read; take the latest ones"
            )

    def _flush(self) -> None:
        if self._rows:
            users, items, _, ratings = zip(*self._rows, strict=True)
            self._users.add(pa.array(users, pa.string()))
            self._items.add(pa.array(items, pa.string()))
            if ratings[0] is not None:
                self._ratings.append(np.array(ratings))
            self._rows = []


def _ranked(rows: np.ndarray, names: pa.LargeStringArray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the rank of each row's name, [n] int64, and the names by rank."""
    order = in_order(names, are_whole_numbers(names))
    return inverse(order)[rows], tuple(names.take(pa.array(order)).to_pylist())
