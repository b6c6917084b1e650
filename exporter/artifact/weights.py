"""Weights packages: what the cloud sends for one user, read and written without torch, as a device has to.

A weights package is a safetensors file of fp32 tensors whose metadata says what they are for. The format is a contract
of two sides that share no code; `models.forward_ofa.weights_package` is the cloud's side of it.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from exporter.core.errors import BadInputError
from exporter.core.types import Arrays, DataFile, ExternalWeights
from safeio import files, strict_json

FORMAT = "cocorr-ofa-package-1"
FILE = "weights.safetensors"
MAX_HEADER_BYTES = 1 << 20
MAX_DATA_BYTES = 1 << 30

Shapes = Mapping[str, tuple[int, ...]]


class PackageError(BadInputError):
    """A package that is damaged or for another program."""


def to_bytes(weights: ExternalWeights) -> bytes:
    """Return a package of these tensors."""
    plain = {name: np.ascontiguousarray(tensor) for name, tensor in weights.tensors.items()}
    return bytes(safetensors.numpy.save(plain, dict(weights.metadata)))


def read(path: Path, shapes: Shapes, metadata: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return a package file's tensors in the order of `shapes`; raises PackageError unless they fit exactly."""
    try:
        data = files.read_file(path, _largest(shapes), follow_link=True)
    except files.UnreadableError as error:
        raise PackageError(f"{path} {error}; give the package for this artifact") from error
    return from_bytes(data, shapes, metadata, str(path))


def from_bytes(data: bytes, shapes: Shapes, metadata: Mapping[str, str], source: str) -> dict[str, np.ndarray]:
    """Return a package's tensors in the order of `shapes`; raises PackageError, in the name of `source`."""
    if len(data) > _largest(shapes):
        raise PackageError(f"{source} is larger than the weights that are expected; ask the mapper for this one")
    try:
        found = _header(data).get("__metadata__") or {}
        tensors = safetensors.numpy.load(data)
    except (SafetensorError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise PackageError(f"{source} is truncated or damaged ({error}); send it again") from error
    for key, value in metadata.items():
        if found.get(key) != value:
            raise PackageError(
                f"{source} is for {key} {str(found.get(key))[:80]!r}, not {value!r}; ask the mapper for this one"
            )
    problems = _problems(tensors, shapes)
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise PackageError(f"{source} does not fit: {'; '.join(problems[:3])}{more}; ask the mapper again")
    return {name: tensors[name] for name in shapes}


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
        return read(folder / FILE, shapes, metadata)
    try:
        data = files.read_file(files.inside(folder, layout.name), MAX_DATA_BYTES)
    except files.UnreadableError as error:
        raise PackageError(f"{folder / layout.name} {error}; export the artifact again") from error
    return {
        name: np.frombuffer(data, dtype, math.prod(shapes[name]), offset).reshape(shapes[name]).astype(np.float32)
        for name, (offset, dtype) in layout.tensors.items()
    }


def _problems(tensors: Arrays, shapes: Shapes) -> list[str]:
    problems = [f"{name} is missing" for name in shapes if name not in tensors]
    problems += [f"{name} is not part of it" for name in tensors if name not in shapes]
    for name, shape in shapes.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.dtype != np.float32 or tensor.shape != shape:
            problems.append(f"{name} is {tensor.dtype} {list(tensor.shape)} where float32 {list(shape)} is expected")
        elif not np.isfinite(tensor).all():
            problems.append(f"{name} has NaN or infinite values")
    return problems


def _largest(shapes: Shapes) -> int:
    return MAX_HEADER_BYTES + 4 * sum(math.prod(shape) for shape in shapes.values())


def _header(data: bytes) -> dict:
    header: dict = strict_json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    return header
