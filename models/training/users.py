"""All users of a file of clicks, as a trained model meets them: who can be ranked for, and with what cases.

A user's case is that of the test: the last click is the positive, those before it are the history, and the negatives
are drawn from what the user never clicked. For up to _AT_ONCE users it is the very draw of `cocorr-train`, as long as
each has three clicks; every further block of so many has a draw of its own, so that memory does not grow with them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from models.importing.golden import row_of
from models.training.columns import BY_NAME, Columns
from models.training.data import Interactions, read_with_users
from models.training.evaluation import TEST_NEGATIVES, Cases, as_many_as_most_have, cases_without, left_counts
from models.training.gather import DataError
from models.training.names import Names
from models.training.overflow import Overflow
from models.training.sampling import clicked, distinct

RANKED, ONE_CLICK, UNKNOWN_ITEMS, ALL_CLICKED = STATUSES = ("ranked", "one_click", "unknown_items", "all_clicked")
"""What becomes of a user: ranked for; has one click, which leaves no history; has fewer than two clicks on items that
the model knows; has clicked so much of the catalogue that too few negatives are left.
"""
Ids = Literal["raw", "as_trained", "rows"]
_RANKED = STATUSES.index(RANKED)
_AT_ONCE = 1 << 16
_CLICKS_AT_ONCE = 1 << 18
_TEST = 2
"""What follows the seed of a training where the negatives of its test are drawn."""


@dataclass(frozen=True)
class Catalogue:
    """The items of a model: V rows with row 0 for padding, their raw ids by row where those are known, and the
    `training` part of its config.json.
    """

    vocabulary: int
    names: Sequence[str] | None
    training: Mapping[str, Any]

    @property
    def seed(self) -> int:
        """Return the seed of the training, 0 where none is stated."""
        seed = self.training.get("seed", 0)
        return seed if isinstance(seed, int) and seed >= 0 else 0


@dataclass(frozen=True)
class Users:
    """U users in the order of their names: what the file calls them, their clicks, and what becomes of each.

    `clicks` and `unknown` [U] count all clicks and those on items that the model does not know, which are left out of
    `known`; `status` [U] has positions in STATUSES. `negatives` are drawn for each user. `ids` says how the file's item
    ids became rows: by the catalogue's own, in the order of the training, or because they are rows. Where the file is
    long, all but `status` lies on disk, and is read where it is looked at.
    """

    names: Names
    clicks: np.ndarray
    unknown: np.ndarray
    known: Interactions
    status: np.ndarray
    negatives: int
    seed: int
    ids: Ids
    overflow: Overflow

    @property
    def rankable(self) -> np.ndarray:
        """Return the users [R] who are ranked for, rising."""
        return np.flatnonzero(self.status == _RANKED)

    def cases(self, chosen: np.ndarray, history: int) -> Cases:
        """Return the cases of some users [n], rising positions of rankable ones, with histories of N clicks.

        They do not depend on who else is chosen.
        """
        blocks = np.searchsorted(self._borders, chosen, side="right") - 1
        parts = []
        for block in np.unique(blocks).tolist():
            whole = self._block(block, history)
            own = np.searchsorted(self._of_block(block), chosen[blocks == block])
            parts.append((whole.item_ids[own], whole.candidate_ids[own]))
        if not parts:
            return Cases(np.zeros((0, history), np.int32), np.zeros((0, 1 + self.negatives), np.int32))
        item_ids, candidate_ids = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Cases(item_ids, candidate_ids.astype(np.int32))

    def _block(self, block: int, history: int) -> Cases:
        """Return the cases of a block of rankable users; the latest is kept, since users come in their order."""
        key = block, history
        if key not in self._kept:
            self._kept.clear()
            users = self._of_block(block)
            seed = [self.seed, _TEST, *([block] if block else [])]
            own = self.known.between(int(users[0]), int(users[-1]) + 1)
            excluded = clicked(own, np.arange(len(own.items)))
            targets = own.starts[users - users[0] + 1] - 1
            self._kept[key] = cases_without(own, excluded, targets, history, seed, self.negatives)
            self.overflow.release()
        return self._kept[key]

    def _of_block(self, block: int) -> np.ndarray:
        """Return the rankable users of a block."""
        first, last = self._borders[block : block + 2].tolist()
        return np.asarray(first + np.flatnonzero(self.status[first:last] == _RANKED))

    @cached_property
    def _borders(self) -> np.ndarray:
        """Return the user with whom each block of _AT_ONCE rankable users begins, and U."""
        begin: list[int] = []
        before = 0
        for start in range(0, len(self.status), _AT_ONCE):
            ranked = start + np.flatnonzero(self.status[start : start + _AT_ONCE] == _RANKED)
            begin += ranked[-before % _AT_ONCE :][:1].tolist()
            before += len(ranked)
        return np.array([*begin, len(self.status)])

    @cached_property
    def _kept(self) -> dict[tuple[int, int], Cases]:
        return {}


def read_users(path: Path, catalogue: Catalogue, negatives: int | None = None, columns: Columns = BY_NAME) -> Users:
    """Read all users of a file of clicks, or of a folder of Parquet files; raises DataError.

    `negatives` are drawn for each; None takes as many as a test of these users would. A long file goes through the
    disk, and OutputError is raised where that has no room.
    """
    with Overflow() as overflow:
        clicks, names = read_with_users(path, catalogue.seed, overflow, columns)
        rows, ids = _rows(path, clicks, catalogue)
        known = _Known(overflow, catalogue.vocabulary, len(names))
        for first, last in _chunks(clicks.starts):
            known.add(first, clicks.between(first, last), rows)
            overflow.release()
        number = negatives or TEST_NEGATIVES
        if negatives is None and (known.status == _RANKED).any():
            number = as_many_as_most_have(known.left_counts, catalogue.vocabulary - 1)
        left = known.left.finished()
        known.status[(known.status == _RANKED) & (left < number)] = STATUSES.index(ALL_CLICKED)
        interactions = Interactions(
            known.items.finished(), known.starts.finished(), catalogue.vocabulary, clicks.sha256, clicks.notes
        )
        clicks_of, unknown = known.clicks.finished(), known.unknown.finished()
        overflow.release()
        pa.default_memory_pool().release_unused()
        return Users(names, clicks_of, unknown, interactions, known.status, number, catalogue.seed, ids, overflow)


class _Known:
    """What is gathered of users, some at a time: their clicks on items that the model knows, and how many of all."""

    def __init__(self, overflow: Overflow, vocabulary: int, users: int) -> None:
        self.items, self.starts = overflow.column(np.int32), overflow.column(np.int64)
        self.clicks, self.unknown, self.left = (overflow.column(np.int32) for _ in range(3))
        self.left_counts = np.zeros(TEST_NEGATIVES + 1, np.int64)
        self.status = np.full(users, _RANKED, np.int8)
        self._vocabulary, self._count = vocabulary, 0
        self.starts.append(np.zeros(1, np.int64))

    def add(self, first: int, clicks: Interactions, rows: np.ndarray) -> None:
        """Add all clicks of users from `first` on; `rows` has the model's row of each item, or 0."""
        row = rows[clicks.items]
        owners, counts = clicks.owners[row > 0], np.diff(clicks.starts)
        row = row[row > 0]
        known_counts = np.bincount(owners, minlength=clicks.users)
        different = distinct(owners * self._vocabulary + row) // self._vocabulary
        left = self._vocabulary - 1 - np.bincount(different, minlength=clicks.users)
        self.items.append(row)
        self.starts.append(self._count + np.cumsum(known_counts))
        self._count += len(row)
        self.clicks.append(counts)
        self.unknown.append(counts - known_counts)
        self.left.append(left)
        status = self.status[first : first + clicks.users]
        status[known_counts < 2] = STATUSES.index(UNKNOWN_ITEMS)
        status[counts < 2] = STATUSES.index(ONE_CLICK)
        self.left_counts += left_counts(left[status == _RANKED], TEST_NEGATIVES)


