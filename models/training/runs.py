"""A file that is too long to be sorted at once: sorted runs of it, and what all runs have of one range of users.

Each run has its rows by user. Ranges are chosen so that each has some _RANGE_ROWS rows of all runs together, and are
given one after another, so that what is held of the file at a time does not grow with it.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from models.training.columns import Columns
from models.training.gather import Batch, Gathered
from models.training.names import are_whole_numbers, in_order, inverse
from models.training.overflow import Overflow
from models.training.readers import read_into
from models.training.times import NUMBERS, Moments, Times
from safeio.files import writing
from safeio.staging import ROOM

_MOST_ROWS = 10_000_000_000
"""Interactions that are read; the disk may be full before."""
_BATCH_ROWS = 1 << 19
_BATCH_NAME_BYTES = 64 << 20
_RANGE_ROWS = 1 << 18
_DRAWN = 16
"""Names of a range by which it is chosen."""
_GOLDEN = (5**0.5 - 1) / 2
"""The multiples of which spread evenly between whole numbers."""


@dataclass(frozen=True)
class Run:
    """Some rows of a file by user, whose names are in their order.

    `users` has `name`, and `end`, where the rows of each end. `rows` has `item` and the time, which is `whole` with or
    without `billionths`, or `exact` as text; rows of a user are in the file's order.
    """

    users: pa.Table
    rows: pa.Table

    def opened(self) -> "Run":
        """Return it."""
        return self

    def ordered(self, as_numbers: bool) -> "Run":
        """Return it with the names in another order."""
        ends = self.users["end"].to_numpy()
        owner = np.repeat(np.arange(len(ends)), np.diff(ends, prepend=0))
        return _by_user(owner, self.users["name"].combine_chunks(), self.rows, as_numbers)

    def write(self, folder: Path, name: str) -> "StoredRun":
        """Write it to a folder; raises OutputError."""
        stored = StoredRun(folder / f"{name}.users.arrow", folder / f"{name}.rows.arrow")
        with writing(folder, ROOM):
            for table, file in ((self.users, stored.users), (self.rows, stored.rows)):
                with pa.OSFile(str(file), "wb") as opened, pa.ipc.new_file(opened, table.schema) as writer:
                    writer.write_table(table)
        return stored


@dataclass(frozen=True)
class StoredRun:
    """A run in two files."""

    users: Path
    rows: Path

    def opened(self) -> Run:
        """Return it, mapped: only what is looked at is read, and it is held as long as what is returned."""
        return Run(*(pa.ipc.open_file(pa.memory_map(str(file))).read_all() for file in (self.users, self.rows)))


@dataclass(frozen=True)
class Range:
    """All rows of some users: these by their places 0..U-1 in `names`, and items by number, and times [n].

    The names are in their order, and rows of a user in that of the file.
    """

    names: pa.LargeStringArray
    user: np.ndarray
    item: np.ndarray
    time: np.ndarray


class Runs:
    """The runs of a file: the last one in memory, those before on disk."""

    def __init__(self, overflow: Overflow) -> None:
        self._overflow = overflow
        self._items: dict[str, int] = {}
        self._stored: list[StoredRun] = []
        self._last: Run | None = None
        self._are_numbers: list[bool] = []

    @property
    def items(self) -> list[str]:
        """Return the names of all items, by their numbers."""
        return list(self._items)

    def add(self, batch: Batch) -> None:
        """Add the next rows; raises OutputError where the disk is full."""
        if self._last is not None:
            self._stored.append(self._written(self._last))
        self._are_numbers.append(are_whole_numbers(batch.user_names))
        numbers = [self._items.setdefault(name, len(self._items)) for name in batch.item_names.to_pylist()]
        rows = {"item": pa.array(np.array(numbers, np.int32)[batch.item]), **_stored_times(batch.times)}
        self._last = _by_user(batch.user, batch.user_names, pa.table(rows), self._are_numbers[-1])
        pa.default_memory_pool().release_unused()

    def ranges(self) -> Iterator[Range]:
        """Yield all rows, range after range in the order of the users' names; raises OutputError."""
        as_numbers = all(self._are_numbers)
        runs: list[Run | StoredRun] = [*self._stored, *([] if self._last is None else [self._last])]
        for at, was_by_number in enumerate(self._are_numbers):
            if was_by_number != as_numbers:
                ordered = runs[at].opened().ordered(as_numbers)
                runs[at] = ordered if runs[at] is self._last else self._written(ordered)
        for first, last in itertools.pairwise(_borders(runs, as_numbers)):
            yield _range(list(zip(runs, first, last, strict=True)), as_numbers)

    def _written(self, run: Run) -> StoredRun:
        return run.write(self._overflow.folder, f"run-{next(self._files)}")

    @cached_property
    def _files(self) -> Iterator[int]:
        return itertools.count()


