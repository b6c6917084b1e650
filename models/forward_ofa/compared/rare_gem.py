"""Rare Gem: a sparse network is found within weights that stay as they were drawn; only then are its weights trained.

Code name -> paper: scores p, kept the mask, alive the places that iterative freezing has left. In the first half of the
epochs scores are learned: of each weight matrix the places of the largest scores are kept, straight through, and with
each epoch more of the places of the smallest scores are given up for good, until what is alive is what is kept. In the
second half the weights at those places are trained. Biases and norms are trained throughout. After Gem-Miner
(Sreenivasan et al., NeurIPS 2022). The checkpoint has the weights, zero where they are given up: no mask beside them.
"""

# mypy: allow-subclassing-any

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from models.forward_ofa.backbones.backbone import Shapes, initial_weights


class Masks(nn.Module):
    """Scores and masks [L, P] of packed weights for a training of so many epochs; `sparsity` is the share of zeros."""

    def __init__(self, shapes: Shapes, blocks: int, sparsity: float, epochs: int) -> None:
        super().__init__()
        self.sparsity, self.mining = sparsity, epochs // 2
        self.sizes = [(len(shape) == 2, math.prod(shape)) for shape in shapes.values()]
        # Within the range of the weights, since a step of the optimiser moves both by about as much.
        self.scores = nn.Parameter(torch.stack([initial_weights(shapes).abs() for _ in range(blocks)]))
        self.register_buffer("alive", torch.ones_like(self.scores))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def start_epoch(self) -> None:
        """Give up as many places as the epochs before were to find; what is given up stays so."""
        found = min(int(self.epoch), self.mining)
        self.epoch += 1
        if self.mining:
            self.alive.copy_(self._largest(self.sparsity * found / self.mining))

    def forward(self, weights: Tensor) -> Tensor:
        """Return packed weights [L, P] with zeros where they are not kept; gradients are those of this epoch's part."""
        if int(self.epoch) > self.mining:
            return weights * self.alive
        kept = self._largest(self.sparsity) + (self.scores - self.scores.detach())
        return torch.cat(
            [
                weight.detach() * mask if is_matrix else weight
                for (is_matrix, _), weight, mask in zip(
                    self.sizes, self._parts(weights), self._parts(kept), strict=True
                )
            ],
            -1,
        )

    def _largest(self, sparsity: float) -> Tensor:
        """Return a mask [L, P] without the share `sparsity` of each matrix whose scores are smallest, or given up."""
        with torch.no_grad():
            masks = []
            for (is_matrix, size), scores in zip(self.sizes, self._parts(self._ordered()), strict=True):
                mask = torch.ones_like(scores)
                if is_matrix:
                    mask.scatter_(-1, scores.topk(round(size * sparsity), largest=False).indices, 0)
                masks.append(mask)
            return torch.cat(masks, -1)

    def _ordered(self) -> Tensor:
        """Return the scores, those that are given up below all others."""
        return torch.where(self.alive > 0, self.scores, self.scores.min() - 1)

    def _parts(self, packed: Tensor) -> Iterator[Tensor]:
        """Cut [L, P] into the tensors of `shapes`, [L, numbers] each."""
        return iter(packed.split([size for _, size in self.sizes], -1))


def kept_numbers(weights: Tensor, shapes: Shapes) -> Tensor:
    """Return how many of each block's packed weights [L, P] there are, [L]: all biases, and of matrices no zeros."""
    parts = zip(shapes.values(), weights.split([math.prod(shape) for shape in shapes.values()], -1), strict=True)
    counts = [
        (part != 0).sum(-1) if len(shape) == 2 else torch.full((len(part),), part.shape[-1]) for shape, part in parts
    ]
    return torch.stack([count.cpu() for count in counts]).sum(0)
