"""GRU4Rec as CoCorrRec compares with it: one GRU over the clicks, and a small network on each side of the product."""

# mypy: allow-subclassing-any

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.inputs import RERANK
from models.layers import GRU, ItemEmbedding, initialise, inner_product, last_position, redraw, states_at, tower
from models.spec import InputSpec, ModelSpec
from models.streaming import Step, step_program
from models.topk import by_tower, topk_program


class GRU4Rec(nn.Module):
    """tanh(Linear(E)) -> GRU -> its state at the last valid position -> Linear, tanh, Linear; candidates by T."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)
        self.input = nn.Linear(dimension, dimension)
        self.gru = GRU(dimension, dimension)
        self.user_hidden = nn.Linear(dimension, dimension)
        self.user_output = nn.Linear(dimension, dimension)
        self.candidate_hidden = nn.Linear(dimension, dimension)
        self.candidate_output = nn.Linear(dimension, dimension)
        initialise(self, nn.init.xavier_uniform_)

    def reset(self, std: float) -> None:
        """Draw all matrices from N(0, std); biases start at zero."""
        redraw(self, std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return self.score(self._last_state(item_ids), candidate_ids)

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        return self._user(self._last_state(item_ids))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the GRU's states [B, N, D] after each click of histories [B, N]."""
        return self.gru(torch.tanh(self.input(self.items(item_ids))))

    def step(self, item_id: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the GRU's state [B, D] after one more click [B, 1]: for its scores, and for the next click."""
        state = self.gru.step(torch.tanh(self.input(self.items(item_id[:, 0]))), state)
        return state, state

    def score(self, state: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] for the GRU's state [B, D]."""
        candidates = tower(self.items(candidate_ids), self.candidate_hidden, self.candidate_output)
        return inner_product(self._user(state), candidates)

    def _last_state(self, item_ids: Tensor) -> Tensor:
        """Return the GRU's state [B, D] after histories [B, N]."""
        states = self.encode(item_ids)
        return states_at(states, last_position(item_ids, states.dtype))

    def _user(self, state: Tensor) -> Tensor:
        """Return the user's vector [B, D] for the GRU's state [B, D]."""
        return tower(state, self.user_hidden, self.user_output)


def _step(model: GRU4Rec) -> Step:
    return Step(model, model.gru.hidden_size)


STATE = (
    InputSpec(
        "hidden",
        "float32",
        lambda architecture, _history, _candidates: (1, int(architecture["dimension"])),
        meaning="the GRU's state",
    ),
)


def build(architecture: Mapping[str, int]) -> GRU4Rec:
    """Return an untrained GRU4Rec; raises TypeError for an architecture that is none."""
    return GRU4Rec(**architecture)


SPEC = ModelSpec(
    name="gru4rec",
    description="GRU4Rec: a recurrent network over the clicks",
    build=build,
    architecture={"dimension": 64},
    programs={"rerank": RERANK, "topk": topk_program(by_tower), "step": step_program(_step, STATE)},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
