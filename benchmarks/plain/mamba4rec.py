"""Mamba4Rec, as CoCorrRec compares with it, in plain torch: the selective scan as a loop over the clicks."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from plain.shared import Items, at_last_click, renamed, scores

EPS = 1e-12
EXPAND, TAPS = 2, 4


class Mamba(nn.Module):
    """The Mamba block, with the names of mamba_ssm."""

    def __init__(self, dimension: int, state: int) -> None:
        super().__init__()
        inner, self.rank, self.state = EXPAND * dimension, math.ceil(dimension / 16), state
        self.in_proj = nn.Linear(dimension, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, TAPS, groups=inner, padding=TAPS - 1)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.zeros(inner, state))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        clicks = x.shape[1]
        x, z = self.in_proj(x).chunk(2, -1)  # [B, N, I] each
        x = functional.silu(self.conv1d(x.transpose(1, 2))[..., :clicks].transpose(1, 2))
        dt, b, c = self.x_proj(x).split([self.rank, self.state, self.state], -1)
        dt = functional.softplus(self.dt_proj(dt))  # [B, N, I]
        a = -torch.exp(self.A_log)  # [I, S]
        decay = torch.exp(torch.einsum("bni,is->bnis", dt, a))
        gain = torch.einsum("bni,bns->bnis", dt * x, b)
        state = torch.zeros_like(gain[:, 0])
        outputs = []
        for click in range(clicks):
            state = decay[:, click] * state + gain[:, click]
            outputs.append(torch.einsum("bis,bs->bi", state, c[:, click]))
        y = torch.stack(outputs, 1) + x * self.D
        return self.out_proj(y * functional.silu(z))


class Block(nn.Module):
    """Mamba and a feed-forward network, each with a residual and a norm behind."""

    def __init__(self, dimension: int, state: int) -> None:
        super().__init__()
        self.mixer = Mamba(dimension, state)
        self.mixer_norm = nn.LayerNorm(dimension, eps=EPS)
        self.inner = nn.Linear(dimension, 4 * dimension)
        self.outer = nn.Linear(4 * dimension, dimension)
        self.feed_forward_norm = nn.LayerNorm(dimension, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        x = self.mixer_norm(x + self.mixer(x))
        return self.feed_forward_norm(x + self.outer(functional.gelu(self.inner(x))))


class Mamba4Rec(nn.Module):
    """LayerNorm(E), the blocks, and the product with the candidates' embeddings."""

    def __init__(self, vocabulary: int, dimension: int, blocks: int, state: int) -> None:
        super().__init__()
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.input_norm = nn.LayerNorm(dimension, eps=EPS)
        self.blocks = nn.Sequential(*(Block(dimension, state) for _ in range(blocks)))

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        encoded = self.blocks(self.input_norm(self.items(item_ids)))
        return scores(at_last_click(encoded, item_ids), self.items(candidate_ids))


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own Mamba4Rec."""
    module = Mamba4Rec(*model.items.weight.shape, len(model.blocks), model.blocks[0].mixer.state)
    module.load_state_dict(renamed(model, {}))
    return module
