"""Reader of the MIL blob storage format, version 2: the weights/weight.bin of a package.

A file is a 64-byte header (count, version), then per blob a 64-byte record (sentinel 0xDEADBEEF, data type, size in
bytes, offset of the data, bits of padding in the last byte) and the data, little-endian. A constant's offset points at
the record.
"""

import struct
from pathlib import Path

import numpy as np

from exporter.core.errors import ProgramError

VERSION = 2
SENTINEL = 0xDEADBEEF
# Blobs from this size on stay on disk and are mapped; smaller ones are not worth a page each.
MAP_FROM_BYTES = 1 << 16

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")
_HEADER_BYTES = _RECORD_BYTES = 64

# Blob data type -> (MIL data type, bits per element).
BLOB_TYPES: dict[int, tuple[str, int]] = {
    1: ("float16", 16),
    2: ("float32", 32),
    3: ("uint8", 8),
    4: ("int8", 8),
    6: ("int16", 16),
    7: ("uint16", 16),
    8: ("int4", 4),
    9: ("uint1", 1),
    10: ("uint2", 2),
    11: ("uint4", 4),
    12: ("uint3", 3),
    13: ("uint6", 6),
    14: ("int32", 32),
    15: ("uint32", 32),
}
_NUMPY = {"float16": "<f2", "float32": "<f4", "int16": "<i2", "uint16": "<u2", "int32": "<i4", "uint32": "<u4"}


class BlobFile:
    """One weight file, mapped read-only; every offset and size is checked against the file before it is used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._size = path.stat().st_size
        if self._size < _HEADER_BYTES:
            raise ProgramError(f"weight file {path.name} is too short ({self._size} bytes) to be a Core ML blob file")
        self._bytes = np.memmap(path, np.uint8, "r")
        version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())[1]
        if version != VERSION:
            raise ProgramError(
                f"weight file {path.name} has blob format version {version}; only version {VERSION} is known"
            )

    def read(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        """Return the blob recorded at `offset` as an array of MIL type `dtype` (sub-byte types unpacked to 8 bits)."""
        where = f"the blob at offset {offset} of {self._path.name}"
        if offset < _HEADER_BYTES or offset % 64 or offset + _RECORD_BYTES > self._size:
            raise ProgramError(f"{where} lies outside the file or is not aligned to 64 bytes; the package is damaged")
        record = self._bytes[offset : offset + _RECORD.size].tobytes()
        sentinel, kind, size, start, padding = _RECORD.unpack(record)
        if sentinel != SENTINEL:
            raise ProgramError(f"{where} has no valid record; the package is damaged")
        stored, bits = BLOB_TYPES.get(kind, (f"unknown type {kind}", 0))
        if stored != dtype:
            raise ProgramError(f"{where} holds {stored} but the program declares {dtype}; the package is damaged")
        if start < _HEADER_BYTES or size > self._size or start + size > self._size:
            raise ProgramError(f"{where} reaches past the end of the file; the package is damaged")
        count = _count(shape)
        if count * bits != size * 8 - padding or padding > 7:
            raise ProgramError(f"{where} has {size} bytes where {count} elements of {dtype} are declared")
        data = self._bytes[start : start + size]
        if size < MAP_FROM_BYTES:
            data = np.array(data)
        if bits >= 8:
            if start % (bits // 8):
                data = np.array(data)
            return data.view(_NUMPY.get(dtype, dtype)).reshape(shape)
        return unpack(data, bits, count, signed=dtype == "int4").reshape(shape)


def unpack(data: np.ndarray, bits: int, count: int, signed: bool) -> np.ndarray:
    """Expand `count` elements of `bits` bits, least significant bit first, to uint8 [count], or int8 if `signed`."""
    if data.size * 8 < count * bits:
        raise ProgramError(f"a constant of {count} elements of {bits} bits has only {data.size} bytes")
    if bits in (1, 2, 4):
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        values = ((data[:, None] >> shifts) & np.uint8((1 << bits) - 1)).reshape(-1)[:count]
    else:
        # Three and six bits cross byte borders; both divide 24 bits, so read three bytes at a time.
        padded = np.zeros(-(-data.size // 3) * 3, np.uint8)
        padded[: data.size] = data
        triples = padded.reshape(-1, 3).astype(np.uint32)
        words = triples[:, 0] | triples[:, 1] << np.uint32(8) | triples[:, 2] << np.uint32(16)
        shifts24 = np.arange(0, 24, bits, dtype=np.uint32)
        mask = np.uint32((1 << bits) - 1)
        values = ((words[:, None] >> shifts24) & mask).astype(np.uint8).reshape(-1)[:count]
    if signed:
        sign = np.uint8(1 << (bits - 1))
        values = ((values ^ sign) - sign).view(np.int8)
    return values


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
