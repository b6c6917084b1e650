"""Interactions, filtered and sorted, and their chronological leave-one-out split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.training.columns import BY_NAME, Columns
from models.training.gather import DataError, Table
from models.training.names import Names, rank_names
from models.training.overflow import Overflow, Texts
from models.training.readers import read_table
from models.training.runs import read_runs
from models.training.settings import ALL, Filters


@dataclass(frozen=True)
class Interactions:
    """Clicks sorted by user and time: item ids 1..V-1 [n], and where each user's clicks start, then n, [U + 1].

    `notes` says what of the file was left out, and why. `names` has what the file calls each item, by its id here; the
    name of 0, which is padding, is "".
    """

    items: np.ndarray
    starts: np.ndarray
    vocabulary: int
    sha256: str
    notes: tuple[str, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def users(self) -> int:
        """Return U."""
        return len(self.starts) - 1

    @property
    def owners(self) -> np.ndarray:
        """Return the user, 0..U-1, of each click [n]."""
        return np.repeat(np.arange(self.users), np.diff(self.starts))

    def between(self, first: int, last: int) -> "Interactions":
        """Return the clicks of users from `first` up to `last`, who are then the users 0, 1, ...; a copy."""
        starts = np.array(self.starts[first : last + 1])
        return replace(self, items=np.array(self.items[starts[0] : starts[-1]]), starts=starts - starts[0])


@dataclass(frozen=True)
class Split:
    """Positions in `Interactions.items` of the targets; a target's history is what its user clicked before."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def read_interactions(path: Path, seed: int, filters: Filters = ALL, columns: Columns = BY_NAME) -> Interactions:
    """Read a file of any known layout; items become a seeded permutation of 1..V-1, whose `names` are the file's ids.

    Clicks of one user at one time keep the file's order. Raises DataError.
    """
    return _sorted(path, read_table(path, columns), seed, filters)


def read_with_users(
    path: Path, seed: int, overflow: Overflow, columns: Columns = BY_NAME
) -> tuple[Interactions, Names]:
    """Read a file as `read_interactions` does, nothing left out, and what the file calls each of the U users.

    A long file goes through the disk: what is held of it does not grow with it, but for the names of its items. Raises
    OutputError too, where the disk has no room.
    """
    runs, blank, sha256 = read_runs(path, columns, overflow)
    numbers = rank_names(pa.array(runs.items, pa.large_string()))
    ids, item_names = _shuffled([runs.items[number] for number in np.argsort(numbers).tolist()], seed)
    id_of = ids.astype(np.int32)[numbers]
    names, items, starts = Texts(overflow), overflow.column(np.int32), overflow.column(np.int64)
    starts.append(np.zeros(1, np.int64))
    count = repeated = 0
    for part in runs.ranges():
        order = _by_user_and_time(part.user, part.time)
        order = order[~_repeated(part.user, part.item, part.time, order)[order]]
        names.append(part.names)
        items.append(id_of[part.item[order]])
        starts.append(count + np.cumsum(np.bincount(part.user[order])))
        count, repeated = count + len(order), repeated + len(part.user) - len(order)
    notes = tuple(_notes(blank, repeated))
    read = Interactions(items.finished(), starts.finished(), len(id_of) + 1, sha256, notes, item_names)
    return read, Names(names.finished())


def _sorted(path: Path, table: Table, seed: int, filters: Filters) -> Interactions:
    order = _by_user_and_time(table.user, table.time)
    kept, notes = _keep(path, table, order, filters)
    order = order[kept[order]]
    user, item = table.user[order], table.item[order]
    counts, clicks = np.bincount(user), np.bincount(item)
    ranks = np.flatnonzero(clicks)
    permutation, names = _shuffled([table.item_names[rank] for rank in ranks.tolist()], seed)
    row = np.zeros(len(clicks), np.int32)
    row[ranks] = permutation
    return Interactions(
        items=row[item],
        starts=np.concatenate([[0], np.cumsum(counts[counts > 0])]),
        vocabulary=len(ranks) + 1,
        sha256=table.sha256,
        notes=notes,
        names=names,
    )


