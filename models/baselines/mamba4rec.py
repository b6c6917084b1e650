"""Mamba4Rec as CoCorrRec compares with it: blocks of a selective state-space model, the scan written out step by step.

Symbols of the Mamba paper: inner width I = 2 D, state S, input u, gate z, step size dt, and A, B, C, D. Per token
    h_t = exp(dt_t A) h_(t-1) + dt_t u_t B_t,    y_t = C_t h_t + D u_t      A: I x S; B_t, C_t: S; dt_t, u_t: I
"""

# mypy: allow-subclassing-any

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.inputs import RERANK
from models.layers import (
    ItemEmbedding,
    SmallEpsNorm,
    initialise,
    inner_product,
    last_position,
    redraw,
    states_at,
)
from models.spec import InputSpec, ModelSpec
from models.streaming import step_program
from models.topk import by_table, topk_program

NORM_EPS = 1e-12
DROPOUT = 0.2
INITIAL_STD = 0.02
EXPAND = 2
TAPS = 4  # of the convolution over the clicks
CHUNK = 64  # samples whose states are computed together: what a scan writes for more would not stay in the cache


class State(NamedTuple):
    """What a mixer remembers between clicks."""

    convolution: Tensor  # the inputs of the latest clicks but one, oldest first, [B, TAPS - 1, I]
    scan: Tensor  # h, [B, I, S]


class Scanned(NamedTuple):
    """What the scan takes in for each token."""

    decay: Tensor  # exp(dt A), [..., I, S]
    gain: Tensor  # dt u B, [..., I, S]
    output: Tensor  # C, [..., S]


class Mixer(nn.Module):
    """The Mamba block; parameters are named and laid out like those of the reference implementation, mamba_ssm.

    Its linear maps run as functions and not as modules, as in that implementation: hooks on modules do not see them.
    """

    def __init__(self, dimension: int, state: int) -> None:
        super().__init__()
        inner, self.state, self.rank = EXPAND * dimension, state, math.ceil(dimension / 16)
        self.in_proj = nn.Linear(dimension, 2 * inner, bias=False)
        self.conv1d = nn.Conv1d(inner, inner, TAPS, groups=inner)
        self.x_proj = nn.Linear(inner, self.rank + 2 * state, bias=False)
        self.dt_proj = nn.Linear(self.rank, inner)
        self.A_log = nn.Parameter(torch.arange(1.0, state + 1).log().repeat(inner, 1))
        self.D = nn.Parameter(torch.ones(inner))
        self.out_proj = nn.Linear(inner, dimension, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        into_scan, into_gate = self.in_proj.weight.chunk(2)
        before = functional.linear(x, into_scan)  # [B, N, I]
        earlier = torch.zeros_like(before[:, :1]).expand(-1, TAPS - 1, -1)
        u = self._convolve(torch.cat([earlier, before], 1), x.shape[1])
        scanned = self._scanned(u)
        state = torch.zeros_like(scanned.gain[:, 0])  # [B, I, S]
        states = []
        # Taken apart at once: the gradient of each single token's part would be as large as the whole.
        for decay, gain in zip(scanned.decay.unbind(1), scanned.gain.unbind(1), strict=True):
            state = decay * state + gain
            states.append(state)
        y = (torch.stack(states, 1) * scanned.output[:, :, None]).sum(-1)  # [B, N, I]
        return self._gated(y + u * self.D, functional.linear(x, into_gate))

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token [B, D] and the state before it to [B, D] and the state after it."""
        before, gate = functional.linear(x, self.in_proj.weight).chunk(2, -1)
        window = torch.cat([state.convolution, before[:, None]], 1)  # [B, TAPS, I]
        u = self._convolve(window, 1)[:, 0]
        scanned = self._scanned(u)
        scan = scanned.decay * state.scan + scanned.gain
        y = (scan * scanned.output[:, None]).sum(-1)
        return self._gated(y + u * self.D, gate), State(window[:, 1:], scan)

    def _convolve(self, x: Tensor, length: int) -> Tensor:
        """Return u [B, N, I], each channel of x [B, TAPS - 1 + N, I] convolved over the tokens and activated."""
        weight = self.conv1d.weight[:, 0]  # [I, TAPS], the oldest token first
        taps = [x.narrow(1, tap, length) * weight[:, tap] for tap in range(TAPS)]
        return _silu(sum(taps[1:], taps[0]) + self.conv1d.bias)

    def _scanned(self, u: Tensor) -> Scanned:
        """Return what the scan takes in for u [..., I]."""
        sizes = [self.rank, self.state, self.state]
        dt, into_state, output = functional.linear(u, self.x_proj.weight).split(sizes, -1)
        dt = _softplus(functional.linear(dt, self.dt_proj.weight, self.dt_proj.bias))  # [..., I]
        decay = torch.exp(dt[..., None] * -torch.exp(self.A_log))
        return Scanned(decay, (dt * u)[..., None] * into_state[..., None, :], output)

    def _gated(self, y: Tensor, gate: Tensor) -> Tensor:
        """Return the block's output [..., D] for y and z [..., I]."""
        return functional.linear(y * _silu(gate), self.out_proj.weight)


def _silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def _softplus(x: Tensor) -> Tensor:
    """Return log(1 + exp(x)) from operations that every target has, without overflow."""
    return torch.relu(x) + torch.log(1 + torch.exp(-torch.abs(x)))


class Block(nn.Module):
    """The mixer and a feed-forward network D -> 4D -> D with GELU, each with a residual around and a norm behind."""

    def __init__(self, dimension: int, state: int) -> None:
        super().__init__()
        self.mixer = Mixer(dimension, state)
        self.mixer_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.inner = nn.Linear(dimension, 4 * dimension)
        self.outer = nn.Linear(4 * dimension, dimension)
        self.feed_forward_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, N, D] to [B, N, D]."""
        return self._feed_forward(self.mixer(x), x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Map one token [B, D] and the state before it to [B, D] and the state after it."""
        mixed, state = self.mixer.step(x, state)
        return self._feed_forward(mixed, x), state

    def _feed_forward(self, mixed: Tensor, x: Tensor) -> Tensor:
        """Return the block's output [..., D] for the mixer's output and the block's input, both [..., D]."""
        x = self.mixer_norm(self.dropout(mixed) + x)
        inner = self.dropout(functional.gelu(self.inner(x)))
        return self.feed_forward_norm(self.dropout(self.outer(inner)) + x)


