"""GCN, the global correction network of CoCorrRec: in the cloud, it corrects A and c of a device's SCN.

Code name -> paper symbol: CorrectionNet.forward gives K_A or K_c before eq. 14, attention_weight P, bias_weight Q,
hidden H. Sizes are those of network.py.
"""

# mypy: allow-subclassing-any

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import EPS, GRU, states_at

INITIAL_BIAS_WEIGHT = 0.25


class Correction(NamedTuple):
    """What the cloud sends for k mini-batches of b tokens, and the learned scalars P and Q that weigh it (eq. 15).

    The h matrices of the oldest mini-batch come first, then those of the next one.
    """

    attention: Tensor  # K_A before it is moved to the statistics of A, [B, k h, b, b]
    bias: Tensor  # K_c before it is moved to the statistics of c, [B, k h, b, d]
    attention_weight: Tensor  # P
    bias_weight: Tensor  # Q

    def at(self, marked: Tensor) -> "Correction":
        """Return the correction of the mini-batch that `marked` [B, k] has a 1 for."""
        return self._replace(attention=_at(self.attention, marked), bias=_at(self.bias, marked))


class CorrectionNet(nn.Module):
    """A GRU over H and three linear layers without biases; gives `shape`, of which b is the second, per mini-batch."""

    def __init__(self, dimension: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape
        self.gru = GRU(dimension, dimension)
        self.fc1 = nn.Linear(dimension, dimension, bias=False)
        self.fc2 = nn.Linear(dimension, dimension, bias=False)
        self.fc3 = nn.Linear(dimension, shape[0] * shape[1] * shape[2], bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map H [B, k b, D] to [B, k shape[0], *shape[1:]]: of each mini-batch what its own rows of H give.

        Raises ValueError where H has other rows than those of whole mini-batches.
        """
        heads, rows, columns = self.shape
        count = whole_mini_batches(hidden.shape[1], rows)
        if count > 1:
            hidden = hidden.reshape(-1, rows, hidden.shape[2])
        state = states_at(self.gru(hidden), last_row(hidden))
        state = functional.leaky_relu(self.fc1(state))
        state = functional.leaky_relu(self.fc2(state))
        return self.fc3(state).reshape(-1, count * heads, rows, columns)


class GCN(nn.Module):
    """Both correction nets for an SCN of h heads of width d and mini-batches of b tokens, and the weights P and Q."""

    def __init__(self, dimension: int, heads: int, mini_batch: int) -> None:
        super().__init__()
        self.attention = CorrectionNet(dimension, (heads, mini_batch, mini_batch))
        self.bias = CorrectionNet(dimension, (heads, mini_batch, dimension // heads))
        self.attention_weight = nn.Parameter(torch.zeros(1))
        self.bias_weight = nn.Parameter(torch.full((1,), INITIAL_BIAS_WEIGHT))

    def forward(self, hidden: Tensor) -> Correction:
        """Return the correction for a device's H [B, k b, D], which is all that the cloud knows of a history."""
        return Correction(self.attention(hidden), self.bias(hidden), self.attention_weight, self.bias_weight)


def whole_mini_batches(clicks: int, size: int) -> int:
    """Return how many mini-batches of `size` clicks a history is; raises ValueError where there is a rest, or none."""
    count, rest = divmod(clicks, size)
    if rest or not count:
        more = max(count, 1) * size
        raise ValueError(
            f"corrections are for whole mini-batches of {size} clicks, and these histories have {clicks}; ask for a"
            f" history_length of {more}, {more + size} or another multiple of {size}"
        )
    return count


def last_row(hidden: Tensor) -> Tensor:
    """Return [B, N] with 1 at the last row of H [B, N, D] that is not zero, as padding is, and 0 elsewhere."""
    clicked = (torch.abs(hidden).sum(-1) > 0).to(hidden.dtype)
    positions = torch.arange(hidden.shape[1], dtype=hidden.dtype, device=hidden.device)
    return (positions == (clicked * positions).amax(-1, keepdim=True)).to(hidden.dtype)


def fuse(own: Tensor, correction: Tensor, weight: Tensor) -> Tensor:
    """Move `correction` to the statistics of `own` along the last axis (eq. 14) and add it with `weight` (eq. 15)."""
    centred = correction - correction.mean(-1, keepdim=True)
    scale = _deviation(own) / (_deviation(correction) + EPS)
    return own + weight * (centred * scale + own.mean(-1, keepdim=True))


def _at(parts: Tensor, marked: Tensor) -> Tensor:
    """Return [B, h, m, n] of the mini-batch that `marked` [B, k] has a 1 for, out of [B, k h, m, n]."""
    batch, count = marked.shape
    return torch.matmul(marked[:, None], parts.reshape(batch, count, -1)).reshape(batch, -1, *parts.shape[2:])


def _deviation(x: Tensor) -> Tensor:
    """Return the unbiased standard deviation along the last axis, from simple operations that every target has."""
    centred = x - x.mean(-1, keepdim=True)
    # A padding row has no variance: without the tiny term its gradient would be 0 * inf in training.
    return torch.sqrt((centred * centred).sum(-1, keepdim=True) / (x.shape[-1] - 1) + 1e-24)
