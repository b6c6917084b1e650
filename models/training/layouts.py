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
from dataclasses import dataclass
from typing import NamedTuple, NoReturn

from models.training.columns import BY_NAME, NAMES, Columns, find_columns, has_published_name, listed
from models.training.times import NUMBER, parse_time

MAX_CELL = 1 << 14
"""Characters of an id, a time or a rating."""
_HEADLESS = ("user", "item", "rating", "time")
MAX_RATING = 10.0
"""Of a table without a header, where nothing else tells a rating from a time."""
AMAZON_ITEM, AMAZON_USER = "[B0-9][0-9A-Z]{9}", "A[0-9A-Z]{9,}|#.+"
_AMAZON_ITEM, _AMAZON_USER = re.compile(AMAZON_ITEM), re.compile(AMAZON_USER)
_NAME_IT = "put a header with user, item, rating and timestamp in the right order on the first line"


class Row(NamedTuple):
    """One interaction as a line has it; `rating` is None where the file has none."""

    user: str
    item: str
    time: str
    rating: float | None


Parser = Callable[[str], Row]
Split = Callable[[str], list[str]]


@dataclass(frozen=True)
class Cells:
    """How the lines of a table have their cells: `count` of them between delimiters, and which has which role."""

    delimiter: str
    count: int
    places: Mapping[str, int]
    headless: bool


@dataclass(frozen=True)
class Layout:
    """How a file has its interactions: `parse` takes a line, the first is none where it is a `header`.

    `cells` is None for JSON.
    """

    parse: Parser
    header: bool
    cells: Cells | None


class _Number(str):
    """A number of a JSON document, as it is written there: a float would not tell 2^53 from its neighbour."""


class _Object(list[tuple[str, object]]):
    """The keys and values of a JSON object, repeated keys as well."""


def tell_layout(first: str, columns: Columns = BY_NAME) -> Layout:
    """Return how a file with this first line has its interactions; raises ValueError."""
    if first.lstrip().startswith("{"):
        return Layout(_json_layout(first, columns), False, None)
    delimiter = ","
    if "\t" in first:
        delimiter = "\t"
    elif len(first.split("::")) == len(_HEADLESS):  # MovieLens-1M and -10M
        delimiter = "::"
    names = [cell.strip() for cell in _split(first, delimiter)]
    like_rows = len(names) == len(_HEADLESS) and _is_number(names[2]) and _is_time(names[3])
    if like_rows and not columns.given and not has_published_name(names):
        return _headless(delimiter, names)
    found = find_columns(names, columns)
    published = (name for role in NAMES.values() for name in role)
    repeated = next((name for name in (*found.values(), *published) if names.count(name) > 1), None)
    if repeated is not None:
        raise ValueError(f"the header has {names.count(repeated)} columns called {repeated!r}; give each its own name")
    for role in ("user", "item", "time"):
        if role not in found:
            raise ValueError(
                f"no column for the {role}: expected a header with {', '.join(NAMES[role])}, or user, item, rating,"
                f" timestamp without a header; found {listed(names)}; name it with --columns {role}=NAME"
            )
    cells = Cells(delimiter, len(names), {role: names.index(name) for role, name in found.items()}, headless=False)
    return Layout(_table(cells), True, cells)


def _split(line: str, delimiter: str) -> list[str]:
    return _split_csv(line) if delimiter == "," else line.split(delimiter)


def _split_csv(line: str) -> list[str]:
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader([line], strict=True))
    except csv.Error as error:
        raise ValueError(f"{error}, in a line with quotes") from error


def _table(layout: Cells) -> Parser:
    """Return a parser for the lines of a table."""
    user, item, time = (layout.places[role] for role in ("user", "item", "time"))
    rating = layout.places.get("rating")

    def parse(line: str) -> Row:
        cells = _split(line, layout.delimiter)
        if len(cells) != layout.count:
            raise ValueError(f"expected {layout.count} columns, found {len(cells)}")
        rated = None if rating is None else parse_rating(_cell(cells[rating], "rating"))
        return Row(_cell(cells[user], "user"), _cell(cells[item], "item"), _cell(cells[time], "time"), rated)

    return parse


def _headless(delimiter: str, first: Sequence[str]) -> Layout:
    """Return the layout of a table without a header: user, item, rating, time; some of Amazon's have the item first.

    Nothing names the columns here, so each line must look like what its columns are held to be.
    """
    user, item = (1, 0) if _items_come_first(*first[:2]) else (0, 1)
    cells = Cells(delimiter, len(_HEADLESS), {"user": user, "item": item, "rating": 2, "time": 3}, headless=True)
    parse_cells = _table(cells)

    def parse(line: str) -> Row:
        row = parse_cells(line)
        if _AMAZON_USER.fullmatch(row.item) and _AMAZON_ITEM.fullmatch(row.user):
            raise ValueError(
                "user and item stand the other way round than on the first line; write all lines in one way"
            )
        if row.rating is not None and not 0 <= row.rating <= MAX_RATING:
            raise ValueError(
                f"{row.rating:g} is not a rating from 0 to {MAX_RATING:g}, as the third column; {_NAME_IT}"
            )
        return row

    return Layout(parse, False, cells)


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


def _json_layout(first: str, columns: Columns) -> Parser:
    """Return a parser for one JSON object a line, such as Amazon's and Yelp's reviews, with the keys of the first."""
    keys = find_columns(list(_parse_object(first)), columns, "key")
    for role in ("user", "item", "time"):
        if role not in keys:
            raise ValueError(
                f"no {role}: expected one of the keys {', '.join(NAMES[role])}; name it with --columns {role}=NAME"
            )

    def parse(line: str) -> Row:
        review = _parse_object(line)

        def text(role: str) -> str:
            value = review.get(keys[role])
            if not isinstance(value, str):
                raise ValueError(
                    f"no {role}: expected the key {keys[role]}, as on the first line, with a text or number"
                )
            return checked(value, role)

        rated = parse_rating(text("rating")) if "rating" in keys else None
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
    return checked(cell.strip(" \t"), role)


def checked(text: str, role: str) -> str:
    """Return an id, a time or a rating; raises ValueError for one that is empty, endless or no text."""
    if not text or text.isspace():
        raise ValueError(f"the {role} is empty")
    if len(text) > MAX_CELL:
        raise ValueError(f"the {role} has {len(text)} characters, more than {MAX_CELL}; is this the right column?")
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(f"the {role} has half of a surrogate pair, which is no text")
    return text


def parse_rating(text: str) -> float:
    """Return a rating; raises ValueError for what is no finite number."""
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
