"""A weights package: the blocks' weights that the cloud sends for one user, as a safetensors file.

This is the sender's side. What a device receives is read, as untrusted, by `exporter.artifact.weights`: the format is
the contract of two sides that share no code.

A package is in fp32, in fp16 or in int8. In fp16 every number is rounded to the nearest of 16 bits. In int8 each weight
W [..., D] is q = round(W / s) as NAME and s [..., 1] as NAME.scale, with s = max |W| / 127 of a row, 1 for a row of
zeros; biases and what is small stay in fp32.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from models.forward_ofa.assembler import block_weight_shapes
from models.forward_ofa.backbones.backbone import Backbone
from models.spec import Stored
from safeio import files
from safeio.errors import BadInputError

FORMAT = "cocorr-ofa-package-2"
SCALE = ".scale"
_MOST = 127
_LEAST_NUMBERS, _LEAST_WIDTH = 256, 8


class WeightsPackageError(BadInputError, ValueError):
    """Tensors that are no weights package for a sub-network; the message is one line."""


def write_structure(structure: Sequence[int]) -> str:
    """Return a structure as text, one digit per block."""
    return "".join(str(int(runs)) for runs in structure)


def to_bytes(
    backbone: Backbone,
    structure: Sequence[int],
    tensors: Mapping[str, Tensor],
    stored: Stored = "fp32",
    checkpoint: str | None = None,
) -> bytes:
    """Return the bytes that go over the network; raises WeightsPackageError where tensors do not fit the structure.

    They name the `checkpoint` that generated the weights by its SHA-256: with the items of another they rank nonsense.
    """
    _check(backbone, structure, tensors)
    metadata = {"format": FORMAT, "backbone": backbone.name, "structure": write_structure(structure)}
    if checkpoint is not None:
        metadata["checkpoint"] = checkpoint
    if stored != "fp32":
        metadata["stored"] = stored
    plain = {
        entry: values.to(dtype).contiguous()
        for name, tensor in tensors.items()
        for entry, values, dtype in entries(name, tensor.detach(), stored)
    }
    return _in_one_order(bytes(safetensors.torch.save(plain, metadata)))


def write(
    path: Path,
    backbone: Backbone,
    structure: Sequence[int],
    tensors: Mapping[str, Tensor],
    stored: Stored = "fp32",
    checkpoint: str | None = None,
) -> None:
    """Write a whole weights package or nothing; raises WeightsPackageError as `to_bytes` does, and OutputError."""
    files.replace_file(path, to_bytes(backbone, structure, tensors, stored, checkpoint), "choose another file")


def _in_one_order(data: bytes) -> bytes:
    """Return a safetensors file with its header in one order: the library writes the metadata in another each time."""
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    metadata = dict(sorted(header.pop("__metadata__").items()))
    ordered = sorted(header.items(), key=lambda entry: entry[1]["data_offsets"])
    text = json.dumps({"__metadata__": metadata, **dict(ordered)}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that numbers behind it lie as a processor likes them
    return len(text).to_bytes(8, "little") + text + data[start:]


def entries(name: str, tensor: Tensor, stored: Stored, leading_axes: int = 0) -> list[tuple[str, Tensor, torch.dtype]]:
    """Return what a package has of a tensor: name, values, and the type that holds each of them and that it is in.

    The values may be of a wider type yet, so that who writes them converts them once, into their place. The first
    `leading_axes` of the tensor are none of the package's own: users, say, with a package each. Raises
    WeightsPackageError for what `stored` cannot hold.
    """
    if stored == "fp16":
        return [(name, in_half(tensor), torch.float16)]
    if stored == "int8" and _is_in_int8(tuple(tensor.shape[leading_axes:])):
        numbers, scales = _in_int8(tensor)
        return [(name, numbers, torch.int8), (f"{name}{SCALE}", scales, torch.float32)]
    return [(name, tensor, torch.float32)]


def _is_in_int8(shape: tuple[int, ...]) -> bool:
    """Say whether a package in int8 has tensors of this shape in int8."""
    return len(shape) > 1 and shape[-1] >= _LEAST_WIDTH and math.prod(shape) >= _LEAST_NUMBERS


def in_half(tensor: Tensor) -> Tensor:
    """Return fp32 numbers in fp16; raises WeightsPackageError for one that is beyond its range."""
    half = tensor.half()
    if not bool(torch.isfinite(half).all()):
        raise WeightsPackageError("the mapper gives numbers that fp16 cannot hold; choose another --stored")
    return half


def _in_int8(tensor: Tensor) -> tuple[Tensor, Tensor]:
    """Return numbers [..., D] as whole numbers of int8 [..., D], still in fp32, and scales [..., 1].

    A scale is max |W| / 127 but for its last bit, so that no quotient rounds to more than 127. That of a row with a NaN
    or an infinity is none itself.
    """
    largest = torch.maximum(tensor.amax(-1, keepdim=True), -tensor.amin(-1, keepdim=True))
    scales = torch.where(largest == 0, 1.0, (largest / _MOST).clamp_min(torch.finfo(torch.float32).tiny))
    return (tensor / scales).round_(), scales


def _check(backbone: Backbone, structure: Sequence[int], tensors: Mapping[str, Tensor]) -> None:
    """Raise WeightsPackageError unless these are finite fp32 tensors of just the names and shapes of the structure."""
    expected = block_weight_shapes(backbone, structure)
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
        raise WeightsPackageError(
            f"this weights package does not fit {what}: {'; '.join(problems[:3])}{more}; ask the mapper again"
        )
