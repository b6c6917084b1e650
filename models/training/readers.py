"""Interaction files as they are published: MovieLens, Amazon and Yelp ratings, plain tables, gzipped or not; Parquet.

The layout is told from the first line; a line that does not follow it is an error with its number, never left out.
"""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa

from models.training import parquet
from models.training.bulk import parse_block
from models.training.columns import BY_NAME, Columns
from models.training.gather import DataError, Gathered, Table
from models.training.layouts import Layout, tell_layout
from safeio.files import UnreadableError, open_file

__all__ = ["MAX_LINE", "DataError", "Table", "open_data", "read_into", "read_table"]

MAX_LINE = 1 << 24
_BLOCK = 1 << 22
_FEW = 1 << 16
"""Bytes that are rather read line by line than cut once more, where something in them is unusual."""


def read_table(path: Path, columns: Columns = BY_NAME) -> Table:
    """Read a file of any known layout, or a folder of Parquet files; raises DataError with file and line."""
    gathered = Gathered()
    table = gathered.table(*read_into(gathered, path, columns))
    pa.default_memory_pool().release_unused()
    return table


def read_into(gathered: Gathered, path: Path, columns: Columns = BY_NAME) -> tuple[int, str]:
    """Read a file as `read_table` does, one interaction or more; return how many lines are blank, and its sha256."""
    digest, blank = hashlib.sha256(), 0
    if path.is_dir():
        parquet.read_folder(path, columns, gathered, digest)
        return blank, digest.hexdigest()
    with open_data(path) as raw:
        if parquet.is_parquet(raw):
            parquet.read(path, raw, columns, gathered, digest)
        else:
            blank = _read_lines(gathered, path, raw, columns, digest)
    return blank, digest.hexdigest()


def _read_lines(gathered: Gathered, path: Path, raw: BinaryIO, columns: Columns, digest: parquet.Digest) -> int:
    """Read all lines into `gathered` and all bytes into `digest`; return how many lines are blank."""
    lines = _Lines(path, columns, gathered)
    try:
        for block in _blocks(raw):
            digest.update(block)
            lines.read(block)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        where = f"after line {lines.number}"
        raise DataError(f"{path} cannot be read {where}: {reason}; get the file again") from error
    if not gathered.count:
        what = "has a header and no interactions" if lines.has_header else "is empty"
        raise DataError(f"{path} {what}; give a file with a user, an item and a time on each line")
    return lines.blank


def open_data(path: Path) -> BinaryIO:
    """Open a file of interactions; raises DataError."""
    try:
        return open_file(path, follow_link=True)
    except UnreadableError as error:
        raise DataError(f"{path} {error}; give a file of interactions") from error


class _Lines:
    """Reads blocks of lines, many at once where it can."""

    def __init__(self, path: Path, columns: Columns, gathered: Gathered) -> None:
        self.blank = self.number = 0
        self._path, self._columns, self._gathered = path, columns, gathered
        self._layout: Layout | None = None

    @property
    def has_header(self) -> bool:
        """Tell whether a first line was found that is no blank one; without interactions that is a header."""
        return self._layout is not None

    def read(self, block: bytes) -> None:
        """Read whole lines; raises DataError."""
        stream = io.BytesIO(block)
        while self._layout is None and (line := stream.readline()):
            self._read_line(line)
        self._read_piece(block[stream.tell() :])

    def _read_piece(self, block: bytes) -> None:
        """Read lines at once, or else in two halves, so that only the few around what is unusual take long."""
        cells = None if self._layout is None else self._layout.cells
        if not block:
            return
        if cells is not None and len(block) - block.rfind(b"\n", 0, -1) <= MAX_LINE:
            piece = parse_block(block, cells)
            if piece is not None and self._gathered.extend(piece):
                self.number += len(piece.user)
                return
        middle = block.rfind(b"\n", 0, len(block) // 2) + 1
        if cells is None or len(block) <= _FEW or not middle:
            for line in io.BytesIO(block):
                self._read_line(line)
            return
        self._read_piece(block[:middle])
        self._read_piece(block[middle:])

    def _read_line(self, line: bytes) -> None:
        self.number += 1
        try:
            if len(line) > MAX_LINE:
                ends = "; end lines with line feeds" if b"\r" in line else ""
                raise ValueError(f"has more than {MAX_LINE} bytes{ends}")
            text = _decode(line, first=self.number == 1)
            if not text.strip():
                self.blank += 1
                return
            if self._layout is None:
                self._layout = tell_layout(text, self._columns)
                if self._layout.header:
                    return
            self._gathered.add(self._layout.parse(text))
        except ValueError as error:  # what json and csv raise is translated into them
            raise DataError(f"{self._path}, line {self.number}: {error}") from error


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


def _blocks(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the whole lines of a file in blocks, unpacked where it is gzipped.

    Each has _BLOCK bytes and up to MAX_LINE + 1 more, to where a line ends: one without end is cut off there, too long.
    Raises OSError, EOFError or zlib.error where the file cannot be read, after the lines before that place.
    """
    packed = raw.read(2) == b"\x1f\x8b"
    raw.seek(0)
    failure: Exception | None = None
    with cast(io.BufferedReader, gzip.open(raw) if packed else raw) as file:
        while failure is None:
            parts, size = [], 0
            try:
                while size < _BLOCK and (part := file.read1(_BLOCK - size)):
                    parts.append(part)
                    size += len(part)
                parts.append(file.readline(MAX_LINE + 1))
            except (OSError, EOFError, zlib.error) as error:
                failure = error
            block = b"".join(parts)
            if failure is not None:
                block = block[: block.rfind(b"\n") + 1]
            if block:
                yield block
            elif failure is None:
                return
    raise failure
