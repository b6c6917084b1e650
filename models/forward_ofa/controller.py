"""The device's part of Forward-OFA beside the sub-network: which blocks to run, and what to tell the cloud."""

# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import GRU, states_at

WIDER = 28
"""How much larger the head's first weights are than torch draws them: users' logits begin about one apart.

That is as wide as the noise of a draw. As torch draws them they begin 0.03 apart and move together: on Beauty all users
ran the same blocks then.
"""


class Controller(nn.Module):
    """A GRU and a linear map: one logit per block, which runs where its logit is 0 or more (eqs. 2-5)."""

    def __init__(self, dimension: int, blocks: int) -> None:
        super().__init__()
        self.encoder = GRU(dimension, dimension)
        self.head = nn.Linear(dimension, blocks, bias=False)
        with torch.no_grad():
            self.head.weight.mul_(WIDER)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """Map embeddings [B, N, D] and the mask [B, N] of last valid positions to logits s [B, L]."""
        return self.head(states_at(self.encoder(x), last))


class Interest(nn.Module):
    """A GRU that starts from the structure: what the cloud learns of a user in place of the clicks (eq. 9)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.encoder = GRU(dimension, dimension)

    def forward(self, x: Tensor, last: Tensor, structure: Tensor | None) -> Tensor:
        """Return h [B, D] for embeddings [B, N, D], last valid positions [B, N] and a structure [B, L] of 0 and 1."""
        initial = None if structure is None else structure_vector(structure, x.shape[2])
        return states_at(self.encoder(x, initial), last)


def structure_vector(structure: Tensor, dimension: int) -> Tensor:
    """Return I [B, D]: for each block of [B, L] whether it runs and whether it is skipped, then zeros."""
    vector = torch.stack([structure, 1 - structure], -1).flatten(1)  # [B, 2 L]
    padding = dimension - vector.shape[1]
    return torch.cat([vector, torch.zeros_like(vector[:, :1]).expand(-1, padding)], 1) if padding else vector


def choose(logits: Tensor) -> Tensor:
    """Return the structure [B, L] in 0 and 1 of logits [B, L]."""
    return (logits >= 0).to(logits.dtype)


def sample(logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Draw structures [B, L] by Gumbel-softmax, hard forwards and soft backwards, and return -log alpha_l1 [B, L].

    alpha_l1 is the softmax of the logits as they are, without the noise and the temperature of the draw (eq. 11).
    """
    # The softmax over (s, 0) with two Gumbel noises is a sigmoid of s with the noises' difference, which is logistic.
    logits = logits.float()  # where training multiplies in bf16, the noise is still drawn finely
    uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
    shifted = (logits + torch.log(uniform) - torch.log1p(-uniform)) / temperature
    soft = torch.sigmoid(shifted)
    return choose(shifted) + (soft - soft.detach()), functional.softplus(logits)
