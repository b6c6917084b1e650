"""Parquet files of interactions: the columns that a table would have, ids as text or as whole numbers."""

import re
import stat
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from models.training.bulk import is_unusual
from models.training.columns import NAMES, Columns, find_columns, listed
from models.training.gather import DataError, Gathered, Piece
from models.training.layouts import Row, checked, parse_rating
from models.training.moments import from_seconds, parse_moments
from models.training.times import NUMBERS, Moments
from safeio import files

_MAGIC = b"PAR1"
_ROWS = 1 << 20
_MOST_COLUMN_BYTES = 2 << 30
_MOST_FOOTER_BYTES = 64 << 20
_READ = 1 << 20
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST_SECONDS = 1 << 62


class Digest(Protocol):
    """One of hashlib's."""

    def update(self, data: bytes, /) -> None:
        """Take in more bytes."""


class _BadRowError(ValueError):
    """What is wrong with a row of a batch, counted from 0."""

    def __init__(self, row: int, why: str) -> None:
        super().__init__(why)
        self.row = row


def is_parquet(file: BinaryIO) -> bool:
    """Tell a Parquet file by its first bytes."""
    begins = file.read(len(_MAGIC)) == _MAGIC
    file.seek(0)
    return begins


def read(path: Path, file: BinaryIO, columns: Columns, gathered: Gathered, digest: Digest) -> None:
    """Read all rows into `gathered` and all bytes into `digest`; raises DataError, with the row where there is one."""
    _read(path, file, columns, gathered, digest)
    if not gathered.count:
        raise DataError(f"{path} has no interactions; give a file with a user, an item and a time in each row")


def read_folder(folder: Path, columns: Columns, gathered: Gathered, digest: Digest) -> None:
    """Read all Parquet files below a folder as `read` does, in the order of their names; raises DataError.

    Names that begin with a dot or `_` are those of unfinished files and of notes, as Spark writes them. No link is
    followed below the folder.
    """
    try:
        names = [name for name, status in files.tree(folder) if stat.S_ISREG(status.st_mode)]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}; give a folder that can be read") from error
    parts = [name for name in names if name.endswith(".parquet") and not re.search(r"(^|/)[._]", name)]
    roles = None
    for name in parts:
        try:
            with files.open_file(files.inside(folder, name)) as file:
                found = _read(folder / name, file, columns, gathered, digest)
        except files.UnreadableError as error:
            raise DataError(f"{folder / name} {error}; give a folder of Parquet files") from error
        roles = roles or found.keys()
        if found.keys() != roles:
            raise DataError(f"{folder / name} has other columns than {parts[0]}; give files of one table")
    if not gathered.count:
        raise DataError(
            f"{folder} has no Parquet files with interactions; give a file of interactions, or a folder with some"
        )