def _shuffled(names: Sequence[str], seed: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the id 1..V-1 of each item by the place of its name in their order, and names by id, "" for 0."""
    ids = np.random.default_rng(seed).permutation(len(names)) + 1
    return ids, ("", *(names[place] for place in np.argsort(ids).tolist()))


def _by_user_and_time(user: np.ndarray, time: np.ndarray) -> np.ndarray:
    """Return the positions of the rows by user, then time; rows that have both in common keep their order."""
    least, span = int(time.min()), int(time.max()) - int(time.min()) + 1
    if (int(user.max()) + 1) * span >= 2**63:
        return np.lexsort((time, user))
    return np.argsort(user * span + (time - least), kind="stable")  # the same, in half the time


def _keep(path: Path, table: Table, order: np.ndarray, filters: Filters) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return for each row whether it stays [n], and what was left out."""
    user, item = table.user, table.item
    kept = np.flatnonzero(~_repeated(user, item, table.time, order))
    notes = _notes(table.blank, len(user) - len(kept))
    if filters.min_rating is not None:
        if table.rating is None:
            raise DataError(f"{path} has no ratings to compare with --min-rating; leave that out")
        before, kept = len(kept), kept[table.rating[kept] >= filters.min_rating]
        notes.append(f"{before - len(kept)} interactions rated below {filters.min_rating:g} left out")
    before = len(kept)
    while True:
        enough = np.bincount(user[kept])[user[kept]] >= filters.min_user_clicks
        enough &= np.bincount(item[kept])[item[kept]] >= filters.min_item_clicks
        if enough.all():
            break
        kept = kept[enough]
    if len(kept) < before:
        least = f"{filters.min_user_clicks} clicks per user and {filters.min_item_clicks} per item"
        notes.append(f"{before - len(kept)} interactions left out, so that there are at least {least}")
    if not len(kept):
        raise DataError(f"{path}: no interaction is left after the filters; lower them ({'; '.join(notes)})")
    stays = np.zeros(len(user), bool)
    stays[kept] = True
    return stays, tuple(notes)


def _notes(blank: int, repeated: int) -> list[str]:
    skipped = ((blank, "blank lines"), (repeated, "repetitions of a user, item and time"))
    return [f"{count} {what} skipped" for count, what in skipped if count]


def _repeated(user: np.ndarray, item: np.ndarray, time: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return for each row whether one before it in the file has the same user, item and time, [n] bool.

    `order` has the rows by user and time, those that have both in common as they stand in the file.
    """
    same = np.diff(user[order]) == 0
    same &= np.diff(time[order]) == 0
    moment = np.concatenate([[0], np.cumsum(~same)])  # [n], one number for each user and time
    shared = np.zeros(len(order), bool)
    shared[1:] |= same
    shared[:-1] |= same
    rows, moment = order[shared], moment[shared]
    by_item = np.lexsort((item[rows], moment))  # stable: of equal rows the first in the file stands first
    rows, moment = rows[by_item], moment[by_item]
    again = (np.diff(item[rows]) == 0) & (np.diff(moment) == 0)
    repeated = np.zeros(len(order), bool)
    repeated[rows[1:][again]] = True
    return repeated


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


def training_positions(interactions: Interactions, split: Split) -> np.ndarray:
    """Return the positions of all clicks but those that are held out for validation and test, in their order."""
    held_out = np.concatenate([split.validation, split.test])
    return np.setdiff1d(np.arange(len(interactions.items)), held_out)


def histories(interactions: Interactions, targets: np.ndarray, length: int) -> np.ndarray:
    """Return up to `length` latest clicks before each target, padded with 0 on the right, [targets, length] int32."""
    starts = interactions.starts[np.searchsorted(interactions.starts, targets, side="right") - 1]
    begin = np.maximum(starts, targets - length)
    positions = begin[:, None] + np.arange(length)  # [targets, length]
    inside = positions < targets[:, None]
    return np.where(inside, interactions.items[np.where(inside, positions, 0)], 0).astype(np.int32)
