"""What the cloud of Forward-OFA answers a device: the weights package of its user, out of the mapper's output."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import torch

from models.forward_ofa.assembler import block_weights
from models.forward_ofa.layout import layout_of
from models.forward_ofa.supernet import BACKBONES, check_sizes
from models.spec import Answer, Arrays, Stored

STORED: tuple[Stored, ...] = ("fp32", "fp16", "int8")
_MOST_LAYOUTS = 64
"""That are kept; each has the bytes of a package, so that devices cannot fill the memory with structures."""

_FORMS: Mapping[str | None, Stored] = {None: "fp32", **{form: form for form in STORED}}


def answers(architecture: Mapping[str, Any], checkpoint: str | None) -> Answer:
    """Return what writes the package of one user; raises ValueError for an architecture that is none."""
    dimension, blocks, length = (int(architecture[name]) for name in ("dimension", "blocks", "history_length"))
    name = str(architecture["backbone"])
    check_sizes(dimension, blocks, length, name)
    backbone = BACKBONES[name](dimension, blocks, length)
    layout = lru_cache(_MOST_LAYOUTS)(partial(layout_of, backbone, checkpoint))

    def answer(inputs: Arrays, outputs: Arrays, stored: str | None) -> bytes:
        """Write the package for a structure [L] and packed weights [L, P]; raises ValueError for NaN."""
        structure = tuple(int(runs) for runs in inputs["structure"])
        weights = block_weights(backbone, torch.from_numpy(outputs["weights"]), structure)
        return layout(structure, _FORMS[stored]).filled(weights)

    return answer
