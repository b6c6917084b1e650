"""Decodes the constants of a program: immediate values in the model file, and blobs in weight files."""

from typing import Any

import numpy as np

from exporter.core.errors import ProgramError
from exporter.mil.blob import BlobFile, unpack
from exporter.mil.kernel import Limits
from exporter.mil.package import Package
from exporter.mil.types import BITS, NUMPY_TYPES, ListType, TensorType, describe, value_type
from exporter.mil.wire import Record

# TensorValue field -> MIL types that are written there; one-byte and sub-byte types, float16 and uint32 go to `bytes`.
_FIELDS = {
    "floats": {"float32"},
    "doubles": {"float64"},
    "ints": {"int32", "int16", "uint16"},
    "longInts": {"int64", "uint64"},
    "bools": {"bool"},
    "strings": {"string"},
    "bytes": {"float16", "int8", "uint8", "uint32", "int4", "uint1", "uint2", "uint3", "uint4", "uint6"},
}


class Constants:
    """Reads Value messages; weight files are opened once and the same blob is decoded once."""

    def __init__(self, package: Package, limits: Limits) -> None:
        self._package = package
        self._left = limits.memory_bytes
        self._files: dict[str, BlobFile] = {}
        self._blobs: dict[tuple[str, int, TensorType], np.ndarray] = {}

    def read(self, record: Record) -> tuple[Any, TensorType | None]:
        """Return a constant and its type: an array, a str for a rank-0 string, or a list of those (type None)."""
        declared = value_type(record.get("type", {}))
        if ("immediateValue" in record) == ("blobFileValue" in record):
            raise ProgramError("a constant of the program has no value, or two")
        if isinstance(declared, TensorType):
            shape, count = declared.shape, declared.count
            if shape is None or count is None:
                raise ProgramError("a constant of the program has an unknown shape")
            blob = record.get("blobFileValue")
            if blob is not None:
                array = self._blob(blob, declared, shape, count)
            else:
                array = _tensor(record["immediateValue"], declared, count).reshape(shape)
            return (array.item() if declared.dtype == "string" and not declared.shape else array), declared
        if isinstance(declared, ListType) and "immediateValue" in record:
            items = record["immediateValue"].get("list", {}).get("values", [])
            return [self.read(item)[0] for item in items], None
        raise ProgramError("a constant of the program is neither a tensor nor a list; this interpreter cannot hold it")

    def _blob(self, record: Record, declared: TensorType, shape: tuple[int, ...], count: int) -> np.ndarray:
        name, offset = record.get("fileName", ""), record.get("offset", 0)
        key = (name, offset, declared)
        if key not in self._blobs:
            if name not in self._files:
                self._files[name] = BlobFile(self._package.weight_file(name))
            # Unpacking makes sub-byte constants larger than the file, and a forged file could name a blob many times.
            self._left -= count * declared.numpy.itemsize
            if self._left < 0:
                raise ProgramError("the program's constants do not fit under the memory limit; load with larger Limits")
            self._blobs[key] = self._files[name].read(offset, declared.dtype, shape)
        return self._blobs[key]


def _tensor(record: Record, declared: TensorType, count: int) -> np.ndarray:
    tensor = record.get("tensor")
    if tensor is None or len(record) != 1 or len(tensor) != 1:
        raise ProgramError(f"a constant declared as {declared} holds no tensor, or two")
    field, body = next(iter(tensor.items()))
    if declared.dtype not in _FIELDS[field]:
        raise ProgramError(f"a constant declared as {declared} is stored in the field for {field}")
    flat = _flat(field, body, declared, count)
    if flat.size != count:
        raise ProgramError(f"a constant declared as {declared} holds {flat.size} elements")
    return flat


def _flat(field: str, body: Record, declared: TensorType, count: int) -> np.ndarray:
    dtype = NUMPY_TYPES[declared.dtype]
    if field == "bytes":
        data = np.frombuffer(body.get("values", b""), np.uint8)
        bits = BITS[declared.dtype]
        if bits < 8:
            return unpack(data, bits, count, signed=declared.dtype == "int4")
        if data.size != count * dtype.itemsize:
            raise ProgramError(f"a constant declared as {declared} holds {data.size} bytes")
        return data.view(dtype.newbyteorder("<")).astype(dtype, copy=False)
    parts = body.get("values", [])
    if field == "strings":
        strings = np.empty(len(parts), object)
        strings[:] = parts
        return strings
    flat = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if flat.dtype.kind == "i" and declared.dtype == "bool":
        return flat.astype(bool)
    if flat.dtype.kind == "i" and flat.size and declared.dtype not in ("int64", "uint64"):
        bounds = np.iinfo(dtype)
        if int(flat.min()) < bounds.min or int(flat.max()) > bounds.max:
            raise ProgramError(f"a constant declared as {declared} holds {describe(flat)} values out of its range")
    return flat.astype(dtype)
