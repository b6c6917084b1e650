"""SCN of CoCorrRec in plain torch: equations 8 to 13, all heads and positions, one mini-batch after the other."""

import torch
from torch import Tensor, nn

from plain.shared import Items, at_last_click, heads_apart, heads_together, mlp, renamed, scores

EPS = 1e-6


class RMSNorm(nn.Module):
    """Divide by the root mean square, and scale."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * self.weight


class SCN(nn.Module):
    """The self-correction network, and the tower of the candidates."""

    def __init__(self, vocabulary: int, dimension: int, heads: int, mini_batch: int) -> None:
        super().__init__()
        width = dimension // heads
        self.heads, self.width, self.mini_batch = heads, width, mini_batch
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.input_norm = RMSNorm(dimension)
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.inner_lr = nn.Linear(dimension, heads)
        self.token_scale_offset = nn.Parameter(torch.zeros(mini_batch))
        self.initial_weight = nn.Parameter(torch.zeros(heads, width, width))
        self.initial_bias = nn.Parameter(torch.zeros(heads, 1, width))
        self.inner_norm_weight = nn.Parameter(torch.ones(heads, 1, width))
        self.inner_norm_bias = nn.Parameter(torch.zeros(heads, 1, width))
        self.post_norm = nn.LayerNorm(dimension, eps=EPS)
        self.output = nn.Linear(dimension, dimension, bias=False)
        self.output_norm = RMSNorm(dimension)
        self.tower = mlp(dimension)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        hidden = self.input_norm(self.items(item_ids))
        mixed = self.mix(hidden)
        encoded = self.output_norm(self.output(self.post_norm(heads_together(mixed))))
        return scores(at_last_click(encoded, item_ids), self.tower(self.items(candidate_ids)))

    def mix(self, hidden: Tensor) -> Tensor:
        """Return the outputs [B, h, N, d] of the inner learner for H [B, N, D]."""
        query, key, value = (heads_apart(part(hidden), self.heads) for part in (self.query, self.key, self.value))
        learning_rate = torch.sigmoid(self.inner_lr(hidden)).transpose(1, 2) / self.width  # [B, h, N]
        weight, bias = self.initial_weight, self.initial_bias
        outputs = []
        for start in range(0, hidden.shape[1], self.mini_batch):
            part = slice(start, min(start + self.mini_batch, hidden.shape[1]))
            q, k, v = rotate(query[:, :, part]), rotate(key[:, :, part]), value[:, :, part]
            places = torch.arange(1, q.shape[2] + 1)
            scale = torch.clamp(1 / places + self.token_scale_offset[: q.shape[2]], min=0)
            eta = scale[:, None] * learning_rate[:, :, None, part]  # [B, h, b, b]
            gradient = self.gradient(k @ weight + bias, v - k)
            attention = torch.tril(q @ k.transpose(-1, -2))
            token_bias = bias - torch.tril(eta) @ gradient
            z = q @ weight - (eta * attention) @ gradient + token_bias
            outputs.append(q + self.inner_norm(z))
            last = eta[:, :, -1:]  # [B, h, 1, b]
            weight = weight - (last.transpose(-1, -2) * k).transpose(-1, -2) @ gradient
            bias = bias - last @ gradient
        return torch.cat(outputs, 2)

    def inner_norm(self, z: Tensor) -> Tensor:
        """Normalise [B, h, b, d] with the scale and shift of each head."""
        return nn.functional.layer_norm(z, (self.width,), eps=EPS) * self.inner_norm_weight + self.inner_norm_bias

    def gradient(self, z: Tensor, target: Tensor) -> Tensor:
        """Return the gradient of 1/2 ||LN(Z) - target||^2 with respect to Z, [B, h, b, d]."""
        std = torch.sqrt(z.var(-1, unbiased=False, keepdim=True) + EPS)
        normal = (z - z.mean(-1, keepdim=True)) / std
        g = (self.inner_norm_weight * normal + self.inner_norm_bias - target) * self.inner_norm_weight
        return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) / std


def rotate(x: Tensor) -> Tensor:
    """Turn the pairs of (even, odd) neighbours of [B, h, b, d] by their places in the mini-batch: RoPE, base 10000."""
    length, width = x.shape[-2:]
    frequency = 10000.0 ** (-torch.arange(0, width, 2) / width)
    angle = torch.arange(length)[:, None] * frequency  # [b, d / 2]
    even, odd = x[..., 0::2], x[..., 1::2]
    turned = even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()
    return torch.stack(turned, -1).flatten(-2)


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own SCN."""
    module = SCN(*model.items.weight.shape, model.heads, model.mini_batch)
    names = {"candidate_hidden.": "tower.0.", "candidate_output.": "tower.2."}
    module.load_state_dict(renamed(model, names))
    return module
