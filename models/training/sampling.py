"""Sampled negatives: items that a user has not clicked, distinct within a row."""

from dataclasses import dataclass

import numpy as np

from models.training.data import Interactions
from models.training.gather import DataError

_KEYS = 1 << 22
_ROWS = 1 << 12
"""Rows that are looked at together: what that takes of memory is many times what was drawn."""


@dataclass(frozen=True)
class Clicked:
    """Who clicked what: sorted keys user * V + item, so that one binary search answers for many pairs."""

    keys: np.ndarray
    vocabulary: int

    def among(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Return for users [R] and items [R, n] whether each was clicked, [R, n]."""
        pairs = users[:, None] * self.vocabulary + items
        nearest = np.minimum(np.searchsorted(self.keys, pairs), len(self.keys) - 1)
        return np.asarray(self.keys[nearest] == pairs)


def clicked(interactions: Interactions, positions: np.ndarray) -> Clicked:
    """Return who clicked what at these positions of `interactions.items`."""
    keys = interactions.owners[positions] * interactions.vocabulary + interactions.items[positions]
    return Clicked(distinct(keys), interactions.vocabulary)


def distinct(keys: np.ndarray) -> np.ndarray:
    """Return different keys [n], rising; of keys that are nearly in order in a third of the time of np.unique."""
    ordered = np.sort(keys)
    return np.asarray(ordered[np.diff(ordered, prepend=-1) != 0])


def sample_negatives(rng: np.random.Generator, excluded: Clicked, users: np.ndarray, count: int) -> np.ndarray:
    """Draw `count` distinct items of 1..V-1 for each user [R] that are not `excluded`, uniformly, as [R, count] int32.

    Raises DataError where one of them has clicked so much that fewer than `count` items are left.
    """
    most = int(np.bincount(excluded.keys // excluded.vocabulary, minlength=int(users.max()) + 1)[users].max())
    if excluded.vocabulary - 1 - most < count:
        items = excluded.vocabulary - 1
        raise DataError(
            f"{count} negatives per user cannot be drawn: of {items} items one user has clicked {most}; take data with"
            f" {count + most} items or more"
        )
    if excluded.vocabulary - 1 - most < 2 * count:  # drawing again until all are right would take long
        at_once = max(1, _KEYS // excluded.vocabulary)
        parts = [users[start : start + at_once] for start in range(0, len(users), at_once)]
        return np.concatenate([_sample_of_few(rng, excluded, part, count) for part in parts])
    drawn = rng.integers(1, excluded.vocabulary, (len(users), count), dtype=np.int32)
    rows = np.arange(len(users))
    while len(rows):
        parts = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)]
        again = [_unfit(excluded, users, drawn, part) for part in parts]
        row, column = (np.concatenate(places) for places in zip(*again, strict=True))
        drawn[row, column] = rng.integers(1, excluded.vocabulary, len(row), dtype=np.int32)
        rows = np.unique(row)
    return drawn


def _unfit(excluded: Clicked, users: np.ndarray, drawn: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the places, as rows and columns of `drawn`, in some rows of it that are excluded or stand there before."""
    wrong = excluded.among(users[rows], drawn[rows])
    order = np.argsort(drawn[rows], axis=1, kind="stable")
    ordered = np.take_along_axis(drawn[rows], order, axis=1)
    repeated = np.zeros_like(wrong)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    row, column = np.nonzero(wrong | repeated)
    return rows[row], column


def _sample_of_few(rng: np.random.Generator, excluded: Clicked, users: np.ndarray, count: int) -> np.ndarray:
    """Draw as `sample_negatives` does, by one random number for each user and item."""
    items = np.broadcast_to(np.arange(1, excluded.vocabulary), (len(users), excluded.vocabulary - 1))
    keys = rng.random(items.shape)
    keys[excluded.among(users, items)] = 2.0  # behind all others
    return np.argsort(keys, axis=1)[:, :count].astype(np.int32) + np.int32(1)
