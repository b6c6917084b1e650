"""Weights packages: what the cloud sends for one user, read and written without torch, as a device has to.

A weights package is a safetensors file of tensors whose metadata says what they are for. The format is a contract of
two sides that share no code; `models.forward_ofa.weights_package` is the cloud's side of it.

Tensors are in fp32, or all in fp16 where the metadata has `stored: fp16`, or, where it has `stored: int8`, each in fp32
or in int8 with a scale for each row of its last axis: the entry NAME [..., D] in int8, and NAME.scale [..., 1] in fp32.
What a program is given is NAME in fp32, times NAME.scale where there is one, computed here for whoever reads a package.
The scale of a row written here is max |x| / 127, and 1 for a row of zeros.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from exporter.core.errors import BadInputError
from exporter.core.precision import Stored, Weights
from exporter.core.types import Arrays, DataFile, ExternalWeights, StoredTable
from safeio import files, strict_json

FORMAT = "cocorr-ofa-package-2"
FILE = "weights.safetensors"
STORED = "stored"
"""The key of the metadata that says what tensors are stored in; without it that is fp32."""
SCALE = ".scale"
_DTYPES = frozenset(("F32", "F16", "I8"))
MAX_HEADER_BYTES = 1 << 20
MAX_DATA_BYTES = 1 << 30

_MOST = 127
_LEAST_NUMBERS, _LEAST_WIDTH = 256, 8
"""What is smaller stays fp32: a header's entry for the scales, and a scale for so few, take much of what int8 saves."""

Shapes = Mapping[str, tuple[int, ...]]


class PackageError(BadInputError):
    """A package that is damaged or for another program."""


@dataclass(frozen=True)
class Package:
    """One user's weights as they cross the network: entries by name, with the scales of those in int8 among them."""

    names: tuple[str, ...]
    entries: Arrays
    metadata: Mapping[str, str]
    """That of the sub-network, without `stored`."""
    stored: Stored

    @cached_property
    def tensors(self) -> dict[str, np.ndarray]:
        """Return what a program is given, in fp32 and in the order of `names`."""
        return {name: _restored(self.entries[name], self.entries.get(f"{name}{SCALE}")) for name in self.names}

    def in_form(self, stored: Weights) -> "Package":
        """Return these weights stored so; what is stored so already stays as it is, to the bit."""
        return self if stored == self.stored else pack(ExternalWeights(self.tensors, self.metadata), stored)

    def to_bytes(self) -> bytes:
        """Return the file."""
        plain = {name: np.ascontiguousarray(entry) for name, entry in self.entries.items()}
        said = {} if self.stored == "fp32" else {STORED: self.stored}
        return bytes(safetensors.numpy.save(plain, {**self.metadata, **said}))


def pack(weights: ExternalWeights, stored: Stored) -> Package:
    """Return a package of fp32 tensors; raises PackageError for numbers that fp16 or int8 cannot hold."""
    entries: dict[str, np.ndarray] = {}
    for name, tensor in weights.tensors.items():
        entries[name] = _held_in_half(name, tensor) if stored == "fp16" else tensor
        if stored == "int8" and is_in_int8(tensor.shape):
            entries[name], entries[f"{name}{SCALE}"] = _held_in_int8(name, tensor)
    return Package(tuple(weights.tensors), entries, weights.metadata, stored)


def to_bytes(weights: ExternalWeights) -> bytes:
    """Return a package of these tensors in fp32."""
    return pack(weights, "fp32").to_bytes()


def is_in_int8(shape: tuple[int, ...]) -> bool:
    """Say whether a package in int8 has tensors of this shape in int8: no vectors, and nothing small."""
    return len(shape) > 1 and shape[-1] >= _LEAST_WIDTH and math.prod(shape) >= _LEAST_NUMBERS


