"""The item ids that a user names on the command line, and which rows of the item table they are.

Where a checkpoint or an artifact has the raw ids of its catalogue (`safeio.catalogue`), ids are those, to the letter,
and a list of them is CSV, or a text file with one id a line as it is. Elsewhere ids are the rows themselves.
"""

import csv
import io
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from exporter.core.errors import BadInputError
from safeio import catalogue, files

MAX_FILE_BYTES = 1 << 20
_MAX_DIGITS = 18
_SHOWN = 3
_SHOWN_LETTERS = 40


@dataclass(frozen=True)
class Items:
    """The items of one table of V rows, row 0 for padding: `names` has their raw ids by row, or is None.

    `owner` is the checkpoint or artifact as the user knows it; `vocabulary` is V.
    """

    owner: str
    names: tuple[str, ...] | None
    vocabulary: int

    @property
    def kind(self) -> Literal["raw", "rows"]:
        """Say what the ids are that `rows` takes and `name` gives."""
        return "rows" if self.names is None else "raw"

    @property
    def note(self) -> str | None:
        """Say so where ids are rows."""
        if self.names is not None:
            return None
        return f"{self.owner} has no {catalogue.FILE}: ids are rows of its item table, 1 to {self.vocabulary - 1}"

    def name(self, row: int) -> str:
        """Return the id of an item as users know it."""
        return str(row) if self.names is None else self.names[row]

    def rows(self, option: str, text: str) -> list[int]:
        """Return the rows of the ids that an option was given, as a list or a file; raises BadInputError."""
        rows = _numbers(option, text) if self.names is None else self._rows_of_names(option, text)
        if not rows:
            raise BadInputError(f"{option} is empty; give at least one item id")
        unknown = [str(row) for row in rows if not 1 <= row < self.vocabulary]
        if unknown:
            raise BadInputError(
                f"{option} has unknown item ids, {_first(unknown)}; those of {self.owner} are from 1 to"
                f" {self.vocabulary - 1}"
            )
        return rows

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {name: row for row, name in enumerate(self.names or ()) if row}

    def _has(self, ids: Sequence[str]) -> bool:
        return all(name in self._row_of for name in ids)

    def _rows_of_names(self, option: str, text: str) -> list[int]:
        ids, fault = _split(text, skip_spaces=False)
        listed = fault is None and self._has(ids)
        if not listed:  # `a, b` for `a,b`; where an id begins with a space, that was the reading above
            ids, fault = _split(text, skip_spaces=True)
            listed = fault is None and self._has(ids)
        there, advice = os.path.lexists(text), "or name a text file with one id a line"
        if there and listed and Path(text).is_file():
            raise BadInputError(
                f"{option}: {text!r} is an id and a file; write ./{text} for the file, and ids in quotes"
            )
        if there and not listed:
            ids, fault, advice = _lines(option, text), None, "and a file has one on each line as it is"
            option = f"{option}, file {text}:"
        if fault is not None:
            raise BadInputError(f"{option}: {fault}; write ids as a line of CSV, 'B01,\"a, b\",7', {advice}")
        unknown = [repr(name[:_SHOWN_LETTERS]) for name in dict.fromkeys(ids) if name not in self._row_of]
        if unknown:
            raise BadInputError(
                f"{option} {_first(unknown)} {'is' if len(unknown) == 1 else 'are'} not in the catalogue of"
                f" {self.owner}; write ids to the letter as the data has them (see {catalogue.FILE}), {advice}"
            )
        return [self._row_of[name] for name in ids]


def _split(text: str, skip_spaces: bool) -> tuple[list[str], str | None]:
    """Return the cells of CSV, with or without the spaces that they begin with, and what is wrong with it."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=skip_spaces)
    try:
        cells = [cell for row in reader for cell in row]
    except csv.Error as error:
        return [], str(error)
    return cells, "an id is empty" if "" in cells else None


def _lines(option: str, path: str) -> list[str]:
    """Return the lines of a text file that are not blank, each as it stands there."""
    lines = _read(option, path).removeprefix("\ufeff").split("\n")
    return [line for line in (line.removesuffix("\r") for line in lines) if line and not line.isspace()]


def _numbers(option: str, text: str) -> list[int]:
    """Return the numbers of `3,17,5`, or of a text file of numbers."""
    if not re.fullmatch(r"[\s\d,+-]*", text, re.ASCII):
        option, text = f"{option}, file {text}", _read(option, text)
    words = [word for word in re.split(r"[\s,]+", text) if word]
    for word in words:
        if not re.fullmatch(r"[+-]?\d+", word, re.ASCII) or len(word) > _MAX_DIGITS:
            raise BadInputError(f"{option}: {word[:40]!r} is no item id; write whole numbers with commas between")
    return [int(word) for word in words]


def _read(option: str, path: str) -> str:
    try:
        return files.read_file(Path(path), MAX_FILE_BYTES, follow_link=True).decode()
    except files.UnreadableError as error:
        what = "is neither item ids nor a file of them" if error.missing else str(error)
        raise BadInputError(f"{option}: {path!r} {what}; give the ids, 3,17,5, or a text file") from error
    except UnicodeDecodeError as error:
        raise BadInputError(f"{option}: {path} is no text; give a file of item ids, or the ids: 3,17,5") from error


def _first(words: Sequence[str]) -> str:
    more = f" and {len(words) - _SHOWN} more" if len(words) > _SHOWN else ""
    return f"{', '.join(words[:_SHOWN])}{more}"