def read_runs(path: Path, columns: Columns, overflow: Overflow) -> tuple[Runs, int, str]:
    """Read a file as `read_table` does, into runs; return them, how many lines are blank, and the file's sha256."""
    runs = Runs(overflow)
    gathered = Gathered(_MOST_ROWS, runs.add, _BATCH_ROWS, _BATCH_NAME_BYTES)
    blank, sha256 = read_into(gathered, path, columns)
    if gathered.held:
        runs.add(gathered.taken())
    return runs, blank, sha256


def _by_user(owner: np.ndarray, names: pa.LargeStringArray, rows: pa.Table, as_numbers: bool) -> Run:
    """Return a run of rows whose users are positions in names."""
    order = in_order(names, as_numbers)
    users = {"name": names.take(pa.array(order)), "end": np.cumsum(np.bincount(owner, minlength=len(names))[order])}
    by_user = np.argsort(inverse(order)[owner], kind="stable")
    return Run(pa.table(users), rows.take(pa.array(by_user)))


def _stored_times(times: Times) -> dict[str, pa.Array]:
    stored = times.stored()
    if not isinstance(stored, Moments):
        return {"exact": pa.array(map(str, stored), pa.large_string())}
    columns = {"whole": stored.whole, "billionths": stored.billionths}
    return {name: pa.array(column) for name, column in columns.items() if column is not None}


def _borders(runs: Sequence[Run | StoredRun], as_numbers: bool) -> list[list[int]]:
    """Return where ranges begin, and where the last one ends, as positions of users in each of the runs.

    Names are drawn from each run at even distances that begin elsewhere in each, so that all together tell the shares.
    """
    step, key = max(1, _RANGE_ROWS // _DRAWN), int if as_numbers else str
    drawn: list[int | str] = []
    for number, run in enumerate(runs):
        users = run.opened().users
        ends = users["end"].to_numpy()
        at = np.arange(int(step * (number * _GOLDEN % 1)), ends[-1], step)
        users_there = np.unique(np.searchsorted(ends, at, side="right"), return_counts=True)
        for user, count in zip(*users_there, strict=True):
            drawn += [key(users["name"][int(user)].as_py())] * int(count)
    between = sorted(set(sorted(drawn)[_DRAWN::_DRAWN]))
    borders = []
    for run in runs:
        names = run.opened().users["name"]
        inner = [bisect.bisect_left(range(len(names)), name, key=lambda at: key(names[at].as_py())) for name in between]
        borders.append([0, *inner, len(names)])
    # Where the very first user has many rows a range would begin with that name, and the one before be empty.
    return [list(border) for border, _ in itertools.groupby(zip(*borders, strict=True))]


def _range(parts: Sequence[tuple[Run | StoredRun, int, int]], as_numbers: bool) -> Range:
    """Return the rows of users from a first to a last position in each run."""
    names, counts, items, times = [], [], [], Times()
    for run, first, last in parts:
        if first == last:
            continue
        opened = run.opened()
        ends = opened.users["end"].slice(first, last - first).to_numpy()
        start = opened.users["end"][first - 1].as_py() if first else 0
        names.append(opened.users["name"].slice(first, last - first).combine_chunks())
        counts.append(np.diff(ends, prepend=start))
        rows = opened.rows.slice(start, int(ends[-1]) - start)
        items.append(np.array(rows["item"].to_numpy()))
        _add_times(times, rows)
    encoded = pa.concat_arrays(names).dictionary_encode()
    order = in_order(encoded.dictionary, as_numbers)
    user = np.repeat(inverse(order)[encoded.indices.to_numpy()], np.concatenate(counts))
    return Range(encoded.dictionary.take(pa.array(order)), user, np.concatenate(items), times.column())


def _add_times(times: Times, rows: pa.Table) -> None:
    """Add the times of stored rows, whose kinds were compared when they were read."""
    if "exact" in rows.column_names:
        for text in rows["exact"].to_pylist():
            times.append(text)
        return
    whole, *billionths = (np.array(rows[name].to_numpy()) for name in rows.column_names if name != "item")
    times.extend(Moments(whole, billionths[0] if billionths else None, NUMBERS))
