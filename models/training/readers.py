"""Interaction files as they are published: MovieLens, Amazon and Yelp ratings and plain tables, gzipped or not.

The layout is told from the first line; a line that does not follow it is an error with its number, never left out.
"""

import csv
import gzip
import hashlib
import json
import math
import re
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

USER_COLUMNS = ("user", "userId", "user_id", "reviewerID")
ITEM_COLUMNS = ("item", "movieId", "item_id", "parent_asin", "asin", "business_id")
TIME_COLUMNS = ("order", "timestamp", "unixReviewTime", "date")
RATING_COLUMNS = ("rating", "overall", "stars")
HEADLESS = "user, item, rating, timestamp"
AMAZON_ITEM, AMAZON_USER = re.compile(r"[B0-9][0-9A-Z]{9}"), re.compile(r"A[0-9A-Z]{9,}")
MAX_LINE = 1 << 24


class DataError(ValueError):
    """An interaction file that cannot be trained on; the message is one line and names file and line."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Row(NamedTuple):
    """One interaction as a line has it; `rating` is None where the file has none."""

    user: str
    item: str
    time: float
    rating: float | None


@dataclass(frozen=True)
class Table:
    """Columns of n interactions in the file's order, how many blank lines it has, and the sha256 of its content."""

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    blank: int
    sha256: str


Parser = Callable[[str], Row]


def read_table(path: Path) -> Table:
    """Read an interaction file of any known layout; raises DataError with file and line."""
    # Indices and not names: a name may stand on thousands of lines.
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, time, rating = array("q"), array("q"), array("d"), array("d")
    digest, blank, parse = hashlib.sha256(), 0, None
    for number, line in enumerate(_lines(path), start=1):
        digest.update(line)
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip("\r\n")
            if not text.strip():
                blank += 1
                continue
            if parse is None:
                parse, is_header = _layout(text)
                if is_header:
                    continue
            row = parse(text)
        except (ValueError, RecursionError, csv.Error) as error:  # what json and decode raise are ValueErrors
            raise DataError(f"{path}, line {number}: {error}") from error
        user.append(users.setdefault(row.user, len(users)))
        item.append(items.setdefault(row.item, len(items)))
        time.append(row.time)
        rating.append(math.nan if row.rating is None else row.rating)
    if not user:
        what = "is empty" if parse is None else "has a header and no interactions"
        raise DataError(f"{path} {what}; give a file with a user, an item and a time on each line")
    ratings = np.array(rating)
    return Table(
        user=_names(users)[np.array(user)],
        item=_names(items)[np.array(item)],
        time=np.array(time),
        rating=None if np.isnan(ratings).any() else ratings,
        blank=blank,
        sha256=digest.hexdigest(),
    )


def _names(names: Iterable[str]) -> np.ndarray:
    """Return names [n] as numbers where all are whole ones, so that their order is that of numbers."""
    column = np.array(list(names))
    try:
        return column.astype(np.int64)
    except (ValueError, OverflowError):
        return column


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked where it is gzipped; raises DataError where it cannot be read."""
    try:
        with path.open("rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            with gzip.open(raw) if packed else raw as file:
                while line := file.readline(MAX_LINE):
                    if len(line) == MAX_LINE:
                        raise DataError(f"{path} has a line of more than {MAX_LINE} bytes; that is no interaction")
                    yield line
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; give a file of interactions") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _layout(first: str) -> tuple[Parser, bool]:
    """Return how to parse the lines of a file with this first line, and whether that is a header."""
    if first.lstrip().startswith("{"):
        return _parse_json, False
    if "::" in first:  # MovieLens-1M and -10M
        return _columns(lambda line: line.split("::"), 4, {"user": 0, "item": 1, "rating": 2, "time": 3}), False
    if "\t" in first:
        split: Callable[[str], list[str]] = lambda line: line.split("\t")  # noqa: E731
    else:
        split = lambda line: next(csv.reader([line], strict=True))  # noqa: E731
    cells = [cell.strip() for cell in split(first)]
    wanted = {"user": USER_COLUMNS, "item": ITEM_COLUMNS, "time": TIME_COLUMNS, "rating": RATING_COLUMNS}
    places = {
        role: cells.index(name)
        for role, names in wanted.items()
        if (name := next((name for name in names if name in cells), None)) is not None
    }
    if not places and len(cells) == 4 and _is_number(cells[2]) and _is_number(cells[3]):
        # Amazon's ratings have no header, and no fixed order: reviewers' ids begin with A, products' with B or a digit.
        swapped = AMAZON_ITEM.fullmatch(cells[0]) and AMAZON_USER.fullmatch(cells[1])
        return _columns(split, 4, {"user": int(bool(swapped)), "item": int(not swapped), "rating": 2, "time": 3}), False
    for role in ("user", "item", "time"):
        if role not in places:
            raise ValueError(
                f"no column for the {role}: expected a header with {', '.join(wanted[role])}, or {HEADLESS} without a"
                f" header; found {', '.join(cells)[:80]!r}"
            )
    return _columns(split, len(cells), places), True


def _columns(split: Callable[[str], list[str]], count: int, places: dict[str, int]) -> Parser:
    """Return a parser for lines of `count` cells with the roles at these places."""
    user, item, time, rating = (places.get(role) for role in ("user", "item", "time", "rating"))
    assert user is not None and item is not None and time is not None  # noqa: S101 - _layout has seen to it

    def parse(line: str) -> Row:
        cells = split(line)
        if len(cells) != count:
            raise ValueError(f"expected {count} columns, found {len(cells)}")
        rated = None if rating is None else _number(cells[rating], "a rating")
        return Row(_name(cells[user], "user"), _name(cells[item], "item"), _time(cells[time]), rated)

    return parse


def _parse_json(line: str) -> Row:
    """Parse a review of Amazon or Yelp."""
    review = json.loads(line)
    if not isinstance(review, dict):
        raise ValueError("expected a JSON object")

    def value(role: str, names: tuple[str, ...]) -> str:
        found = next((review[name] for name in names if name in review), None)
        if not isinstance(found, str | int | float) or isinstance(found, bool):
            raise ValueError(f"no {role}: expected one of the keys {', '.join(names)}")
        return str(found)

    rated = any(name in review for name in RATING_COLUMNS)
    rating = _number(value("rating", RATING_COLUMNS), "a rating") if rated else None
    time = _time(value("time", TIME_COLUMNS))
    return Row(_name(value("user", USER_COLUMNS), "user"), _name(value("item", ITEM_COLUMNS), "item"), time, rating)


def _name(cell: str, role: str) -> str:
    name = cell.strip()
    if not name:
        raise ValueError(f"the {role} is empty")
    return name


def _number(cell: str, what: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        _refuse(cell, what)
    if not math.isfinite(number):
        _refuse(cell, what)
    return number


def _time(cell: str) -> float:
    """Return seconds since 1970, or any other number that grows with time; dates, as Yelp has them, count as UTC."""
    if re.match(r"\d{4}-\d\d-\d\d", cell.strip()):
        try:
            return datetime.fromisoformat(cell.strip()).replace(tzinfo=UTC).timestamp()
        except ValueError:
            _refuse(cell, "a date")
    return _number(cell, "a time")


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _refuse(cell: str, what: str) -> NoReturn:
    raise ValueError(f"{cell[:40]!r} is not {what}") from None
