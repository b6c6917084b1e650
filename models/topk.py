"""The program `topk`: the best K items of the whole catalogue for a history, of models that rank by a product."""

# mypy: allow-subclassing-any

import copy
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.inputs import ITEM_IDS, histories_only
from models.layers import ItemEmbedding, tower
from models.spec import BuildProgram, ProgramSpec, Selection

DEFAULT_TOP = 100


class Ranker(Protocol):
    """A model whose scores are products of the user's vector with one vector of each item."""

    items: ItemEmbedding

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        ...


class TopK(nn.Module):
    """The module of `topk`: the vectors [V, D] of all items, that of padding among them, and how many items it gives.

    `vectors` may be the item table itself, which is then in the program once.
    """

    def __init__(self, ranker: Ranker, vectors: nn.Parameter, count: int) -> None:
        super().__init__()
        self.ranker, self.vectors, self.count = ranker, vectors, count

    def forward(self, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Map a history [1, N] to the rows [1, K] of the best items, the best first, and their scores [1, K]."""
        scores = functional.linear(self.ranker.user(item_ids), self.vectors)
        best = torch.topk(scores[:, 1:], self.count)  # without row 0, the padding, which can never be shown
        return best.indices.to(torch.int32) + 1, best.values


def by_table(model: nn.Module) -> tuple[Ranker, nn.Parameter]:
    """Return what gives the user's vector, and the items': their embeddings."""
    return model, model.items.weight


def by_tower(model: nn.Module) -> tuple[Ranker, nn.Parameter]:
    """Return what gives the user's vector, and the items': what their own network makes of them, computed here once."""
    with torch.no_grad():
        vectors = tower(model.items.weight, model.candidate_hidden, model.candidate_output)
    lean = copy.copy(model)
    lean._modules = {**model._modules, "candidate_hidden": None, "candidate_output": None}
    return lean, nn.Parameter(vectors, requires_grad=False)


def topk_program(apart: Callable[[nn.Module], tuple[Ranker, nn.Parameter]]) -> ProgramSpec:
    """Return the program `topk` of a model that `apart` takes apart into its user's side and the items' vectors."""

    def of_top(count: int | None) -> BuildProgram:
        def build(model: nn.Module, _selection: Selection | None = None) -> nn.Module:
            ranker, vectors = apart(model)
            items = len(vectors) - 1
            if count is not None and count > items:
                raise ValueError(f"top: {count} are asked for, and the catalogue has {items} items; ask for no more")
            return TopK(ranker, vectors, count or min(DEFAULT_TOP, items))

        return build

    return ProgramSpec(
        name="topk",
        description="Find the best items of the whole catalogue for a history",
        runs_on="device",
        inputs=(ITEM_IDS,),
        outputs=("ids", "scores"),
        ranking="scores",
        ranked="ids",
        output_meanings={
            "ids": "the best items as rows of the item table, the best first; never 0, the padding, and none twice;"
            " clicked items are among them",
            "scores": "the score of each, in the same order; only the order counts",
        },
        build=of_top(None),
        of_top=of_top,
        cases=histories_only,
    )
