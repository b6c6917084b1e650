"""DIN, the deep interest network, as CoCorrRec compares with it, in plain torch."""

import torch
from torch import Tensor, nn

from plain.shared import Items, renamed


class DIN(nn.Module):
    """Each candidate attends to the clicks; a network on the candidate and what it found gives its score."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.target = nn.Linear(dimension, dimension)
        self.click = nn.Linear(dimension, dimension)
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.first = nn.Linear(2 * dimension, 2 * dimension)
        self.second = nn.Linear(2 * dimension, dimension)
        self.logit = nn.Linear(dimension, 1)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        target = torch.tanh(self.target(self.items(candidate_ids)))
        clicks = torch.tanh(self.click(self.items(item_ids)))
        products = self.query(target) @ self.key(clicks).transpose(1, 2) / target.shape[-1] ** 0.5  # [B, C, N]
        products = products.masked_fill((item_ids == 0)[:, None], -1e8)
        pooled = torch.softmax(products, -1) @ self.value(clicks)
        hidden = torch.tanh(self.first(torch.cat([target, pooled], -1)))
        return self.logit(torch.tanh(self.second(hidden))).squeeze(-1)


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own DIN."""
    module = DIN(*model.items.weight.shape)
    module.load_state_dict(renamed(model, {}))
    return module
