"""All users of a file of clicks, as a trained model meets them: who can be ranked for, and with what cases.

A user's case is that of the test: the last click is the positive, those before it are the history, and the negatives
are drawn from what the user never clicked. For up to _AT_ONCE users it is the very draw of `cocorr-train`, as long as
each has three clicks; every further block of so many has a draw of its own, so that memory does not grow with them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from models.importing.golden import row_of
from models.training.columns import BY_NAME, Columns
from models.training.data import Interactions, read_with_users
from models.training.evaluation import TEST_NEGATIVES, Cases, as_many, cases_without
from models.training.gather import DataError
from models.training.sampling import clicked

RANKED, ONE_CLICK, UNKNOWN_ITEMS, ALL_CLICKED = STATUSES = ("ranked", "one_click", "unknown_items", "all_clicked")
"""What becomes of a user: ranked for; has one click, which leaves no history; has fewer than two clicks on items that
the model knows; has clicked so much of the catalogue that too few negatives are left.
"""
Ids = Literal["raw", "as_trained", "rows"]
_AT_ONCE = 1 << 16
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
    ids became rows: by the catalogue's own, in the order of the training, or because they are rows.
    """

    names: tuple[str, ...]
    clicks: np.ndarray
    unknown: np.ndarray
    known: Interactions
    status: np.ndarray
    negatives: int
    seed: int
    ids: Ids

    @cached_property
    def rankable(self) -> np.ndarray:
        """Return the users [R] who are ranked for."""
        return np.flatnonzero(self.status == STATUSES.index(RANKED))

    def cases(self, chosen: np.ndarray, history: int) -> Cases:
        """Return the cases of some users [n], rising positions of rankable ones, with histories of N clicks.

        They do not depend on who else is chosen.
        """
        place = np.searchsorted(self.rankable, chosen)
        parts = []
        for block in np.unique(place // _AT_ONCE).tolist():
            whole = self._block(block, history)
            own = place[place // _AT_ONCE == block] - block * _AT_ONCE
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
            users = self.rankable[block * _AT_ONCE : (block + 1) * _AT_ONCE]
            seed = [self.seed, _TEST, *([block] if block else [])]
            starts = self.known.starts
            own = clicked(self.known, np.arange(starts[users[0]], starts[users[-1] + 1]))
            self._kept[key] = cases_without(self.known, own, starts[users + 1] - 1, history, seed, self.negatives)
        return self._kept[key]

    @cached_property
    def _kept(self) -> dict[tuple[int, int], Cases]:
        return {}


def read_users(path: Path, catalogue: Catalogue, negatives: int | None = None, columns: Columns = BY_NAME) -> Users:
    """Read all users of a file of clicks, or of a folder of Parquet files; raises DataError.

    `negatives` are drawn for each; None takes as many as a test of these users would.
    """
    clicks, names = read_with_users(path, catalogue.seed, columns)
    rows, ids = _rows(path, clicks, catalogue)
    row = rows[clicks.items]
    owners, is_known = clicks.owners, row > 0
    counts, known_counts = np.diff(clicks.starts), np.bincount(owners[is_known], minlength=clicks.users)
    known = replace(
        clicks,
        items=row[is_known],
        starts=np.concatenate([[0], np.cumsum(known_counts)]),
        vocabulary=catalogue.vocabulary,
        names=(),
    )
    status = np.full(clicks.users, STATUSES.index(RANKED), np.int8)
    status[known_counts < 2] = STATUSES.index(UNKNOWN_ITEMS)
    status[counts < 2] = STATUSES.index(ONE_CLICK)
    rankable = np.flatnonzero(known_counts > 1)
    number = negatives or TEST_NEGATIVES
    if len(rankable):
        everything = np.arange(len(known.items))
        if negatives is None:
            number, enough = as_many(known, everything, known.starts[rankable + 1] - 1, TEST_NEGATIVES)
        else:
            own = np.bincount(clicked(known, everything).keys // known.vocabulary, minlength=known.users)
            enough = catalogue.vocabulary - 1 - own[rankable] >= number
        status[rankable[~enough]] = STATUSES.index(ALL_CLICKED)
    return Users(names, counts, counts - known_counts, known, status, number, catalogue.seed, ids)


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
