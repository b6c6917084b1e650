"""GCN, the global correction network of CoCorrRec: in the cloud, it corrects A and c of a device's SCN.

Code name -> paper symbol: CorrectionNet.forward gives K_A or K_c before eq. 14, attention_weight P, bias_weight Q,
hidden H. Sizes are those of models/scn.py.
"""

# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import GRU, last_position
from models.scn import SCN, Correction

INITIAL_BIAS_WEIGHT = 0.25


class CorrectionNet(nn.Module):
    """A GRU over H and three linear layers without biases; gives `shape` numbers per sample."""

    def __init__(self, dimension: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.gru = GRU(dimension, dimension)
        self.fc1 = nn.Linear(dimension, dimension, bias=False)
        self.fc2 = nn.Linear(dimension, dimension, bias=False)
        self.fc3 = nn.Linear(dimension, shape[0] * shape[1] * shape[2], bias=False)

    def forward(self, hidden: Tensor, last: Tensor) -> Tensor:
        """Map H [B, N, D] and the mask [B, N] of last valid positions to [B, *shape]."""
        state = (self.gru(hidden) * last[:, :, None]).sum(1)  # [B, N, D] -> [B, D]
        state = functional.leaky_relu(self.fc1(state))
        state = functional.leaky_relu(self.fc2(state))
        return self.fc3(state).reshape(-1, *self.shape)


class GCN(nn.Module):
    """Both correction nets for an SCN of h heads of width d and mini-batches of b tokens, and the weights P and Q."""

    def __init__(self, dimension: int, heads: int, mini_batch: int) -> None:
        super().__init__()
        self.attention = CorrectionNet(dimension, (heads, mini_batch, mini_batch))
        self.bias = CorrectionNet(dimension, (heads, mini_batch, dimension // heads))
        self.attention_weight = nn.Parameter(torch.zeros(1))
        self.bias_weight = nn.Parameter(torch.full((1,), INITIAL_BIAS_WEIGHT))

    def forward(self, hidden: Tensor, last: Tensor) -> Correction:
        """Return the correction for a device's H [B, b, D] whose last valid positions `last` [B, b] marks with 1."""
        attention, bias = self.attention(hidden, last), self.bias(hidden, last)
        return Correction(attention, bias, self.attention_weight, self.bias_weight)


class CorrectedSCN(nn.Module):
    """Device and cloud together: an SCN whose A and c a GCN corrects; with P = Q = 0 the SCN alone (eqs. 14-15)."""

    def __init__(self, scn: SCN, gcn: GCN) -> None:
        super().__init__()
        self.scn, self.gcn = scn, gcn

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return scores [B, C] of candidate ids [B, C] after histories [B, b]; raises ValueError for another length."""
        hidden = self.scn.hidden_state(item_ids)
        last = last_position(item_ids, hidden.dtype)
        user = self.scn.user_state(hidden, last, self.gcn(hidden, last))
        return self.scn.score(user, self.scn.items(candidate_ids))
