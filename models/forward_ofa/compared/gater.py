"""Gater: a small network reads a user's clicks and closes hidden units or filters of the blocks for this user.

Code name -> paper: gate a binary gate, open share the L1 norm of the gates over their number. A gate is per hidden unit
of SASRec's feed-forward network, or per filter of NextItNet's convolutions; what is closed costs a device that skips it
no products (`Block.open_macs`), while all parameters stay. After GaterNet (Chen et al., CVPR 2019), without its noise.
Sizes: batch B, history N, dimension D, blocks L, gates per block G.
"""

# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn

from models.layers import GRU, states_at

NARROWING = 8
"""The GRU's state is D / NARROWING wide, so that reading the clicks costs far less than a block."""
INITIAL_LOGIT = 1.0
"""At the start all gates are open, and near enough to closing."""


class Gater(nn.Module):
    """A GRU D -> D / 8 over the clicks, and a linear map of its last valid state to one logit for each gate."""

    def __init__(self, dimension: int, blocks: int, gates: int) -> None:
        super().__init__()
        self.blocks = blocks
        width = max(dimension // NARROWING, 1)
        self.encoder = GRU(dimension, width)
        self.head = nn.Linear(width, blocks * gates)
        nn.init.constant_(self.head.bias, INITIAL_LOGIT)

    def forward(self, x: Tensor, last: Tensor) -> Tensor:
        """Map embeddings [B, N, D] and the mask [B, N] of last valid positions to logits [B, L, G]."""
        return self.head(states_at(self.encoder(x), last)).reshape(x.shape[0], self.blocks, -1)

    def macs(self, length: int) -> int:
        """Return the multiply-accumulates of the gater itself for N tokens, products alone."""
        inputs, width, gates = self.encoder.input_size, self.encoder.hidden_size, self.head.out_features
        macs: int = length * 3 * width * (inputs + width) + width * gates
        return macs


def gates_of(logits: Tensor) -> Tensor:
    """Return the gates of logits, of the same shape: 1, which is open, where a logit is 0 or more, and else 0."""
    return (logits >= 0).to(logits.dtype)


def learned_gates(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gates of logits [B, L, G], hard forwards and a sigmoid backwards, and the share that is open."""
    soft = torch.sigmoid(logits.float())
    gates = gates_of(logits) + (soft - soft.detach())
    return gates, gates.mean()
