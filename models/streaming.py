"""Programs that take in a history part by part: `step` one click a call, `chunk` several; with their golden cases."""

# mypy: allow-subclassing-any

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from models.inputs import CANDIDATE_IDS, SCORES, UNKNOWN_ITEM
from models.spec import Arrays, InputSpec, ProgramSpec

ITEM_ID = InputSpec(
    "item_id",
    "int32",
    lambda _architecture, _history, _candidates: (1, 1),
    meaning=f"the newest click as a row of the item table, one in each call; {UNKNOWN_ITEM}",
    holds_items=True,
)


class Recurrent(Protocol):
    """A program's module: `start` gives the state before the first click, calls give scores and the next state."""

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return zeros of each state's shape, with as many sessions on the first axis."""
        ...

    def __call__(self, item_id: Tensor, candidate_ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Map clicks [B, 1], candidates [B, C] and a state to scores [B, C] and the parts of the next state."""
        ...


class Chunked(Protocol):
    """The module of `chunk`: `start` as of Recurrent, and calls give the user's vector and the next state."""

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return zeros of each state's shape, with as many sessions on the first axis."""
        ...

    def __call__(self, item_ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """Map clicks [B, n], padded on the right, and a state to u [B, D] and the next state; no click, the same."""
        ...


class OneState(Protocol):
    """A model with one state: `step` gives what is scored [B, H] and the next state, for one more click [B, 1]."""

    def step(self, item_id: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Take in clicks [B, 1]."""
        ...

    def score(self, user: Tensor, candidate_ids: Tensor) -> Tensor:
        """Map what `step` gives [B, H] and candidate ids [B, C] to scores [B, C]."""
        ...


class Step(nn.Module):
    """The module of `step` for a model with one state, which is zeros of `shape` before the first click."""

    def __init__(self, model: OneState, *shape: int) -> None:
        super().__init__()
        self.model, self.shape = model, shape

    def forward(self, item_id: Tensor, candidate_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a click [B, 1], candidates [B, C] and a state [B, *shape] to scores [B, C] and the next state."""
        user, state = self.model.step(item_id, state)
        return self.model.score(user, candidate_ids), state

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return the state before the first click."""
        return (torch.zeros(sessions, *self.shape),)


def step_program(wrap: Callable[[nn.Module], Recurrent], state: Sequence[InputSpec]) -> ProgramSpec:
    """Return the program `step` of a model that `wrap` makes recurrent; its next_x is the x of the next click."""
    following = {f"next_{spec.name}": spec.name for spec in state}
    return ProgramSpec(
        name="step",
        description="Take in one click and score the candidates; the state comes in and goes out",
        runs_on="device",
        inputs=(ITEM_ID, CANDIDATE_IDS, *state),
        outputs=("scores", *following),
        state=following,
        ranking="scores",
        output_meanings={
            "scores": SCORES,
            **{f"next_{spec.name}": f"{spec.meaning}, after this click" for spec in state if spec.meaning},
        },
        build=lambda model, _selection=None: wrap(model),
        cases=lambda model, golden, _selection=None: step_cases(wrap(model), golden, tuple(following.values())),
    )


def step_cases(module: Recurrent, golden: Arrays, state: Sequence[str]) -> Arrays:
    """Return for each golden history its last click, its candidates and the state that its earlier clicks leave.

    An empty history is one click on padding, as it is for the programs that take in whole histories.
    """
    item_ids, candidate_ids = (torch.from_numpy(golden[name]) for name in ("item_ids", "candidate_ids"))
    last = (item_ids != 0).sum(1).clamp(min=1) - 1
    values = module.start(len(item_ids))
    with torch.no_grad():
        for step in range(int(last.max())):
            # No scores are asked for: one candidate will do.
            _, *following = module(item_ids[:, step : step + 1], candidate_ids[:, :1], *values)
            goes_on = step < last
            values = tuple(
                torch.where(goes_on.reshape(-1, *[1] * (old.dim() - 1)), new, old)
                for old, new in zip(values, following, strict=True)
            )
    cases = {"item_id": item_ids.gather(1, last[:, None]), "candidate_ids": candidate_ids}
    cases |= dict(zip(state, values, strict=True))
    return {name: np.ascontiguousarray(value[:, None].numpy()) for name, value in cases.items()}


def chunk_cases(module: Chunked, golden: Arrays, most: int, state: Sequence[str]) -> Arrays:
    """Return for each golden history its last clicks, 1, 2, ... `most` in turn, and the state that those before leave.

    Every second history goes on from the last clicks, up to `most`, of the golden one before it. So calls begin at many
    places of a mini-batch, and go over the border between two.
    """
    histories = [torch.from_numpy(ids[ids != 0]) for ids in golden["item_ids"]]
    longer = [torch.cat([histories[at - 1][-most:], own]) if at % 2 else own for at, own in enumerate(histories)]
    counts = [min(1 + at // 2 % most, len(own)) for at, own in enumerate(longer)]
    before = _padded([own[: len(own) - count] for own, count in zip(longer, counts, strict=True)], most)
    values = module.start(len(longer))
    with torch.no_grad():
        for clicks in before.split(most, 1):
            _, *following = module(clicks, *values)
            values = tuple(following)
    last = _padded([own[len(own) - count :] for own, count in zip(longer, counts, strict=True)], most)
    cases = {"item_ids": last, **dict(zip(state, values, strict=True))}
    return {name: np.ascontiguousarray(value[:, None].numpy()) for name, value in cases.items()}


def _padded(histories: Sequence[Tensor], multiple: int) -> Tensor:
    """Return histories as int32 [len(histories), N], padded with 0 on the right to a multiple of at least one."""
    calls = max(1, -(-max(map(len, histories)) // multiple))
    padded = torch.zeros(len(histories), calls * multiple, dtype=torch.int32)
    for row, own in zip(padded, histories, strict=True):
        row[: len(own)] = own
    return padded
