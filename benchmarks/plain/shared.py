"""What all of the plain models have: items by their ids, the row of the last click, and the tower of the candidates."""

import torch
from torch import Tensor, nn


class Items(nn.Embedding):
    """An nn.Embedding for which an id that is not in the table counts as padding: id 0, a row of zeros."""

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [...] to [..., D]."""
        known = (ids >= 0) & (ids < self.num_embeddings)
        return super().forward(torch.where(known, ids, 0))


def at_last_click(states: Tensor, item_ids: Tensor) -> Tensor:
    """Return the rows [B, D] of states [B, N, D] at the last valid positions of histories [B, N]."""
    last = ((item_ids != 0).sum(1) - 1).clamp(min=0)
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)


def heads_apart(x: Tensor, heads: int) -> Tensor:
    """Cut [B, N, D] into heads [B, h, N, d]."""
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def heads_together(x: Tensor) -> Tensor:
    """Put heads [B, h, N, d] side by side, [B, N, D]."""
    return x.transpose(1, 2).flatten(2)


def mlp(dimension: int) -> nn.Sequential:
    """Return Linear, tanh, Linear: the tower T of the candidates, and the map of the user."""
    return nn.Sequential(nn.Linear(dimension, dimension), nn.Tanh(), nn.Linear(dimension, dimension))


def scores(user: Tensor, candidates: Tensor) -> Tensor:
    """Return the product [B, C] of users [B, D] with candidates [B, C, D]."""
    return torch.einsum("bcd,bd->bc", candidates, user)


def renamed(model: nn.Module, names: dict[str, str]) -> dict[str, Tensor]:
    """Return a model's weights with the beginnings of their names changed as `names` says."""
    state = {}
    for name, tensor in model.state_dict().items():
        begins = next((old for old in names if name.startswith(old)), "")
        state[names.get(begins, "") + name[len(begins) :]] = tensor
    return state