class Mamba4Rec(nn.Module):
    """LayerNorm(E) -> blocks -> last valid position; a candidate's score is the product with its embedding."""

    def __init__(self, vocabulary: int, dimension: int, blocks: int, state: int) -> None:
        super().__init__()
        self.items = ItemEmbedding(vocabulary, dimension)
        self.dropout = nn.Dropout(DROPOUT)
        self.input_norm = SmallEpsNorm(dimension, NORM_EPS)
        self.blocks = nn.ModuleList([Block(dimension, state) for _ in range(blocks)])
        initialise(self, partial(nn.init.normal_, std=INITIAL_STD))

    def reset(self, std: float) -> None:
        """Draw the matrices of all linear maps from N(0, std); biases start at zero, A and the convolution stay."""
        redraw(self, std)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return inner_product(self.user(item_ids), self.items(candidate_ids))

    def user(self, item_ids: Tensor) -> Tensor:
        """Return the user's vector [B, D] after histories [B, N]."""
        x = self.embed(item_ids)
        if len(item_ids) <= CHUNK:
            return self._user(x, item_ids)
        # Those of about one length together: nothing from behind a last click is read, so it is cut off.
        lengths, order = (item_ids != 0).sum(1).clamp(min=1).sort()
        chunks = zip(x[order].split(CHUNK), item_ids[order].split(CHUNK), lengths.split(CHUNK), strict=True)
        users = [self._user(states[:, : clicks[-1]], ids[:, : clicks[-1]]) for states, ids, clicks in chunks]
        return torch.cat(users)[order.argsort()]

    def _user(self, x: Tensor, item_ids: Tensor) -> Tensor:
        """Return the last block's output [B, D] at the last clicks of histories [B, N], embedded as x [B, N, D]."""
        for block in self.blocks:
            x = block(x)
        return states_at(x, last_position(item_ids, x.dtype))

    def embed(self, item_ids: Tensor) -> Tensor:
        """Return what the first block takes in, [..., D], of ids [...]."""
        return self.input_norm(self.dropout(self.items(item_ids)))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return the last block's output [B, N, D] at every position of histories [B, N], as published."""
        x = self.embed(item_ids)
        for block in self.blocks:
            x = block(x)
        return x


class Step(nn.Module):
    """The program `step`: one click in, scores out, what the convolutions and scans remember in and out."""

    def __init__(self, model: Mamba4Rec) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, item_id: Tensor, candidate_ids: Tensor, convolution: Tensor, scan: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Map a click [1, 1], candidates [1, C] and states to scores [1, C] and the next states.

        The states of all L blocks are [1, L, TAPS - 1, I] for the convolutions and [1, L, I, S] for the scans.
        """
        x = self.model.embed(item_id[:, 0])
        following = []
        for index, block in enumerate(self.model.blocks):
            x, state = block.step(x, State(convolution[:, index], scan[:, index]))
            following.append(state)
        scores = inner_product(x, self.model.items(candidate_ids))
        convolutions, scans = zip(*following, strict=True)
        return scores, torch.stack(convolutions, 1), torch.stack(scans, 1)

    def start(self, sessions: int) -> tuple[Tensor, ...]:
        """Return the states before the first click."""
        blocks, mixer = len(self.model.blocks), self.model.blocks[0].mixer
        inner = mixer.D.shape[0]
        shapes = (blocks, TAPS - 1, inner), (blocks, inner, mixer.state)
        return tuple(torch.zeros(sessions, *shape) for shape in shapes)


def _sizes(architecture: Mapping[str, int]) -> tuple[int, int, int]:
    """Return L, I and S."""
    return architecture["blocks"], EXPAND * architecture["dimension"], architecture["state"]


def _convolution_shape(architecture: Mapping[str, int], _history: int, _candidates: int) -> tuple[int, ...]:
    blocks, inner, _ = _sizes(architecture)
    return (1, blocks, TAPS - 1, inner)


def _scan_shape(architecture: Mapping[str, int], _history: int, _candidates: int) -> tuple[int, ...]:
    return (1, *_sizes(architecture))


STATE = (
    InputSpec(
        "convolution", "float32", _convolution_shape, meaning="what the convolution of each block still looks at"
    ),
    InputSpec("scan", "float32", _scan_shape, meaning="the state of each block's scan"),
)


def build(architecture: Mapping[str, int]) -> Mamba4Rec:
    """Return an untrained Mamba4Rec; raises TypeError for an architecture that is none."""
    return Mamba4Rec(**architecture)


SPEC = ModelSpec(
    name="mamba4rec",
    description="Mamba4Rec: blocks of a selective state-space model over the clicks",
    build=build,
    architecture={"dimension": 64, "blocks": 2, "state": 32},
    programs={"rerank": RERANK, "topk": topk_program(by_table), "step": step_program(Step, STATE)},
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
