"""The one reader of .npz files: bounded, without pickles, and every fault of a file is one error."""

import io
import math
import zipfile
from collections.abc import Mapping
from typing import IO, BinaryIO

import numpy as np

from safeio.files import UnreadableError

MAX_HEADER = 4096
MAX_ARRAYS = 10_000
MAX_AXES = 64
"""As many as numpy itself has."""
_SUFFIX = ".npy"
_NUMBERS = "?biufc"
_WORDS_SHOWN = 200

Expected = tuple[tuple[int, ...], np.dtype]


class NpzError(UnreadableError):
    """Why bytes are no .npz of plain arrays."""


def read(data: bytes, limit: int, expected: Mapping[str, Expected] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz by name, of `limit` bytes in all at the most; raises NpzError.

    An array takes memory only after its header agrees with the size that the archive states. With `expected`, shape
    and dtype by name, these arrays are read, each only if it is as expected, and others are left alone.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _arrays(archive, limit, expected)
    except NpzError:
        raise
    except Exception as error:  # zipfile, zlib, lzma and numpy raise a dozen kinds for damaged files
        raise NpzError(
            f"is no .npz of plain arrays or damaged ({type(error).__name__}: {str(error)[:_WORDS_SHOWN]})"
        ) from error


def write(file: BinaryIO, arrays: Mapping[str, np.ndarray], compress: bool = True) -> None:
    """Write arrays as an .npz; raises OSError. Any name will do, unlike with numpy.savez, whose own arguments clash."""
    kind = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}{_SUFFIX}", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _arrays(archive: zipfile.ZipFile, limit: int, expected: Mapping[str, Expected] | None) -> dict[str, np.ndarray]:
    entries = {entry.filename.removesuffix(_SUFFIX): entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise NpzError("has two arrays of one name")
    if len(entries) > MAX_ARRAYS:
        raise NpzError(f"has more than {MAX_ARRAYS} arrays")
    if expected is not None:
        missing = next((name for name in expected if name not in entries), None)
        if missing is not None:
            raise NpzError(f"has no array {missing!r}")
        entries = {name: entries[name] for name in expected}
    stated = sum(entry.file_size for entry in entries.values())
    if stated > limit:
        raise NpzError(f"unpacks to {stated} bytes, more than the {limit} that are read")
    arrays = {}
    for name, entry in entries.items():
        # Others unpack all that they can at once, whatever is asked of them.
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NpzError(f"has the array {name!r} packed in a way that numpy does not use")
        with archive.open(entry) as member:
            arrays[name] = _array(member, entry.file_size, name, None if expected is None else expected[name])
    return arrays


def _array(member: IO[bytes], stated: int, name: str, expected: Expected | None) -> np.ndarray:
    """Return the array of one member, whose size in the archive bounds what is read."""
    major, _ = version = np.lib.format.read_magic(member)
    if version not in {(1, 0), (2, 0), (3, 0)}:
        raise NpzError(f"has the array {name!r} in format {version[0]}.{version[1]}, which is not known")
    header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = header(member, max_header_size=MAX_HEADER)
    if dtype.kind not in _NUMBERS or dtype.hasobject:
        raise NpzError(f"has the array {name!r} of {dtype}, and no numbers")
    if expected is not None and (shape, dtype) != expected:
        kind = f"{expected[1]} {list(expected[0])}"
        raise NpzError(f"has the array {name!r} as {dtype} {list(shape)}, not {kind}")
    if len(shape) > MAX_AXES:
        raise NpzError(f"has the array {name!r} with {len(shape)} axes")
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or size > stated:
        raise NpzError(f"has the array {name!r} of {dtype} {list(shape)[:8]} in {stated} bytes")
    content = member.read(size + 1)
    if len(content) != size:
        raise NpzError(f"has the array {name!r} of {size} bytes by its header and of others by its content")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
    return np.require(array.copy(order="C"), dtype.newbyteorder("="))
