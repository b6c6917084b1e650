"""GRU4Rec, as CoCorrRec compares with it, in plain torch."""

import torch
from torch import Tensor, nn

from plain.shared import Items, at_last_click, mlp, renamed, scores


class GRU4Rec(nn.Module):
    """tanh(Linear(E)), a GRU, and a small network on each side of the product."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = Items(vocabulary, dimension, padding_idx=0)
        self.input = nn.Linear(dimension, dimension)
        self.gru = nn.GRU(dimension, dimension, batch_first=True)
        self.user = mlp(dimension)
        self.tower = mlp(dimension)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidates [B, C] after histories [B, N]."""
        states, _ = self.gru(torch.tanh(self.input(self.items(item_ids))))
        user = self.user(at_last_click(states, item_ids))
        return scores(user, self.tower(self.items(candidate_ids)))


def plain(model: nn.Module) -> nn.Module:
    """Return it with the weights of the tool's own GRU4Rec."""
    module = GRU4Rec(*model.items.weight.shape)
    names = {"user_hidden.": "user.0.", "user_output.": "user.2."}
    names |= {"candidate_hidden.": "tower.0.", "candidate_output.": "tower.2."}
    module.load_state_dict(renamed(model, names))
    return module
