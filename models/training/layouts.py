"""The layouts of interaction files, told from the first line: how a line becomes user, item, time and rating.

Ids are the text that stands there: `1`, `01`, `+1` and `1.0` are four ids. Only spaces and tabs around a table's cells
are no part of it. A number in JSON counts as its text, so that 1 and "1" are one id there, as 1 and "1" are in CSV.
"""

import csv
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, NoReturn

from models.training.times import NUMBER, parse_time

NAMES: Mapping[str, tuple[str, ...]] = {
    "user": ("user", "userId", "user_id", "reviewerID"),
    "item": ("item", "movieId", "item_id", "parent_asin", "asin", "business_id"),
    "time": ("order", "timestamp", "unixReviewTime", "date", "time"),
    "rating": ("rating", "overall", "stars"),
}
"""What columns and keys are called; where a file has several of one line, the first counts."""
MAX_CELL = 1 << 14
"""Characters of an id, a time or a rating."""
_HEADLESS = ("user", "item", "rating", "time")
_MAX_RATING = 10.0
_AMAZON_ITEM, _AMAZON_USER = re.compile(r"[B0-9][0-9A-Z]{9}"), re.compile(r"A[0-9A-Z]{9,}|#.+")
_NAME_IT = "put a header with user, item, rating and timestamp in the right order on the first line"


class Row(NamedTuple):
    """One interaction as a line has it; `rating` is None where the file has none."""

    user: str
    item: str
    time: str
    rating: float | None


Parser = Callable[[str], Row]
Split = Callable[[str], list[str]]


class _Number(str):
    """A number of a JSON document, as it is written there: a float would not tell 2^53 from its neighbour."""


class _Object(list[tuple[str, object]]):
    """The keys and values of a JSON object, repeated keys as well."""


