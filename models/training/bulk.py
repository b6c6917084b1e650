"""Many lines of a table at once, by Arrow's reader of CSV.

It must give what `layouts` gives line by line, so it takes on only what it certainly reads alike: what is unusual in a
block of lines, or wrong, is left to `layouts`, which also knows the words for it.
"""

import csv

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from models.training.gather import Piece
from models.training.layouts import AMAZON_ITEM, AMAZON_USER, MAX_CELL, MAX_RATING, Cells, parse_rating
from models.training.moments import parse_moments

_UNIT = "\x1f"
"""Takes the place of `::`, since Arrow wants a delimiter of one byte."""
_BLANK = r"\A[\t-\r\x1c-\x20\x{85}\p{Z}]+\z"
"""A text that has nothing but what str.isspace calls space."""
_SPACES = b"\x0b\x0c\x1c\x1d\x1e\x1f"
"""Spaces of ASCII, but for those that are taken off a cell and those that end a line."""
_MARK = b"\xef\xbb\xbf"
_QUOTE, _LINE_FEED, _RETURN = b'"\n\r'


def parse_block(block: bytes, cells: Cells) -> Piece | None:
    """Return the interactions of whole lines; None where `layouts` must read them."""
    if not _is_plain(block):
        return None
    delimiter, quoted = cells.delimiter, cells.delimiter == "," and b'"' in block
    if quoted and not _is_well_quoted(block):
        return None
    if delimiter == "::":
        if _UNIT.encode() in block:
            return None
        block, delimiter = block.replace(b"::", _UNIT.encode()), _UNIT
    try:
        columns = _read(block, cells, delimiter, quoted)
    except pa.ArrowInvalid:
        return None
    piece = _piece(columns, block)
    return None if piece is None or (cells.headless and not _looks_headless(piece)) else piece


def _is_plain(block: bytes) -> bool:
    """Tell whether lines have only what text files have, and end as they should."""
    if b"\0" in block or block.startswith(_MARK):
        return False
    if b"\r" in block and block.count(b"\r") != block.count(b"\r\n"):
        return False
    if not block.isascii():
        try:
            block.decode()
        except UnicodeDecodeError:
            return False
    return True


def _is_well_quoted(block: bytes) -> bool:
    """Tell whether each quote begins a cell or ends it, in turns, on one line and without quotes inside."""
    signs = np.frombuffer(b"\n" + block + b"\n", np.uint8)
    at = np.flatnonzero(signs == _QUOTE)
    if len(at) % 2:
        return False
    begins = np.isin(signs[at - 1], (ord(","), _LINE_FEED))
    ends = np.isin(signs[at + 1], (ord(","), _LINE_FEED, _RETURN))
    if not (begins[::2].all() and ends[1::2].all()) or ends[::2].any() or begins[1::2].any():
        return False
    line = np.searchsorted(np.flatnonzero(signs == _LINE_FEED), at)
    short = (at[1::2] - at[::2]).max() < csv.field_size_limit()
    return bool(short and (line[::2] == line[1::2]).all())


def _read(block: bytes, cells: Cells, delimiter: str, quoted: bool) -> dict[str, pa.Array]:
    """Return role -> its column of texts; raises ArrowInvalid."""
    names = [str(place) for place in range(cells.count)]
    places = {str(place): pa.string() for place in cells.places.values()}
    table = pyarrow.csv.read_csv(
        pa.py_buffer(block),
        read_options=pyarrow.csv.ReadOptions(column_names=names),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=delimiter, quote_char='"' if quoted else False, ignore_empty_lines=False
        ),
        convert_options=pyarrow.csv.ConvertOptions(column_types=places, include_columns=list(places)),
    )
    return {role: table[str(place)].combine_chunks() for role, place in cells.places.items()}


def _piece(columns: dict[str, pa.Array], block: bytes) -> Piece | None:
    may_be_blank = not block.isascii() or any(sign in block for sign in _SPACES)
    columns = {role: pc.ascii_trim(column, " \t") for role, column in columns.items()}
    if any(is_unusual(column, may_be_blank) for column in columns.values()):
        return None
    moments = parse_moments(columns["time"])
    rating = _ratings(columns["rating"]) if "rating" in columns else None
    if moments is None or ("rating" in columns and rating is None):
        return None
    return Piece(columns["user"], columns["item"], moments, rating)


def is_unusual(texts: pa.Array, may_be_blank: bool = True) -> bool:
    """Tell whether one of texts [n >= 1] may be such as `layouts.checked` refuses."""
    least, most = pc.min_max(pc.binary_length(texts)).as_py().values()
    blank = may_be_blank and pc.any(pc.match_substring_regex(texts, _BLANK)).as_py()
    return bool(least == 0 or most > MAX_CELL or blank)


def _ratings(texts: pa.Array) -> np.ndarray | None:
    encoded = texts.dictionary_encode()
    try:
        values = [parse_rating(text) for text in encoded.dictionary.to_pylist()]
    except ValueError:
        return None
    return np.asarray(np.array(values)[encoded.indices.to_numpy()])


def _looks_headless(piece: Piece) -> bool:
    """Tell whether columns without names look like what they are held to be, on every line."""
    swapped = pc.and_(
        pc.match_substring_regex(piece.item, rf"\A(?:{AMAZON_USER})\z"),
        pc.match_substring_regex(piece.user, rf"\A(?:{AMAZON_ITEM})\z"),
    )
    in_bounds = piece.rating is None or bool(((piece.rating >= 0) & (piece.rating <= MAX_RATING)).all())
    return in_bounds and not pc.any(swapped).as_py()