def _read(path: Path, file: BinaryIO, columns: Columns, gathered: Gathered, digest: Digest) -> dict[str, str]:
    """Read a file as `read` does, an empty one too; return role -> the name of its column."""
    before = gathered.count
    try:
        while part := file.read(_READ):
            digest.update(part)
        schema = _open(file, []).schema_arrow
        found = _find(schema, columns)
        # As dictionaries: an id that is long and stands on a million rows is not to be written out for each.
        texts = [name for name in found.values() if _is_text(schema.field(name).type)]
        whole = _open(file, texts)
        _check_sizes(whole.metadata, set(found.values()))
        for batch in whole.iter_batches(_ROWS, columns=list(found.values())):
            _add(gathered, {role: batch.column(name) for role, name in found.items()})
    except _BadRowError as error:
        raise DataError(f"{path}, row {gathered.count - before + error.row + 1}: {error}") from error
    except (pa.ArrowException, OSError, MemoryError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise DataError(f"{path} cannot be read as Parquet ({why}); write it again") from error
    except ValueError as error:
        raise DataError(f"{path}: {error}") from error
    return found


def _open(file: BinaryIO, dictionaries: list[str]) -> pyarrow.parquet.ParquetFile:
    return pyarrow.parquet.ParquetFile(
        file,
        read_dictionary=dictionaries,
        thrift_string_size_limit=_MOST_FOOTER_BYTES,
        thrift_container_size_limit=_MOST_FOOTER_BYTES,
    )


def _find(schema: pa.Schema, columns: Columns) -> dict[str, str]:
    """Return role -> the name of its column; raises ValueError."""
    names = list(schema.names)
    found = find_columns(names, columns)
    for role in ("user", "item", "time"):
        if role not in found:
            raise ValueError(
                f"no column for the {role}: expected one of {', '.join(NAMES[role])}; found {listed(names)}; name it"
                f" with --columns {role}=NAME"
            )
    for role, name in found.items():
        if names.count(name) > 1:
            raise ValueError(f"there are {names.count(name)} columns called {name!r}; give each its own name")
        kind = schema.field(name).type
        if not _suits(role, kind):
            want = {"time": "text, numbers, dates or timestamps", "rating": "numbers"}.get(
                role, "text or whole numbers"
            )
            raise ValueError(f"the column {name!r} for the {role} holds {str(kind)[:40]}; it must hold {want}")
    return found


def _suits(role: str, kind: pa.DataType) -> bool:
    if _is_text(kind) or pa.types.is_integer(kind):
        return True
    number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    moment = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    return (number and role in ("time", "rating")) or (moment and role == "time")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _check_sizes(metadata: pyarrow.parquet.FileMetaData, names: set[str]) -> None:
    """Raise ValueError where a part of a column would take more memory than is given to it."""
    for group in range(metadata.num_row_groups):
        parts = metadata.row_group(group)
        for index in range(parts.num_columns):
            part = parts.column(index)
            if part.path_in_schema in names and part.total_uncompressed_size > _MOST_COLUMN_BYTES:
                raise ValueError(
                    f"a row group has {part.total_uncompressed_size} bytes of {part.path_in_schema[:40]!r}, more than"
                    f" {_MOST_COLUMN_BYTES}; write the file with smaller row groups"
                )


def _add(gathered: Gathered, columns: dict[str, pa.Array]) -> None:
    """Gather a batch; raises _BadRowError."""
    for role, column in columns.items():
        if column.null_count:
            raise _BadRowError(pc.index(column.is_null(), True).as_py(), f"the {role} is empty")
    users, items = _ids(columns["user"], "user"), _ids(columns["item"], "item")
    ratings = _ratings(columns["rating"]) if "rating" in columns else None
    moments = _moments(columns["time"])
    if moments is not None and gathered.extend(Piece(users, items, moments, ratings)):
        return
    rated = [None] * len(users) if ratings is None else ratings.tolist()
    rows = zip(users.to_pylist(), items.to_pylist(), _texts(columns["time"]).to_pylist(), rated, strict=True)
    for user, item, time, rating in rows:
        try:
            gathered.add(Row(user, item, time, rating))
        except ValueError as error:
            raise _BadRowError(0, str(error)) from error  # those before it were added


def _texts(column: pa.Array) -> pa.Array:
    """Return what a column has as text, without spaces around it."""
    return pc.utf8_trim_whitespace(column.cast(pa.string()))


def _ids(column: pa.Array, role: str) -> pa.Array:
    """Return ids as an array of text or a dictionary of it; raises _BadRowError."""
    if not pa.types.is_dictionary(column.type):
        return column.cast(pa.string())
    names = column.dictionary.cast(pa.string())
    names.validate(full=True)  # UTF-8
    if len(names) and is_unusual(names):
        for row, name in enumerate(names.take(column.indices).to_pylist()):
            try:
                checked(name, role)
            except ValueError as error:
                raise _BadRowError(row, str(error)) from error
    return pa.DictionaryArray.from_arrays(column.indices, names)


def _ratings(column: pa.Array) -> np.ndarray:
    if pa.types.is_dictionary(column.type):
        values = []
        for row, text in enumerate(_texts(column).to_pylist()):
            try:
                values.append(parse_rating(text))
            except ValueError as error:
                raise _BadRowError(row, str(error)) from error
        return np.array(values)
    ratings = np.asarray(column.cast(pa.float64()).to_numpy())
    wrong = np.flatnonzero(~np.isfinite(ratings))
    if len(wrong):
        raise _BadRowError(int(wrong[0]), f"{ratings[wrong[0]]} is not a rating")
    return ratings


def _moments(column: pa.Array) -> Moments | None:
    """Return times; None where they are texts or numbers that must be read one by one."""
    kind = column.type
    if pa.types.is_integer(kind):
        if pa.types.is_uint64(kind) and pc.max(column).as_py() >= 1 << 63:
            return None
        return Moments(column.cast(pa.int64()).to_numpy(), None, NUMBERS)
    if pa.types.is_date(kind):
        return from_seconds(column.cast(pa.timestamp("s")).cast(pa.int64()).to_numpy(), None, in_utc=False)
    if not pa.types.is_timestamp(kind):
        return parse_moments(_texts(column))
    unit = _UNITS[kind.unit]
    whole, rest = np.divmod(column.cast(pa.int64()).to_numpy(), unit)
    beyond = np.flatnonzero(np.abs(whole) > _MOST_SECONDS)
    if len(beyond):
        raise _BadRowError(int(beyond[0]), f"{whole[beyond[0]]} seconds from 1970 are no time")
    return from_seconds(whole, rest * (_UNITS["ns"] // unit) if rest.any() else None, in_utc=kind.tz is not None)
