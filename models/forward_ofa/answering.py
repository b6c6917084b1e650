"""What the cloud of Forward-OFA answers a device: the weights package of its user, out of the mapper's output."""

from collections.abc import Mapping
from typing import Any

import torch

from models.forward_ofa import weights_package
from models.forward_ofa.assembler import block_weights
from models.forward_ofa.supernet import BACKBONES, check_sizes
from models.spec import Answer, Arrays

STORED = ("fp32", "int8")


def answers(architecture: Mapping[str, Any]) -> Answer:
    """Return what writes the package of one user; raises ValueError for an architecture that is none."""
    dimension, blocks, length = (int(architecture[name]) for name in ("dimension", "blocks", "history_length"))
    name = str(architecture["backbone"])
    check_sizes(dimension, blocks, length, name)
    backbone = BACKBONES[name](dimension, blocks, length)

    def answer(inputs: Arrays, outputs: Arrays, stored: str | None) -> bytes:
        """Write the package for a structure [L] and packed weights [L, P]; raises ValueError for NaN."""
        structure = [int(runs) for runs in inputs["structure"]]
        weights = block_weights(backbone, torch.from_numpy(outputs["weights"]), structure)
        return weights_package.to_bytes(backbone, structure, weights, "int8" if stored == "int8" else "fp32")

    return answer
