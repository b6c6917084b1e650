"""Columns that may be longer than memory allows: kept there while they are short, and in mapped files from then on."""

import mmap
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa

from safeio.staging import scratch


class Overflow:
    """Gives columns to write, in memory until `folder` was asked for, which is where they go then.

    At the end of the block the folder is removed, and all space with it that no column occupies. Finished columns stay
    readable: their files have no name any more, and go with the process, however that ends.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._maps: list[mmap.mmap] = []
        self._folder: Path | None = None
        self._count = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._stack.__exit__(kind, error, trace)

    @property
    def folder(self) -> Path:
        """Return the folder on disk; raises OutputError where there can be none."""
        if self._folder is None:
            self._folder = self._stack.enter_context(scratch("clicks"))
        return self._folder

    def column(self, kind: type[np.generic]) -> "Column":
        """Return an empty column for numbers of a kind."""
        self._count += 1
        return Column(self, kind, None if self._folder is None else self._folder / f"column-{self._count}")

    def map(self, file: Path) -> mmap.mmap:
        """Return the bytes of a file that was written, which is not empty."""
        with file.open("rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(mapped)
        return mapped

    def release(self) -> None:
        """Give back the memory by which mapped files were read; what is read again comes from the disk."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)


class Column:
    """A column that is being written."""

    def __init__(self, overflow: Overflow, kind: type[np.generic], file: Path | None) -> None:
        self._overflow, self._kind, self._file = overflow, kind, file
        self._parts: list[np.ndarray] = []
        self._opened = None if file is None else file.open("xb")

    def append(self, values: np.ndarray) -> None:
        """Add numbers [n] at the end, as they are in the column's kind."""
        values = np.ascontiguousarray(values, self._kind)
        if self._opened is None:
            self._parts.append(values)
        else:
            self._opened.write(values.data)

    def finished(self) -> np.ndarray:
        """Return all of it, which is not to be changed."""
        if self._opened is None or self._file is None:
            return np.concatenate([np.zeros(0, self._kind), *self._parts])
        self._opened.close()
        if not self._file.stat().st_size:
            return np.zeros(0, self._kind)
        return np.frombuffer(self._overflow.map(self._file), self._kind)


class Texts:
    """A column of texts that is being written."""

    def __init__(self, overflow: Overflow) -> None:
        self._ends, self._bytes = overflow.column(np.int64), overflow.column(np.uint8)
        self._ends.append(np.zeros(1, np.int64))
        self._count = self._size = 0

    def append(self, texts: pa.LargeStringArray) -> None:
        """Add texts at the end."""
        _, offsets, content = texts.buffers()
        ends = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
        self._bytes.append(np.frombuffer(content, np.uint8)[ends[0] : ends[-1]])
        self._ends.append(ends[1:] - ends[0] + self._size)
        self._count += len(texts)
        self._size += int(ends[-1] - ends[0])

    def finished(self) -> pa.LargeStringArray:
        """Return all of them."""
        ends, content = (pa.py_buffer(column.finished()) for column in (self._ends, self._bytes))
        return pa.LargeStringArray.from_buffers(self._count, ends, content)
