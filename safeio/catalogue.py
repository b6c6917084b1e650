"""The raw ids of a catalogue, `items.tsv`: for each row of an item table its id and how often it was clicked.

UTF-8, one line an item in the order of the rows from 1 on, below the header `row<TAB>id<TAB>clicks`; row 0 is padding
and is not listed. Ids are any text, as the data has it: `01`, `1`, `001` and `1_0` are four ids. A tab, a line feed, a
carriage return and a backslash in one are written as `\\t`, `\\n`, `\\r` and `\\\\`; no other sign is escaped, and no
other control character is part of an id.
"""

import re
from collections.abc import Sequence

from safeio.errors import has_controls
from safeio.files import UnreadableError

FILE = "items.tsv"
MAX_BYTES = 512 << 20
MAX_ROWS = 10_000_000
MAX_ID = 1 << 14
"""Characters of an id, as many as training reads of one."""
_HEADER = "row\tid\tclicks"
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_ESCAPED = {written: sign for sign, written in _ESCAPES.items()}
_WITHOUT_ESCAPED = str.maketrans("", "", "".join(_ESCAPES))
_CLICKS = re.compile(r"0|[1-9][0-9]{0,17}")
_SHOWN = 40
_CONTROLS = "a control character"


class CatalogueError(UnreadableError):
    """Why bytes are no catalogue, or not this one."""


def to_bytes(ids: Sequence[str], clicks: Sequence[int]) -> bytes:
    """Return the file for ids and clicks by row, row 0 first, which is left out.

    Raises CatalogueError for an id that `parse` refuses.
    """
    strange = next(filter(_is_strange, ids), None)
    if strange is not None:
        raise CatalogueError(f"has {_CONTROLS} in the id {_shown(strange)}")
    rows = zip(range(1, len(ids)), ids[1:], clicks[1:], strict=True)
    lines = [_HEADER, *(f"{row}\t{_escape(item)}\t{count}" for row, item, count in rows)]
    return ("\n".join(lines) + "\n").encode()


def parse(data: bytes, vocabulary: int) -> tuple[str, ...]:
    """Return the id of each of `vocabulary` rows, "" for row 0; raises CatalogueError.

    An id takes memory only after the file is known to have as many lines as the table has items.
    """
    items = data.count(b"\n") - 1
    if not data.startswith(f"{_HEADER}\n".encode()) or not data.endswith(b"\n"):
        raise CatalogueError(
            "is no catalogue: it must begin with a line `row, id, clicks`, tabs between, and end a line"
        )
    if items != vocabulary - 1:
        raise CatalogueError(f"lists {items} items, and the model has {vocabulary - 1}")
    try:
        lines = data.decode().split("\n")[1:-1]
    except UnicodeDecodeError as error:
        number = data.count(b"\n", 0, error.start) + 1
        raise CatalogueError(f"is not UTF-8 in line {number}") from error
    rows: dict[str, int] = {}
    for row, line in enumerate(lines, start=1):
        item = _parse_line(row, line)
        first = rows.setdefault(item, row)
        if first != row:
            raise CatalogueError(f"gives the id {_shown(item)} to two items, in lines {first + 1} and {row + 1}")
    return ("", *rows)


def _parse_line(row: int, line: str) -> str:
    """Return the id in the line of a row; raises CatalogueError."""
    cells = line.split("\t")
    if len(cells) != 3 or cells[0] != str(row) or not _CLICKS.fullmatch(cells[2]):
        raise CatalogueError(f"has {_shown(line)} in line {row + 1}, not row {row}, an id and a count, tabs between")
    item = cells[1]
    if "\\" in item or "\r" in item:
        item = _unescape(item, row)
    if not item or item.isspace() or len(item) > MAX_ID:
        raise CatalogueError(f"has an id that is empty or longer than {MAX_ID} characters in line {row + 1}")
    if _is_strange(item):
        raise CatalogueError(f"has {_CONTROLS} in the id {_shown(item)} of line {row + 1}")
    return item


def _is_strange(item: str) -> bool:
    return not item.isprintable() and has_controls(item.translate(_WITHOUT_ESCAPED))


def _escape(item: str) -> str:
    for sign, written in _ESCAPES.items():  # the backslash first
        item = item.replace(sign, written)
    return item


def _unescape(text: str, row: int) -> str:
    parts = re.findall(r"\\.?|[^\\]+", text, re.DOTALL)
    if "\r" in text or any(part[0] == "\\" and part not in _ESCAPED for part in parts):
        raise CatalogueError(
            rf"has in the id of line {row + 1} a carriage return or a backslash other than \\ \t \n \r"
        )
    return "".join(_ESCAPED.get(part, part) for part in parts)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}...")
