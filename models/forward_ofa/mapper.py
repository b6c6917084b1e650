"""The cloud's part of Forward-OFA: from a latent interest to the weights of the blocks that a user runs."""

# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn

from models.forward_ofa.backbones.backbone import Shapes, count, initial_weights

INITIAL_STD = 0.01


class Mapper(nn.Module):
    """One linear map D -> P with bias for each of L blocks, side by side (eq. 8)."""

    def __init__(self, dimension: int, blocks: int, shapes: Shapes) -> None:
        super().__init__()
        self.blocks = blocks
        self.linear = nn.Linear(dimension, blocks * count(shapes))
        # At the start every user gets the block that a backbone without a mapper would start from, and a little more.
        nn.init.normal_(self.linear.weight, std=INITIAL_STD)
        with torch.no_grad():
            self.linear.bias.copy_(torch.cat([initial_weights(shapes) for _ in range(blocks)]))

    def forward(self, latent: Tensor) -> Tensor:
        """Map h [B, D] to the packed weights [B, L, P] of all blocks."""
        return self.linear(latent).reshape(latent.shape[0], self.blocks, -1)
