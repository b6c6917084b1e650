"""GRU4Rec as RecBole has it: layers of GRU cells without biases over the clicks, and a linear map back to D.

Code name -> RecBole's: layers gru_layers, output dense.
"""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.inputs import RERANK
from models.layers import GRU, ItemEmbedding, initialise, inner_product, last_position, redraw, states_at
from models.spec import InputSpec, ModelSpec
from models.streaming import Step, step_program
from models.topk import by_table, topk_program

DROPOUT = 0.3


class GRU4Rec(nn.Module):
    """E -> L layers of GRU, D -> H -> ... -> H -> Linear to D at the last valid position; score by the product with E.

    `hidden` is H, `layers` L.
    """

    def __init__(self, vocabulary: int, dimension: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)
        self.dropout = nn.Dropout(DROPOUT)
        widths = [dimension] + [hidden] * (layers - 1)
        self.layers = nn.ModuleList([GRU(width, hidden, bias=False) for width in widths])
        self.output = nn.Linear(hidden, dimension)
        initialise(self, nn.init.xavier_uniform_)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return self.score(self._last_state(item_ids), candidate_ids)

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        user: Tensor = self.output(self._last_state(item_ids))
        return user

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, N, D] after each click of histories [B, N], as RecBole computes it."""
        return self.output(self._states(item_ids))

    def step(self, item_id: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Return the last layer's state [B, H] after one more click [B, 1], and those of all layers [B, L, H]."""
        x = self.items(item_id[:, 0])
        following = []
        for index, layer in enumerate(self.layers):
            x = layer.step(x, states[:, index])
            following.append(x)
        return x, torch.stack(following, 1)

    def score(self, state: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] for the last layer's state [B, H]."""
        return inner_product(self.output(state), self.items(candidate_ids))

    def _last_state(self, item_ids: Tensor) -> Tensor:
        """Return the last layer's state [B, H] after histories [B, N]."""
        states = self._states(item_ids)
        return states_at(states, last_position(item_ids, states.dtype))

    def _states(self, item_ids: Tensor) -> Tensor:
        """Return the last layer's states [B, N, H] after each click of histories [B, N]."""
        x = self.dropout(self.items(item_ids))
        for layer in self.layers:
            x = layer(x)
        return x


def _step(model: GRU4Rec) -> Step:
    return Step(model, len(model.layers), model.output.in_features)


def _state_shape(architecture: Mapping[str, int], _history: int, _candidates: int) -> tuple[int, ...]:
    return (1, int(architecture["layers"]), int(architecture["hidden"]))


STATE = (InputSpec("hidden", "float32", _state_shape, meaning="the states of all layers"),)


def build(architecture: Mapping[str, int]) -> GRU4Rec:
    """Return an untrained GRU4Rec; raises TypeError for an architecture that is none."""
    return GRU4Rec(**architecture)


SPEC = ModelSpec(
    name="recbole-gru4rec",
    description="GRU4Rec as RecBole has it: recurrent layers over the clicks",
    build=build,
    architecture={"dimension": 64, "hidden": 128, "layers": 1},
    programs={"rerank": RERANK, "topk": topk_program(by_table), "step": step_program(_step, STATE)},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
