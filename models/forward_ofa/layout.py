"""The file of a weights package without its weights: all users of one structure get the same but for the numbers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.forward_ofa import weights_package
from models.forward_ofa.assembler import block_weight_shapes
from models.forward_ofa.backbones.backbone import Backbone
from models.forward_ofa.weights_package import WeightsPackageError
from models.spec import Stored
from safeio import strict_json

_DTYPES = {"F32": torch.float32, "F16": torch.float16, "I8": torch.int8}


@dataclass(frozen=True)
class Layout:
    """The file that all users of one structure get: its bytes with zeros for weights, and where each tensor lies.

    `places` has (first byte, shape, dtype) by name, as the header has them.
    """

    structure: tuple[int, ...]
    stored: Stored
    template: bytes
    places: Mapping[str, tuple[int, tuple[int, ...], torch.dtype]]

    @property
    def head(self) -> int:
        """Return the bytes in front of the first weight."""
        return min((first for first, _, _ in self.places.values()), default=self.size)

    @property
    def size(self) -> int:
        """Return the bytes of the file."""
        return len(self.template)

    def filled(self, weights: Mapping[str, Tensor]) -> bytes:
        """Return the file with fp32 weights by name, the bytes of `weights_package.to_bytes`.

        Raises WeightsPackageError for weights that are no finite numbers or that `stored` cannot hold.
        """
        file = bytearray(self.template)
        for name, tensor in weights.items():
            if not bool(torch.isfinite(tensor).all()):
                raise WeightsPackageError(f"{name} has NaN or infinite values; ask the mapper again")
            for entry, values, dtype in weights_package.entries(name, tensor, self.stored):
                first, shape, _ = self.places[entry]
                if shape:
                    place = torch.frombuffer(file, dtype=dtype, offset=first, count=math.prod(shape))
                    place.copy_(values.flatten())
        return bytes(file)


def layout_of(backbone: Backbone, checkpoint: str | None, structure: Sequence[int], stored: Stored) -> Layout:
    """Return what the packages of a structure have in common, of a checkpoint with this SHA-256."""
    zeros = {name: torch.zeros(shape) for name, shape in block_weight_shapes(backbone, structure).items()}
    template = weights_package.to_bytes(backbone, structure, zeros, stored, checkpoint)
    start = 8 + int.from_bytes(template[:8], "little")
    header = strict_json.loads(template[8:start])
    header.pop("__metadata__")
    places = {
        name: (start + entry["data_offsets"][0], tuple(entry["shape"]), _DTYPES[entry["dtype"]])
        for name, entry in header.items()
    }
    return Layout(tuple(structure), stored, template, places)