def stored_bytes(shape: tuple[int, ...], stored: Stored) -> int:
    """Return how many bytes a tensor of this shape takes in a package, its scales with it and without a header."""
    numbers = math.prod(shape)
    if stored == "fp16":
        return 2 * numbers
    return numbers + 4 * (numbers // shape[-1]) if stored == "int8" and is_in_int8(shape) else 4 * numbers


def in_int8(tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return fp32 numbers [..., D] as int8 [..., D] and scales [..., 1]."""
    largest = np.abs(tensor).max(axis=-1, keepdims=True)
    scales = np.maximum(largest / np.float32(_MOST), np.finfo(np.float32).tiny)
    scales = np.where(largest > 0, scales, np.float32(1)).astype(np.float32)
    return np.clip(np.rint(tensor / scales), -_MOST, _MOST).astype(np.int8), scales


def _held_in_half(name: str, tensor: np.ndarray) -> np.ndarray:
    """Return numbers in fp16; raises PackageError where one is beyond its range."""
    with np.errstate(over="ignore"):
        half = tensor.astype(np.float16)
    if not np.isfinite(half).all():
        raise PackageError(f"{name} has numbers that fp16 cannot hold; choose another form")
    return half


def _held_in_int8(name: str, tensor: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an entry and its scales; raises PackageError where they do not give finite numbers back."""
    if np.isfinite(tensor).all():
        entry, scales = in_int8(tensor)
        if np.isfinite(_restored(entry, scales)).all():
            return entry, scales
    raise PackageError(f"{name} has numbers that int8 cannot hold; choose another --precision")


def through_int8(tensors: np.ndarray) -> np.ndarray:
    """Return what comes back of the weights of many users [users, *shape], each stored in a package in int8."""
    return _restored(*in_int8(tensors)) if is_in_int8(tensors.shape[1:]) else tensors


def costs(exact: Arrays, restored: Arrays) -> tuple[StoredTable, ...]:
    """Return what int8 saves and changes, for each tensor [users, *shape] that a package has in it."""
    found = []
    for name, values in exact.items():
        shape = values.shape[1:]
        if not is_in_int8(shape):
            continue
        error, size = (float((numbers.astype(np.float64) ** 2).sum()) for numbers in (restored[name] - values, values))
        numbers, kept = math.prod(shape), stored_bytes(shape, "int8")
        rmse = math.sqrt(error / size) if size else 0.0
        found.append(StoredTable(numbers // shape[-1], shape[-1], 1, 4 * numbers, kept, rmse, name))
    return tuple(found)


def read(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> Package:
    """Return a package file, its names in the order of `shapes`; raises PackageError unless it fits exactly."""
    try:
        data = files.read_file(path, _largest(shapes), follow_link=True)
    except files.UnreadableError as error:
        raise PackageError(f"{path} {error}; give the package for this artifact") from error
    return from_bytes(data, shapes, metadata, str(path))


def from_bytes(data: bytes, shapes: Shapes, metadata: Mapping[str, str], source: str) -> Package:
    """Return a package, its names in the order of `shapes`; raises PackageError, in the name of `source`."""
    if len(data) > _largest(shapes):
        raise PackageError(
            f"{source} is larger than the weights that are expected; ask for the package of this artifact"
        )
    found, entries = _loaded(data, source)
    _require(found, metadata, source)
    stored = _stored(found, metadata, source)
    package = Package(tuple(shapes), entries, metadata, stored)
    problems = _problems(entries, shapes, stored)
    if not problems:  # all is there, so that it can be computed
        problems = [
            f"{name} has NaN or infinite values" for name in shapes if not np.isfinite(package.tensors[name]).all()
        ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise PackageError(f"{source} does not fit: {'; '.join(problems[:3])}{more}; ask the mapper again")
    return package


def metadata_of(data: bytes, source: str) -> dict[str, str]:
    """Return what a package says that it is for; raises PackageError, in the name of `source`, for what is none.

    What its tensors should be only a program tells.
    """
    found, _ = _loaded(data, source)
    _require(found, {"format": FORMAT}, source)
    return {STORED: "fp32", **found}


def _loaded(data: bytes, source: str) -> tuple[dict[str, str], Arrays]:
    """Return a file's metadata and tensors; raises PackageError where it is damaged, or has tensors of other types."""
    try:
        header = _header(data)
        found = dict(header.pop("__metadata__", None) or {})
        others = {str(entry["dtype"]) for entry in header.values()} - _DTYPES
        if others:
            raise PackageError(
                f"{source} has tensors in {min(others)[:80]!r}, where a package has F32, F16 or I8; "
                "ask for one in fp32, fp16 or int8"
            )
        return found, safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PackageError(f"{source} is truncated or damaged ({error}); send it again") from error


def _require(found: Mapping[str, str], metadata: Mapping[str, str], source: str) -> None:
    """Raise PackageError where a package is for something else than `metadata`."""
    for key, value in metadata.items():
        if found.get(key) != value:
            raise PackageError(
                f"{source} is for {key} {str(found.get(key))[:80]!r}, not {value!r}; ask for a package of this {key}"
            )


def offsets(data: bytes) -> dict[str, int]:
    """Return where in a package's bytes each tensor begins."""
    start = 8 + int.from_bytes(data[:8], "little")
    return {name: start + entry["data_offsets"][0] for name, entry in _header(data).items() if name != "__metadata__"}


def patch(data: bytes, layout: DataFile, tensors: Arrays) -> bytes:
    """Return a data file's bytes with these tensors in the places of those of the same names."""
    changed = bytearray(data)
    for name, (offset, dtype) in layout.tensors.items():
        content = tensors[name].astype(dtype).tobytes()
        changed[offset : offset + len(content)] = content
    return bytes(changed)


def beside(folder: Path, layout: DataFile | None, shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the weights that lie beside a program, in the data file that it reads or in a package, as fp32.

    Raises PackageError for what is damaged.
    """
    if layout is None:
        return read(folder / FILE, shapes, metadata).tensors
    try:
        data = files.read_file(files.inside(folder, layout.name), MAX_DATA_BYTES)
    except files.UnreadableError as error:
        raise PackageError(f"{folder / layout.name} {error}; export the artifact again") from error
    return {
        name: np.frombuffer(data, dtype, math.prod(shapes[name]), offset).reshape(shapes[name]).astype(np.float32)
        for name, (offset, dtype) in layout.tensors.items()
    }


def _restored(entry: np.ndarray, scales: np.ndarray | None) -> np.ndarray:
    """Return an entry's numbers in fp32."""
    if scales is None:
        return entry.astype(np.float32, copy=False)
    with np.errstate(over="ignore"):  # which whoever calls looks for
        restored: np.ndarray = entry * scales
    return restored


def _stored(found: Mapping[str, str], metadata: Mapping[str, str], source: str) -> Stored:
    """Return what a package says that it is stored in; raises PackageError for what is not known here."""
    unknown = sorted(key for key in found if key not in (*metadata, STORED))
    if unknown:
        raise PackageError(f"{source} has unknown metadata, {unknown[0][:80]!r}; leave it out, or use a later version")
    match found.get(STORED, "fp32"):
        case "fp32":
            return "fp32"
        case "fp16":
            return "fp16"
        case "int8":
            return "int8"
        case other:
            raise PackageError(
                f"{source} is stored in {str(other)[:80]!r}, not in fp32, fp16 or int8; ask for one of these"
            )


def _problems(entries: Arrays, shapes: Shapes, stored: Stored) -> list[str]:
    """Say which entries are missing, too many, or of another type or shape; and which scales are none."""
    in_bytes = {
        name
        for name, shape in shapes.items()
        if stored == "int8"
        and shape
        and name in entries
        and entries[name].dtype == np.int8
        and f"{name}{SCALE}" not in shapes
    }
    scaled = {f"{name}{SCALE}": shapes[name] for name in shapes if name in in_bytes}
    problems = [f"{name} is missing" for name in (*shapes, *scaled) if name not in entries]
    problems += [f"{name} is not part of it" for name in entries if name not in shapes and name not in scaled]
    whole = "float16" if stored == "fp16" else "float32"
    expected = {name: ("int8" if name in in_bytes else whole, shape) for name, shape in shapes.items()}
    expected |= {name: ("float32", (*shape[:-1], 1)) for name, shape in scaled.items()}
    for name, (dtype, shape) in expected.items():
        entry = entries.get(name)
        if entry is None:
            continue
        if entry.dtype != dtype or entry.shape != shape:
            problems.append(f"{name} is {entry.dtype} {list(entry.shape)} where {dtype} {list(shape)} is expected")
        elif name in scaled and not (np.isfinite(entry) & (entry > 0)).all():
            problems.append(f"{name} has scales that are no finite numbers above 0")
    return problems


def _largest(shapes: Shapes) -> int:
    return MAX_HEADER_BYTES + 4 * sum(math.prod(shape) for shape in shapes.values())


def _header(data: bytes) -> dict:
    header: dict = strict_json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")], unique=True)
    return header
