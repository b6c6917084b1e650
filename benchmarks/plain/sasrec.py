"""SASRec, as CoCorrRec compares with it, in plain torch: one post-norm transformer layer without a mask."""

import torch
from torch import Tensor, nn

from plain.shared import Items, at_last_click, heads_apart, heads_together, mlp, renamed, scores

EPS = 1e-5


class EncoderLayer(nn.Module):
    """Attention of all positions to all, and a feed-forward network, each with a residual and a norm behind."""

    def __init__(self, dimension: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dimension, dimension)
        self.key = nn.Linear(dimension, dimension)
        self.value = nn.Linear(dimension, dimension)
        self.out = nn.Linear(dimension, dimension)
        self.linear1 = nn.Linear(dimension, 4 * dimension)
        self.linear2 = nn.Linear(4 * dimension, dimension)
        self.norm1 = nn.LayerNorm(dimension, eps=EPS)
        self.norm2 = nn.LayerNorm(dimension, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        query, key, value = (heads_apart(part(x), self.heads) for part in (self.query, self.key, self.value))
        weights = torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, -1)
        x = self.norm1(x + self.out(heads_together(weights @ value)))
        return self.norm2(x + self.linear2(torch.relu(self.linear1(x))))


class SASRec(nn.Module):
    """E + P, tanh(Linear), the layer, and a small network on each side of the product."""

    def __init__(self, vocabulary: int, dimension: int, heads: int, clicks: int) -> None:
        super().__init__()
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.positions = nn.Embedding(clicks, dimension)
        self.input = nn.Linear(dimension, dimension)
        self.layer = EncoderLayer(dimension, heads)
        self.user = mlp(dimension)
        self.tower = mlp(dimension)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        places = torch.arange(item_ids.shape[1])
        x = torch.tanh(self.input(self.items(item_ids) + self.positions(places)))
        user = self.user(at_last_click(self.layer(x), item_ids))
        return scores(user, self.tower(self.items(candidate_ids)))


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own SASRec."""
    attention = model.layer.self_attn
    module = SASRec(*model.items.weight.shape, attention.heads, model.history_length)
    names = {"user_hidden.": "user.0.", "user_output.": "user.2.", "positions": "positions.weight"}
    names |= {"candidate_hidden.": "tower.0.", "candidate_output.": "tower.2."}
    names |= {"layer.self_attn.out_proj.": "layer.out."}
    state = renamed(model, names)
    for kind in ("weight", "bias"):
        parts = state.pop(f"layer.self_attn.in_proj_{kind}").chunk(3)
        state |= {f"layer.{name}.{kind}": part for name, part in zip(("query", "key", "value"), parts, strict=True)}
    module.load_state_dict(state)
    return module
