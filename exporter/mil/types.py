"""MIL value types and the numpy types that hold them."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.core.errors import ProgramError
from exporter.core.types import TensorSpec
from exporter.mil.wire import Record

UNKNOWN = -1
"""A dimension that is only known when the program runs."""

MAX_RANK = 16

# MIL.proto DataType -> MIL name.
DATA_TYPES = {
    1: "bool",
    2: "string",
    10: "float16",
    11: "float32",
    12: "float64",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
}
# Types of MIL.proto that no released converter writes; named so that a refusal can say what was found.
FOREIGN_DATA_TYPES = {0: "unused", 13: "bfloat16", 40: "float8e4m3fn", 41: "float8e5m2"}

_WHOLE = ("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64")
_WHOLE_UNSIGNED = ("uint8", "uint16", "uint32", "uint64")
# MIL name -> numpy type of the array that holds it; sub-byte integers are held one per byte.
NUMPY_TYPES: dict[str, np.dtype] = {
    **{name: np.dtype(name) for name in _WHOLE + _WHOLE_UNSIGNED},
    "int4": np.dtype(np.int8),
    **{name: np.dtype(np.uint8) for name in ("uint1", "uint2", "uint3", "uint4", "uint6")},
    "string": np.dtype(object),
}
BITS = {
    "bool": 8,
    **{name: NUMPY_TYPES[name].itemsize * 8 for name in _WHOLE[1:] + _WHOLE_UNSIGNED},
    "int4": 4,
    "uint1": 1,
    "uint2": 2,
    "uint3": 3,
    "uint4": 4,
    "uint6": 6,
}
# Names that the `dtype` inputs of cast, make_list, quantize and others use.
DTYPE_NAMES = {"fp16": "float16", "fp32": "float32", "fp64": "float64"}


@dataclass(frozen=True, slots=True)
class TensorType:
    """A tensor of MIL type `dtype`; a dimension may be UNKNOWN, and `shape` is None where even the rank is unknown."""

    dtype: str
    shape: tuple[int, ...] | None

    @property
    def numpy(self) -> np.dtype:
        """The numpy type that holds it."""
        return NUMPY_TYPES[self.dtype]

    @property
    def count(self) -> int | None:
        """The number of elements, or None where a dimension is unknown."""
        if self.shape is None or UNKNOWN in self.shape:
            return None
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def stored_bytes(self) -> int | None:
        """The bytes of the packed elements, or None where unknown; strings count as none."""
        return None if self.count is None else -(-self.count * BITS.get(self.dtype, 0) // 8)

    def spec(self, name: str) -> TensorSpec:
        """Return it as a core TensorSpec."""
        return TensorSpec(name, self.shape if self.shape is not None else (UNKNOWN,), self.numpy.name)

    def __str__(self) -> str:
        sizes = "any rank" if self.shape is None else ", ".join("?" if s == UNKNOWN else str(s) for s in self.shape)
        return f"{self.dtype}[{sizes}]"


@dataclass(frozen=True, slots=True)
class ListType:
    """A list of tensors of one type; `length` is UNKNOWN where it grows while the program runs."""

    element: "ValueType"
    length: int


@dataclass(frozen=True, slots=True)
class DictionaryType:
    """A map from class labels to probabilities, made by `classify` only."""

    key: "ValueType"
    value: "ValueType"


@dataclass(frozen=True, slots=True)
class StateType:
    """A tensor that outlives a run."""

    wrapped: TensorType


@dataclass(frozen=True, slots=True)
class TupleType:
    """A fixed sequence of values."""

    items: tuple["ValueType", ...]


ValueType = TensorType | ListType | DictionaryType | StateType | TupleType


def value_type(record: Record) -> ValueType:
    """Read a ValueType message; raises ProgramError for one that is incomplete or contradicts itself."""
    if len(record) != 1:
        raise ProgramError("a value of the program has no type, or two")
    kind, body = next(iter(record.items()))
    if kind == "tensorType":
        return tensor_type(body)
    if kind == "listType":
        return ListType(value_type(body.get("type", {})), _dimension(body.get("length", {})))
    if kind == "dictionaryType":
        return DictionaryType(value_type(body.get("keyType", {})), value_type(body.get("valueType", {})))
    if kind == "stateType":
        wrapped = value_type(body.get("wrappedType", {}))
        if not isinstance(wrapped, TensorType):
            raise ProgramError("a state of the program does not wrap a tensor")
        return StateType(wrapped)
    return TupleType(tuple(value_type(item) for item in body.get("types", [])))


def tensor_type(record: Record) -> TensorType:
    """Read a TensorType message."""
    code = record.get("dataType", 0)
    dtype = DATA_TYPES.get(code)
    if dtype is None:
        name = FOREIGN_DATA_TYPES.get(code, f"number {code}")
        raise ProgramError(
            f"the program uses data type {name}, which this interpreter does not hold; convert without it"
        )
    dimensions = record.get("dimensions", [])
    rank = record.get("rank", 0)
    if any(dimension.get("unknown", {}).get("variadic", False) for dimension in dimensions):
        return TensorType(dtype, None)
    if rank != len(dimensions) or rank > MAX_RANK:
        raise ProgramError(
            f"a tensor type states rank {rank} and has {len(dimensions)} dimensions (at most {MAX_RANK})"
        )
    return TensorType(dtype, tuple(_dimension(dimension) for dimension in dimensions))


def _dimension(record: Record) -> int:
    if len(record) != 1:
        raise ProgramError("a dimension of the program is neither known nor unknown")
    if "unknown" in record:
        return UNKNOWN
    size: int = record["constant"].get("size", 0)
    if size >= 1 << 48:
        raise ProgramError(f"a dimension of {size} elements is beyond any device; the program is damaged or forged")
    return size


def describe(value: Any) -> str:
    """Say what a runtime value is, for messages."""
    return f"{value.dtype.name}{list(value.shape)}" if isinstance(value, np.ndarray) else type(value).__name__
