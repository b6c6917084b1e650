"""The weights package of one user alone, of the bytes that the same user has among those of a fleet."""

import numpy as np
import torch

from models.forward_ofa import weights_package
from models.forward_ofa.assembler import block_weights
from models.forward_ofa.generating import Generator
from models.forward_ofa.supernet import Supernet
from models.spec import Stored


def package_of(
    model: Supernet,
    item_ids: np.ndarray,
    structure: tuple[int, ...] | None,
    stored: Stored,
    checkpoint: str | None,
) -> tuple[tuple[int, ...], bytes]:
    """Return the structure [L] and the package for a history [1, N]; without a structure it is the user's own.

    What a device fine-tunes is packed as a mapper's answer is. Raises ValueError for a method that gives all users the
    same weights, and WeightsPackageError for weights that are no finite numbers or that `stored` cannot hold.
    """
    if not model.steps:
        generator = Generator(model, checkpoint)
        structures, latents = generator.requests(item_ids, structure)
        chosen = tuple(structures[0].tolist())
        return chosen, next(generator.packages(structures, latents, stored)).files[0].tobytes()
    with torch.no_grad():
        ids = torch.from_numpy(item_ids)
        runs = model.structure(ids) if structure is None else torch.tensor([structure]).to(model.items.weight)
        weights = model.generate(ids, runs)[0]
    chosen = tuple(runs[0].int().tolist())
    tensors = block_weights(model.backbone, weights, chosen)
    return chosen, weights_package.to_bytes(model.backbone, chosen, tensors, stored, checkpoint)
