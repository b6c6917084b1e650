"""The names in a column of a file: each once, for it may be long and on thousands of lines, and in their order."""

from collections.abc import Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_WAITING_BYTES = 256 << 20
_WHOLE_NUMBER = r"\A(?:0|-?[1-9]\d{0,18})\z"


class Names(Sequence[str]):
    """Names as Python has them, made when they are asked for: millions of them would take ten times the memory."""

    def __init__(self, texts: pa.LargeStringArray) -> None:
        self._texts = texts

    def __len__(self) -> int:
        return len(self._texts)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[str, ...]: ...
    def __getitem__(self, at: int | slice) -> str | tuple[str, ...]:
        return tuple(self._texts[at].to_pylist()) if isinstance(at, slice) else str(self._texts[int(at)])

    @property
    def are_whole_numbers(self) -> bool:
        """Tell whether all are whole numbers, which are in the order of numbers and not of code points."""
        return are_whole_numbers(self._texts)


class NameColumn:
    """The names of rows as they are read, and a number for each row."""

    def __init__(self) -> None:
        self._found: list[pa.LargeStringArray] = []
        self._rows: list[tuple[int, np.ndarray]] = []
        self._waiting: list[pa.Array] = []
        self._waiting_bytes = 0
        self._found_bytes = 0

    @property
    def nbytes(self) -> int:
        """Return the bytes of the names that are held, many of them perhaps more than once."""
        return self._waiting_bytes + self._found_bytes

    def add(self, names: pa.Array) -> None:
        """Add the names of some rows, [n] texts or a dictionary of texts."""
        # Arrow finds equal names faster the more of them it is given at once.
        if isinstance(names, pa.DictionaryArray):
            self._encode()
            self._number(names.dictionary, [names.indices])
            return
        self._waiting.append(names)
        self._waiting_bytes += names.nbytes
        if self._waiting_bytes > _WAITING_BYTES:
            self._encode()

    def taken(self) -> tuple[np.ndarray, pa.LargeStringArray]:
        """Return the position of each row's name [n] among the names that occur, and these; begin anew without any."""
        self._encode()
        self._unify()
        names = self._found[0]
        rows = np.concatenate([index for _, index in self._rows])
        self._found, self._rows, self._found_bytes = [], [], 0
        occurs = np.bincount(rows, minlength=len(names)) > 0
        if not occurs.all():  # a dictionary may have more
            names, rows = names.filter(pa.array(occurs)), (np.cumsum(occurs, dtype=np.int32) - 1)[rows]
        return rows, names

    def _encode(self) -> None:
        if self._waiting:
            chunks = pa.chunked_array(self._waiting).dictionary_encode().chunks
            self._number(chunks[-1].dictionary, [chunk.indices for chunk in chunks])
            self._waiting, self._waiting_bytes = [], 0

    def _number(self, dictionary: pa.Array, indices: list[pa.Array]) -> None:
        names = dictionary.cast(pa.large_string())
        self._rows += [(len(self._found), index.to_numpy()) for index in indices]
        self._found.append(names)
        self._found_bytes += names.nbytes
        if self._found_bytes > 2 * _WAITING_BYTES:
            self._unify()

    def _unify(self) -> None:
        """Make one of all dictionaries."""
        if len(self._found) == 1:
            return
        unified = pa.concat_arrays(self._found).dictionary_encode()
        starts = np.cumsum([0, *map(len, self._found)])
        place = unified.indices.to_numpy()
        self._rows = [(0, place[starts[of] : starts[of + 1]][index]) for of, index in self._rows]
        self._found, self._found_bytes = [unified.dictionary], unified.dictionary.nbytes


def are_whole_numbers(names: pa.Array) -> bool:
    """Tell whether all are whole numbers of 64 bits as one writes them, without a plus or leading zeros."""
    if not pc.all(pc.match_substring_regex(names, _WHOLE_NUMBER)).as_py():
        return False
    try:
        names.cast(pa.int64())
    except pa.ArrowInvalid:
        return False
    return True


def in_order(names: pa.Array, as_numbers: bool) -> np.ndarray:
    """Return the positions of different names in their order: that of numbers, or of code points, as UTF-8 has it."""
    if as_numbers:
        return np.argsort(names.cast(pa.int64()).to_numpy())
    return np.asarray(pc.sort_indices(names).to_numpy(), np.int64)


def rank_names(names: pa.Array) -> np.ndarray:
    """Return the place of each of different names in their order, [n] int64.

    Where all are whole numbers their order is that of numbers, else that of code points. The order decides which item
    gets which id.
    """
    return inverse(in_order(names, are_whole_numbers(names)))


def inverse(order: np.ndarray) -> np.ndarray:
    """Return the place of each position in an order of positions [n], int64."""
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank
