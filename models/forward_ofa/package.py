"""The weights that the cloud sends for one user, as a safetensors file; what is read is treated as untrusted."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from models.forward_ofa.assembler import package_shapes
from models.forward_ofa.backbones.backbone import Backbone
from safeio import files, strict_json
from safeio.errors import BadInputError

FORMAT = "cocorr-ofa-package-1"
MAX_HEADER_BYTES = 1 << 20


class PackageError(BadInputError, ValueError):
    """A package that is damaged or for another sub-network; the message is one line."""


def write_structure(structure: Sequence[int]) -> str:
    """Return a structure as text, one digit per block."""
    return "".join(str(int(runs)) for runs in structure)


def to_bytes(backbone: Backbone, structure: Sequence[int], tensors: Mapping[str, Tensor]) -> bytes:
    """Return a package as the bytes that go over the network; raises PackageError where tensors do not fit."""
    _check("this package", backbone, structure, tensors)
    metadata = {"format": FORMAT, "backbone": backbone.name, "structure": write_structure(structure)}
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    return bytes(safetensors.torch.save(plain, metadata))


def from_bytes(data: bytes, backbone: Backbone, structure: Sequence[int], source: str = "package") -> dict[str, Tensor]:
    """Return a package's tensors by name, in the order of the program's inputs; raises PackageError."""
    largest = _largest(backbone, structure)
    if len(data) > largest:
        raise PackageError(f"{source} has {len(data)} bytes where at most {largest} are expected; send it again")
    try:
        tensors = safetensors.torch.load(data)
        metadata = strict_json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__") or {}
    except (SafetensorError, ValueError, KeyError, AttributeError) as error:
        raise PackageError(f"{source} is truncated or damaged ({error}); send it again") from error
    wanted = {"format": FORMAT, "backbone": backbone.name, "structure": write_structure(structure)}
    for key, value in wanted.items():
        if metadata.get(key) != value:
            found = str(metadata.get(key))[:80]
            raise PackageError(f"{source} is for {key} {found!r}, not {value!r}; ask the mapper for this one")
    _check(source, backbone, structure, tensors)
    return {name: tensors[name] for name in package_shapes(backbone, structure)}


def write_package(path: Path, backbone: Backbone, structure: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
    """Write a whole package or nothing; raises PackageError where tensors do not fit, and OutputError."""
    files.replace_file(path, to_bytes(backbone, structure, tensors), "choose another file")


def read_package(path: Path, backbone: Backbone, structure: Sequence[int]) -> dict[str, Tensor]:
    """Return the tensors of a package file by name, in the order of the program's inputs; raises PackageError."""
    try:
        data = files.read_file(path, _largest(backbone, structure), follow_link=True)
    except files.UnreadableError as error:
        raise PackageError(f"{path} {error}; give a package file") from error
    return from_bytes(data, backbone, structure, str(path))


def _largest(backbone: Backbone, structure: Sequence[int]) -> int:
    return MAX_HEADER_BYTES + 4 * sum(math.prod(shape) for shape in package_shapes(backbone, structure).values())


def _check(source: str, backbone: Backbone, structure: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
    """Raise PackageError unless these are finite fp32 tensors of exactly the names and shapes of the structure."""
    expected = package_shapes(backbone, structure)
    problems = [f"{name} is missing" for name in expected if name not in tensors]
    problems += [f"{name} is not part of it" for name in tensors if name not in expected]
    for name, shape in expected.items():
        tensor = tensors.get(name)
        if tensor is None:
            continue
        if tensor.dtype != torch.float32 or tuple(tensor.shape) != shape:
            problems.append(f"{name} is {tensor.dtype} {list(tensor.shape)} where float32 {list(shape)} is expected")
        elif not bool(torch.isfinite(tensor).all()):
            problems.append(f"{name} has NaN or infinite values")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        what = f"{backbone.name} {write_structure(structure)}"
        raise PackageError(f"{source} does not fit {what}: {'; '.join(problems[:3])}{more}; ask the mapper again")
