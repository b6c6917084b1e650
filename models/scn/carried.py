"""Programs of SCN for a history that comes part by part: `step`, `chunk` and `rerank_user`; they share one state."""

# mypy: allow-subclassing-any

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from models.inputs import CANDIDATE_IDS, SCORES, UNKNOWN_ITEM
from models.layers import inner_product, tower
from models.scn.inner import State
from models.scn.network import SCN
from models.spec import Arrays, Cases, InputSpec, ProgramSpec, Selection
from models.streaming import chunk_cases, step_program

MOST_MINI_BATCHES = 40
"""Of a program that has a part for each: torch.export and the passes alone take about 0.5 s for one more."""


class Step(nn.Module):
    """The program `step`: one click in, scores out, the state in and out."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.model = model.without("gcn")

    def forward(self, item_id: Tensor, candidate_ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Map a click [1, 1], candidates [1, C] and the parts of a State to scores [1, C] and the next state."""
        user, following = self.model.step(item_id, State(*state))
        return self.model.score(user, self.model.items(candidate_ids)), *following

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return the state before the first click."""
        return self.model.start(sessions)


class Chunk(nn.Module):
    """The program `chunk`: up to b clicks in, the user's vector out, the state in and out; it scores nothing."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.model = model.without("gcn").without("candidate_hidden").without("candidate_output")

    def forward(self, item_ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Map clicks [1, b], padded on the right, and the parts of a State to u [1, D] and the next state."""
        user, following = self.model.chunk(item_ids, State(*state))
        return user, *following

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return the state before the first click."""
        return self.model.start(sessions)


class UserRerank(nn.Module):
    """The program `rerank_user`: what of SCN scores candidates for a user's vector, and the catalogue."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.items, self.hidden, self.output = model.items, model.candidate_hidden, model.candidate_output

    def forward(self, user: Tensor, candidate_ids: Tensor) -> Tensor:
        """Map u [1, D] and candidates [1, C] to scores [1, C]."""
        return inner_product(user, tower(self.items(candidate_ids), self.hidden, self.output))


def unrolled(cases: Cases) -> Cases:
    """Return the cases of a program that has a part for each mini-batch of a history.

    They raise ValueError for more than MOST_MINI_BATCHES.
    """

    def checked(model: nn.Module, golden: Arrays, selection: Selection | None = None, /) -> Arrays:
        length, most = golden["item_ids"].shape[1], MOST_MINI_BATCHES * model.mini_batch
        if length > most:
            raise ValueError(
                f"a history of {length} clicks is {-(-length // model.mini_batch)} mini-batches, each a part of this"
                f" program, which has {MOST_MINI_BATCHES} at most; ask for a history_length of {most} or fewer, or"
                f" export the programs chunk, which takes in {model.mini_batch} clicks a call for as long as a history"
                " goes on, and rerank_user, which scores for what comes out"
            )
        return cases(model, golden, selection)

    return checked


def _chunk_cases(model: nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    return chunk_cases(Chunk(model), golden, model.mini_batch, [spec.name for spec in STATE])


def _user_cases(model: nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return the vectors of the golden histories and their candidates."""
    with torch.no_grad():
        user = model.user(torch.from_numpy(golden["item_ids"])).numpy()
    return {"user": user[:, None], "candidate_ids": golden["candidate_ids"][:, None]}


def _per_head(name: str, rows: int | None, meaning: str) -> InputSpec:
    """Return an input [1, h, rows, d]; rows of None stand for d of them."""

    def shape(architecture: Mapping[str, Any], _history: int, _candidates: int) -> tuple[int, ...]:
        heads, width = int(architecture["heads"]), int(architecture["dimension"]) // int(architecture["heads"])
        return (1, heads, width if rows is None else rows, width)

    return InputSpec(name, "float32", shape, meaning)


STATE = (
    _per_head("weight_change", None, "change of the inner weights since the start, per head"),
    _per_head("bias_change", 1, "change of the inner bias since the start, per head"),
    _per_head("weight_gradient", None, "sum of the inner weights' gradients over the mini-batch so far, per head"),
    _per_head("bias_gradient", 1, "sum of the inner bias's gradients over the mini-batch so far, per head"),
    InputSpec(
        "position",
        "float32",
        lambda _architecture, _history, _candidates: (1, 1),
        meaning="place of the next click in its mini-batch, from 0",
    ),
)
CHUNK_IDS = InputSpec(
    "item_ids",
    "int32",
    lambda architecture, _history, _candidates: (1, int(architecture["mini_batch"])),
    meaning="the next clicks as rows of the item table, oldest first, as many as there are; 0 on the right fills up the"
    f" rest; {UNKNOWN_ITEM}, at its place in the history",
    holds_items=True,
)
USER = InputSpec(
    "user",
    "float32",
    lambda architecture, _history, _candidates: (1, int(architecture["dimension"])),
    meaning="the user's vector after the clicks so far, which `chunk` gives",
)
NEXT_STATE = {f"next_{spec.name}": spec for spec in STATE}
STEP = step_program(Step, STATE)
CHUNK = ProgramSpec(
    name="chunk",
    description="Take in up to a mini-batch of clicks; the state comes in and goes out, with the user's vector",
    runs_on="device",
    inputs=(CHUNK_IDS, *STATE),
    outputs=("user", *NEXT_STATE),
    state={name: spec.name for name, spec in NEXT_STATE.items()},
    ranking=None,
    output_meanings={
        "user": "the user's vector after these clicks, for `rerank_user`",
        **{name: f"{spec.meaning}, after these clicks" for name, spec in NEXT_STATE.items()},
    },
    build=lambda model, _selection=None: Chunk(model),
    cases=_chunk_cases,
)
RERANK_USER = ProgramSpec(
    name="rerank_user",
    description="Score the candidates for a user's vector",
    runs_on="device",
    inputs=(USER, CANDIDATE_IDS),
    outputs=("scores",),
    ranking="scores",
    output_meanings={"scores": SCORES},
    build=lambda model, _selection=None: UserRerank(model),
    cases=_user_cases,
)