def _chunks(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield ranges of users with some _CLICKS_AT_ONCE clicks, or one user with more."""
    first, users = 0, len(starts) - 1
    while first < users:
        last = int(np.searchsorted(starts, starts[first] + _CLICKS_AT_ONCE, side="right")) - 1
        last = max(last, first + 1)
        yield first, last
        first = last


def _rows(path: Path, clicks: Interactions, catalogue: Catalogue) -> tuple[np.ndarray, Ids]:
    """Return the model's row of each item of a file, 0 for those that it does not know; raises DataError."""
    training, names = catalogue.training, clicks.names
    ids: Ids
    if catalogue.names is not None:
        by_id = {name: row for row, name in enumerate(catalogue.names) if row}
        own, ids = [by_id.get(name, 0) for name in names[1:]], "raw"
    elif training.get("data_sha256") == clicks.sha256 and training.get("interactions") == len(clicks.items):
        own, ids = list(range(1, len(names))), "as_trained"  # read with the seed of the training
    else:
        own, ids = [row_of(name, catalogue.vocabulary) for name in names[1:]], "rows"
    if not any(own):
        advice = {
            "raw": "give the data whose items it was trained on",
            "as_trained": "give the checkpoint that was trained on it",
            "rows": "it has no items.tsv, so that ids must be rows of its table; give a checkpoint that has one",
        }[ids]
        raise DataError(f"{path}: the model knows none of its {len(own)} items; {advice}")
    rows = np.array([0, *own], np.int32)
    if rows.max() >= catalogue.vocabulary:
        raise DataError(f"{path}: the checkpoint was trained on it and has other items; write the checkpoint again")
    return rows, ids
