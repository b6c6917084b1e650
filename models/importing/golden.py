"""Golden cases of imported weights: from the clicks of a file, or drawn."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from models.importing.weights_file import ImportingError
from models.training.data import Interactions, read_interactions
from models.training.evaluation import ranking_cases, split_to_train_on
from models.training.golden import golden_cases

SEED = 0
"""That of cocorr-train's default: it draws the negatives and chooses the cases."""


def from_clicks(
    model: nn.Module, path: Path, rows: Sequence[str] | None, vocabulary: int, length: int
) -> tuple[dict[str, np.ndarray], Interactions]:
    """Return the golden cases that cocorr-train would write for a model of V rows, and the clicks that they are from.

    `rows` has the id of each row of the item table as the file of clicks writes it, "" for row 0; without it, the ids
    in the file are the rows. Raises DataError, and ImportingError where an item has no row.
    """
    clicks = read_interactions(path, SEED)
    by_id = {item: row for row, item in enumerate(rows)} if rows is not None else None
    own = [row_of(name, vocabulary) if by_id is None else by_id.get(name, 0) for name in clicks.names[1:]]
    strange = [name for name, row in zip(clicks.names[1:], own, strict=True) if not row]
    if strange:
        where = f"no row from 1 to {vocabulary - 1}" if rows is None else "no line of --items"
        advice = "give --items with the id of every row" if rows is None else "take them out, or give their catalogue"
        raise ImportingError(
            f"{path}: {len(strange)} of its {len(own)} items are {where}, {strange[0][:40]!r} first; {advice}"
        )
    to_row = np.array([0, *own], np.int32)
    clicks = replace(clicks, items=to_row[clicks.items], vocabulary=vocabulary, names=())
    split, negatives = split_to_train_on(clicks)
    test = ranking_cases(clicks, split.test, length, [SEED, 2], negatives.test)
    return golden_cases(model, test, SEED), clicks


def row_of(name: str, vocabulary: int) -> int:
    """Return the row that an id is by itself, or 0 where it is none."""
    plain = name.isascii() and name.isdecimal() and len(name) <= 9 and not name.startswith("0")
    return int(name) if plain and int(name) < vocabulary else 0
