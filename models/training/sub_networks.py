"""What the networks that users get cost, as a checkpoint's metrics state it, and whether all users get the same one.

Multiply-accumulates are those of the blocks for a history of N clicks, as `Block.macs` counts them. What a user's gates
close is not counted for that user; what a mask leaves out is, for devices multiply by zeros as well; and what rebuilds
STTD's matrices stands beside, for only a program that rebuilds them with every call has it.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from models.forward_ofa.backbones.backbone import count
from models.forward_ofa.compared import sttd
from models.forward_ofa.compared.gater import gates_of
from models.forward_ofa.compared.rare_gem import kept_numbers
from models.forward_ofa.supernet import Supernet

BATCH = 256
COLLAPSED = 0.9
"""A controller that gives one structure to more than this share of the users chooses for nobody."""


def sub_networks(model: Supernet, item_ids: np.ndarray) -> dict[str, float]:
    """Return averages over users [U, N]: blocks, their parameters and MACs, and how many users run each block.

    Parameters are those that are kept or sent: factors of STTD, and of a Rare Gem what its mask leaves.
    """
    structures = _of_all(model, item_ids, model.structure)
    mean = structures.mean(0)
    same = structures.int().unique(dim=0, return_counts=True)[1]
    macs, extra = _macs(model, item_ids, structures)
    return {
        "different": float(len(same)),
        "share_of_most_frequent": round(float(same.max()) / len(structures), 6),
        "blocks": round(float(mean.sum()), 6),
        "parameters": round(float((mean * _parameters(model)).sum()), 1),
        "macs": round(macs, 1),
        "macs_of_all_blocks": float(sum(block.macs(item_ids.shape[1]) for block in model.backbone.blocks)),
        **extra,
        **{f"runs_block{index}": round(share, 6) for index, share in enumerate(mean.tolist())},
    }


def is_collapsed(model: Supernet, parts: Mapping[str, float]) -> bool:
    """Say whether a controller, by what `sub_networks` tells, gives nearly all users one structure."""
    return model.controller is not None and parts["share_of_most_frequent"] > COLLAPSED


def _parameters(model: Supernet) -> Tensor:
    """Return how many numbers of each block are kept or sent [L]."""
    shapes, blocks = model.backbone.shapes, len(model.backbone.blocks)
    if model.method.sparse:
        return kept_numbers(model.own_weights.detach(), shapes)
    kept = sttd.factor_shapes(shapes, sttd.RANKS[model.backbone.name]) if model.method.factored else shapes
    return torch.full((blocks,), count(kept))


def _macs(model: Supernet, item_ids: np.ndarray, structures: Tensor) -> tuple[float, dict[str, float]]:
    """Return the MACs of an average user's blocks, and what a method has to say beside that."""
    blocks, length, mean = model.backbone.blocks, item_ids.shape[1], structures.mean(0).tolist()
    macs = sum(share * block.macs(length) for share, block in zip(mean, blocks, strict=True))
    if model.method.factored:
        rebuilding = sttd.rebuild_macs(model.backbone.shapes, sttd.RANKS[model.backbone.name])
        return macs, {"macs_to_rebuild": sum(mean) * rebuilding}
    gater = model.gater
    if gater is None:
        return macs, {}
    gates = _of_all(model, item_ids, lambda ids: gates_of(gater(*model.embed_and_mark(ids))))  # [U, L, G]
    by_block = [block.open_macs(length, gates[:, index]) for index, block in enumerate(blocks)]
    user = (torch.stack(by_block, -1) * structures).sum(-1)
    return float(user.mean()), {"open_gates": round(float(gates.mean()), 6), "macs_of_gater": float(gater.macs(length))}


def _of_all(model: Supernet, item_ids: np.ndarray, compute: Callable[[Tensor], Tensor]) -> Tensor:
    """Return what `compute` gives for histories [U, N], batch by batch, on the CPU."""
    device, starts = model.items.weight.device, range(0, len(item_ids), BATCH)
    with torch.no_grad():
        parts = [compute(torch.from_numpy(item_ids[start : start + BATCH]).to(device)).cpu() for start in starts]
    return torch.cat(parts)
