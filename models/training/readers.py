"""Interaction files as they are published: MovieLens, Amazon and Yelp ratings and plain tables, gzipped or not.

The layout is told from the first line; a line that does not follow it is an error with its number, never left out.
"""

import gzip
import hashlib
import re
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from models.training.layouts import tell_layout
from models.training.times import Times
from safeio.errors import BadInputError
from safeio.files import UnreadableError, open_file

MAX_LINE = 1 << 24
_WHOLE_NUMBER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)


class DataError(BadInputError, ValueError):
    """An interaction file that cannot be trained on; the message is one line and names file and line."""


@dataclass(frozen=True)
class Table:
    """Columns of n interactions in the file's order, how many blank lines it has, and the sha256 of its content.

    Users and items are the ranks of their names in `rank_names`; `time` orders as the file's times do (`Times.column`).
    `item_names` are the items' names as the file has them, by rank.
    """

    user: np.ndarray
    item: np.ndarray
    time: np.ndarray
    rating: np.ndarray | None
    blank: int
    sha256: str
    item_names: tuple[str, ...]


def read_table(path: Path) -> Table:
    """Read an interaction file of any known layout; raises DataError with file and line."""
    # Each name once, in a dictionary: it may be long, and stand on thousands of lines.
    users: dict[str, int] = {}
    items: dict[str, int] = {}
    user, item, times, rating = array("q"), array("q"), Times(), array("d")
    digest, blank, parse = hashlib.sha256(), 0, None
    for number, line in enumerate(_lines(path), start=1):
        digest.update(line)
        try:
            text = _decode(line, first=number == 1)
            if not text.strip():
                blank += 1
                continue
            if parse is None:
                parse, is_header = tell_layout(text)
                if is_header:
                    continue
            row = parse(text)
            times.append(row.time)
        except ValueError as error:  # what json and csv raise is translated into them
            raise DataError(f"{path}, line {number}: {error}") from error
        user.append(users.setdefault(row.user, len(users)))
        item.append(items.setdefault(row.item, len(items)))
        if row.rating is not None:
            rating.append(row.rating)
    if not user:
        what = "is empty" if parse is None else "has a header and no interactions"
        raise DataError(f"{path} {what}; give a file with a user, an item and a time on each line")
    item_ranks = rank_names(items)
    return Table(
        user=rank_names(users)[np.array(user)],
        item=item_ranks[np.array(item)],
        time=times.column(),
        rating=np.array(rating) if rating else None,
        blank=blank,
        sha256=digest.hexdigest(),
        item_names=tuple(np.array(list(items), object)[np.argsort(item_ranks)]),
    )


def rank_names(names: dict[str, int]) -> np.ndarray:
    """Return for names with the indices 0..n-1, in this order, the place of each in their order, [n] int64.

    Where all are whole numbers of 64 bits as one writes them, without a plus or leading zeros, their order is that of
    numbers, else that of code points, which is that of UTF-8 bytes. The order decides which item gets which id.
    """
    ordered = sorted(names, key=int) if all(map(_is_whole_number, names)) else sorted(names)
    rank = np.empty(len(names), np.int64)
    rank[[names[name] for name in ordered]] = np.arange(len(names))
    return rank


def _is_whole_number(name: str) -> bool:
    return _WHOLE_NUMBER.fullmatch(name) is not None and -(2**63) <= int(name) < 2**63


def _decode(line: bytes, first: bool) -> str:
    """Return the text of a line without its end; raises ValueError for what no text file has inside a line."""
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} of the line is not UTF-8; save the file as UTF-8") from error
    text = text.removesuffix("\n").removesuffix("\r")
    if "\r" in text:
        raise ValueError("a carriage return stands inside the line; end lines with line feeds")
    if "\0" in text:
        raise ValueError("a NUL stands in the line; that is no text file")
    return text


def open_data(path: Path) -> BinaryIO:
    """Open a file of interactions; raises DataError."""
    try:
        return open_file(path, follow_link=True)
    except UnreadableError as error:
        raise DataError(f"{path} {error}; give a file of interactions") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file, unpacked where it is gzipped; raises DataError where it cannot be read."""
    number = 0
    try:
        with open_data(path) as raw:
            packed = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            with gzip.open(raw) if packed else raw as file:
                while line := file.readline(MAX_LINE + 1):
                    number += 1
                    if len(line) > MAX_LINE:
                        ends = "; end lines with line feeds" if b"\r" in line else ""
                        raise DataError(f"{path}, line {number}: has more than {MAX_LINE} bytes{ends}")
                    yield line
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read after line {number}: {reason}; get the file again") from error