def tell_layout(first: str) -> tuple[Parser, bool]:
    """Return how to parse the lines of a file with this first line, and whether that is a header; raises ValueError."""
    if first.lstrip().startswith("{"):
        return _json_layout(first), False
    split: Split = _split_csv
    if "\t" in first:
        split = lambda line: line.split("\t")  # noqa: E731
    elif len(first.split("::")) == len(_HEADLESS):  # MovieLens-1M and -10M
        split = lambda line: line.split("::")  # noqa: E731
    cells = [cell.strip() for cell in split(first)]
    places = {role: cells.index(name) for role in NAMES if (name := _first_name(role, cells)) is not None}
    if not places and len(cells) == len(_HEADLESS) and _is_number(cells[2]) and _is_time(cells[3]):
        return _headless(split, cells), False
    repeated = next((name for names in NAMES.values() for name in names if cells.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"the header has {cells.count(repeated)} columns called {repeated!r}; give each its own name")
    for role in ("user", "item", "time"):
        if role not in places:
            raise ValueError(
                f"no column for the {role}: expected a header with {', '.join(NAMES[role])}, or user, item, rating,"
                f" timestamp without a header; found {', '.join(cells)[:80]!r}"
            )
    return _table(split, len(cells), places), True


def _first_name(role: str, there: Sequence[str] | Mapping[str, object]) -> str | None:
    return next((name for name in NAMES[role] if name in there), None)


def _split_csv(line: str) -> list[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"{error}, in a line with quotes") from error


def _table(split: Split, count: int, places: Mapping[str, int]) -> Parser:
    """Return a parser for lines of `count` cells with the roles at these places."""
    user, item, time = (places[role] for role in ("user", "item", "time"))
    rating = places.get("rating")

    def parse(line: str) -> Row:
        cells = split(line)
        if len(cells) != count:
            raise ValueError(f"expected {count} columns, found {len(cells)}")
        rated = None if rating is None else _rating(_cell(cells[rating], "rating"))
        return Row(_cell(cells[user], "user"), _cell(cells[item], "item"), _cell(cells[time], "time"), rated)

    return parse


def _headless(split: Split, first: Sequence[str]) -> Parser:
    """Return a parser for a table without a header: user, item, rating, time; some of Amazon's have the item first.

    Nothing names the columns here, so each line must look like what its columns are held to be.
    """
    swapped = _items_come_first(*first[:2])
    user, item = (1, 0) if swapped else (0, 1)
    parse_cells = _table(split, len(_HEADLESS), {"user": user, "item": item, "rating": 2, "time": 3})

    def parse(line: str) -> Row:
        row = parse_cells(line)
        if _AMAZON_USER.fullmatch(row.item) and _AMAZON_ITEM.fullmatch(row.user):
            raise ValueError(
                "user and item stand the other way round than on the first line; write all lines in one way"
            )
        if row.rating is not None and not 0 <= row.rating <= _MAX_RATING:
            raise ValueError(
                f"{row.rating:g} is not a rating from 0 to {_MAX_RATING:g}, as the third column; {_NAME_IT}"
            )
        return row

    return parse


def _items_come_first(first: str, second: str) -> bool:
    """Tell from Amazon's ids which of two columns has the items; raises ValueError where they do not tell.

    Products are 10 signs that begin with B or a digit; reviewers begin with A, some with `#`. Ids that are neither,
    such as MovieLens's numbers, are in the usual order.
    """
    if _AMAZON_ITEM.fullmatch(first) and _AMAZON_USER.fullmatch(second):
        return True
    numbers = first.isdecimal() and second.isdecimal()
    if not numbers and (_AMAZON_ITEM.fullmatch(first) or _AMAZON_USER.fullmatch(second)):
        raise ValueError(
            f"which of {first[:40]!r} and {second[:40]!r} is the user and which the item cannot be told; {_NAME_IT}"
        )
    return False


def _json_layout(first: str) -> Parser:
    """Return a parser for reviews of Amazon or Yelp, one JSON object a line, with the keys that the first one has."""
    review = _parse_object(first)
    keys = {role: _first_name(role, review) for role in NAMES}
    for role in ("user", "item", "time"):
        if keys[role] is None:
            raise ValueError(f"no {role}: expected one of the keys {', '.join(NAMES[role])}")

    def parse(line: str) -> Row:
        review = _parse_object(line)

        def text(role: str) -> str:
            value = review.get(keys[role] or "")
            if not isinstance(value, str):
                raise ValueError(
                    f"no {role}: expected the key {keys[role]}, as on the first line, with a text or number"
                )
            return _checked(value, role)

        rated = None if keys["rating"] is None else _rating(text("rating"))
        return Row(text("user"), text("item"), text("time").strip(), rated)

    return parse


def _parse_object(line: str) -> dict[str, object]:
    """Return a JSON object whose numbers are kept as their texts; raises ValueError."""
    try:
        review = json.loads(
            line, object_pairs_hook=_Object, parse_int=_Number, parse_float=_Number, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("brackets are nested too deeply for a review") from None
    if not isinstance(review, _Object):
        raise ValueError("expected a JSON object")
    unique = dict(review)
    if len(unique) < len(review):
        repeated = Counter(key for key, _ in review).most_common(1)[0][0]
        raise ValueError(f"the key {repeated[:40]!r} stands there more than once; keep one")
    return unique


def _cell(cell: str, role: str) -> str:
    return _checked(cell.strip(" \t"), role)


def _checked(text: str, role: str) -> str:
    """Return an id, a time or a rating; raises ValueError for one that is empty, endless or no text."""
    if not text or text.isspace():
        raise ValueError(f"the {role} is empty")
    if len(text) > MAX_CELL:
        raise ValueError(f"the {role} has {len(text)} characters, more than {MAX_CELL}; is this the right column?")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"the {role} has half of a surrogate pair, which is no text")
    return text


def _rating(text: str) -> float:
    if not _is_number(text):
        raise ValueError(f"{text[:40]!r} is not a rating")
    return float(text)


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _is_time(text: str) -> bool:
    try:
        parse_time(text)
    except ValueError:
        return False
    return True


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")
