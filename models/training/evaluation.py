"""Which users a model is tested on, the candidates that it ranks for them, and its scores for these."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.training.data import Interactions, Split, histories, leave_one_out, training_positions
from models.training.gather import DataError
from models.training.progress import Watch, unwatched
from models.training.sampling import Clicked, clicked, sample_negatives

TRAIN_NEGATIVES = 4
TEST_NEGATIVES = 100
_SPARED = 10
"""One user in so many may have clicked too much of a small catalogue for the number of negatives that all get."""

Score = Callable[[Tensor, Tensor], Tensor]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Cases:
    """Users to be ranked for: histories [U, N], and candidates [U, 1 + negatives] with the positive in column 0."""

    item_ids: np.ndarray
    candidate_ids: np.ndarray


@dataclass(frozen=True)
class Negatives:
    """How many negatives each positive gets, fewer than usual in a small catalogue, and what is to be said of that."""

    train: int
    test: int
    notes: tuple[str, ...]


def split_to_train_on(interactions: Interactions, sampled: bool = True) -> tuple[Split, Negatives]:
    """Return the split of data that can be trained on and tested, and its negatives; raises DataError.

    Users who have clicked too much to be given the negatives that others get are not tested, and where negatives are
    `sampled` for the training also not trained on.
    """
    split = leave_one_out(interactions)
    if not len(split.train) or not len(split.test):
        raise DataError("no user has the four clicks that a training, a validation and a test target need")
    items, notes = interactions.vocabulary - 1, []
    test, tested = as_many(interactions, np.arange(len(interactions.items)), split.test, TEST_NEGATIVES)
    split = Split(split.train, split.validation[tested], split.test[tested])
    train, trained = 0, np.ones(len(split.train), bool)
    if sampled:
        train, trained = as_many(interactions, training_positions(interactions, split), split.train, TRAIN_NEGATIVES)
    for part, number, usual in (("training", train, TRAIN_NEGATIVES), ("test", test, TEST_NEGATIVES)):
        if 0 < number < usual:
            notes.append(f"{number} negatives per positive in the {part} in place of {usual}: there are {items} items")
    if not tested.all():
        notes.append(f"{int((~tested).sum())} users who have clicked all but fewer than {test} items are not tested")
    if not trained.all():
        notes.append(f"{int((~trained).sum())} clicks of users who have clicked nearly all items are not trained on")
    return Split(split.train[trained], split.validation, split.test), Negatives(train, test, tuple(notes))


def as_many(
    interactions: Interactions, positions: np.ndarray, targets: np.ndarray, usual: int
) -> tuple[int, np.ndarray]:
    """Return how many negatives nearly all users of targets have, `usual` at most, and which targets can be given them.

    A user's negatives are the items that the user has not clicked at these positions. Raises DataError.
    """
    keys, items = clicked(interactions, positions).keys, interactions.vocabulary - 1
    left = items - np.bincount(keys // interactions.vocabulary, minlength=interactions.users)
    owners = interactions.owners[targets]
    number = as_many_as_most_have(left_counts(left[np.unique(owners)], usual), items)
    return number, left[owners] >= number


def left_counts(left: np.ndarray, usual: int) -> np.ndarray:
    """Count the users [U] who have 0, 1, ... items left that they have not clicked, the last `usual` or more."""
    return np.bincount(np.minimum(left, usual), minlength=usual + 1)


def as_many_as_most_have(counts: np.ndarray, items: int) -> int:
    """Return how many negatives nearly all users of `left_counts` have who have any; raises DataError."""
    some = counts.copy()
    some[0] = 0
    if not some.any():
        raise DataError(
            f"no negatives can be drawn: of {items} items one user has clicked {items}, and nobody who could be trained"
            " on or tested has clicked fewer; take data with more items"
        )
    return int(np.searchsorted(np.cumsum(some), some.sum() // _SPARED, side="right"))


def ranking_cases(
    interactions: Interactions,
    targets: np.ndarray,
    history: int,
    seed: Sequence[int],
    negatives: int = TEST_NEGATIVES,
) -> Cases:
    """Return one case per target position, with negatives from all that its user never clicked."""
    excluded = clicked(interactions, np.arange(len(interactions.items)))
    return cases_without(interactions, excluded, targets, history, seed, negatives)


def cases_without(
    interactions: Interactions,
    excluded: Clicked,
    targets: np.ndarray,
    history: int,
    seed: Sequence[int],
    negatives: int,
) -> Cases:
    """Return one case per target position, with negatives that are not `excluded` for its user."""
    rng = np.random.default_rng(seed)
    drawn = sample_negatives(rng, excluded, interactions.owners[targets], negatives)
    positives = interactions.items[targets][:, None]
    return Cases(histories(interactions, targets, history), np.concatenate([positives, drawn], axis=1))


def score_cases(
    score: Score, cases: Cases, batch_size: int = 1024, device: torch.device = CPU, watch: Watch = unwatched
) -> np.ndarray:
    """Return the scores [U, 1 + negatives] of a model in eval mode, or of a part of it, for all cases."""
    scores = []
    with torch.no_grad():
        for start in range(0, len(cases.item_ids), batch_size):
            watch(start, len(cases.item_ids))
            part = slice(start, start + batch_size)
            batch = (torch.from_numpy(ids[part]).to(device) for ids in (cases.item_ids, cases.candidate_ids))
            scores.append(score(*batch).cpu().numpy())
    return np.concatenate(scores)


def popularity_scores(interactions: Interactions, trained_on: np.ndarray, cases: Cases, seed: int) -> np.ndarray:
    """Return as scores how often each candidate was clicked in training; ties, which are many, are broken at random."""
    counted = popularity(interactions, trained_on)[cases.candidate_ids]
    return np.asarray(counted + np.random.default_rng([seed, 4]).random(cases.candidate_ids.shape))


def popularity(interactions: Interactions, positions: np.ndarray) -> np.ndarray:
    """Return how often each item [V] was clicked at these positions."""
    return np.bincount(interactions.items[positions], minlength=interactions.vocabulary)
