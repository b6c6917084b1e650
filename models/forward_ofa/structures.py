"""What sub-networks of one structure for all users give, beside what the model gives by its own choice for each."""

import numpy as np
import torch
from torch import nn

from models.forward_ofa.supernet import Supernet
from models.layers import inner_product
from models.spec import Arrays

_BATCH = 64


def scores_of(model: nn.Module, golden: Arrays, structure: tuple[int, ...] | None) -> np.ndarray:
    """Return the scores [cases, C] of golden cases with these blocks for all users, each with the user's own weights.

    None stands for the blocks that the model chooses for each user.
    """
    if not isinstance(model, Supernet):
        raise TypeError(f"{type(model).__name__} is no Supernet")
    parts = []
    pairs = (torch.from_numpy(golden[name]).split(_BATCH) for name in ("item_ids", "candidate_ids"))
    with torch.no_grad():
        for item_ids, candidate_ids in zip(*pairs, strict=True):
            chosen = model.structure(item_ids)
            if structure is not None:
                chosen = torch.tensor([structure]).to(chosen).expand_as(chosen)
            parts.append(inner_product(model.user_state(item_ids, chosen), model.items(candidate_ids)))
    scores: np.ndarray = torch.cat(parts).numpy()
    return scores
