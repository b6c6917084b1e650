"""A sub-network of Forward-OFA's SASRec in plain torch: the blocks that run for one user, their weights inside."""

import torch
from torch import Tensor, nn

from plain.shared import Items, at_last_click, scores

EPS = 1e-6
LAYERS = ("query", "key", "value", "inner", "outer")


class Block(nn.Module):
    """Causal attention with one head and a feed-forward network, each with a norm before and a residual around."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dimension, eps=EPS)
        self.feed_forward_norm = nn.LayerNorm(dimension, eps=EPS)
        for layer in LAYERS:
            self.add_module(layer, nn.Linear(dimension, dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        normal = self.attention_norm(x)
        query, key, value = self.query(normal), self.key(normal), self.value(normal)
        products = query @ key.transpose(1, 2) / x.shape[2] ** 0.5
        future = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        x = x + torch.softmax(products.masked_fill(future, -torch.inf), -1) @ value
        return x + self.outer(torch.relu(self.inner(self.feed_forward_norm(x))))


class SubNetwork(nn.Module):
    """E + P, the blocks, a norm, and the product with the candidates' embeddings."""

    def __init__(self, vocabulary: int, dimension: int, blocks: int, clicks: int) -> None:
        super().__init__()
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.positions = nn.Embedding(clicks, dimension)
        self.blocks = nn.Sequential(*(Block(dimension) for _ in range(blocks)))
        self.norm = nn.LayerNorm(dimension, eps=EPS)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        x = self.items(item_ids) + self.positions(torch.arange(item_ids.shape[1]))
        encoded = self.norm(self.blocks(x))
        return scores(at_last_click(encoded, item_ids), self.items(candidate_ids))


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own sub-network of a SASRec backbone."""
    clicks = model.entry.weight.shape[0]
    module = SubNetwork(*model.items.weight.shape, len(model.blocks), clicks)
    state = {"items.weight": model.items.weight, "positions.weight": model.entry.weight}
    state |= {f"norm.{kind}": getattr(model.exit, kind) for kind in ("weight", "bias")}
    for place, (index, block) in enumerate(zip(model.chosen, model.blocks, strict=True)):
        state |= {f"blocks.{place}.{name}": tensor for name, tensor in block.state_dict().items() if "norm" in name}
        for layer in LAYERS:
            for kind in ("weight", "bias"):
                state[f"blocks.{place}.{layer}.{kind}"] = getattr(model, f"block{index}_{layer}_{kind}")
    module.load_state_dict(state)
    return module
