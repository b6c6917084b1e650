"""SCN, the self-correction network of CoCorrRec: a sequence model whose state is trained on each history as it is read.

Code name -> paper symbol: hidden H, query Q, key K, value V, weight W0, bias c0 (the state), inner_lr lr_j, token_scale
tau_i, step_size eta = tau_i * lr_j, reconstruction Z, gradient G, attention A, token_bias c, mixed Z~, user u,
candidate_hidden W_1 and c_1, candidate_output W_2 and c_2.
Sizes: batch B, history N, candidates C, vocabulary V, dimension D, heads h, head width d = D / h, mini-batch b.
"""

# mypy: allow-subclassing-any

import copy
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.inputs import CACHED_EMBEDDINGS, ITEM_IDS, RERANK, cached_embeddings, histories_only
from models.layers import (
    EPS,
    ItemEmbedding,
    LayerNorm,
    RMSNorm,
    cut,
    initialise,
    last_of,
    last_position,
    normalise,
    tower_product,
)
from models.spec import ModelSpec, ProgramSpec

ROPE_BASE = 10_000.0
INITIAL_STD = 0.02


class Correction(NamedTuple):
    """What the cloud sends for one mini-batch of b tokens, and the learned scalars P and Q that weigh it (eq. 15)."""

    attention: Tensor  # K_A before it is moved to the statistics of A, [B, h, b, b]
    bias: Tensor  # K_c before it is moved to the statistics of c, [B, h, b, d]
    attention_weight: Tensor  # P
    bias_weight: Tensor  # Q


def fuse(own: Tensor, correction: Tensor, weight: Tensor) -> Tensor:
    """Move `correction` to the statistics of `own` along the last axis (eq. 14) and add it with `weight` (eq. 15)."""
    centred = correction - correction.mean(-1, keepdim=True)
    scale = _deviation(own) / (_deviation(correction) + EPS)
    return own + weight * (centred * scale + own.mean(-1, keepdim=True))


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [B, h, m, n] by [B, h, n, p]; as one bmm, because matmul would copy both sides to expand them."""
    batch, heads, rows, _ = left.shape
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).reshape(batch, heads, rows, right.shape[3])


def _deviation(x: Tensor) -> Tensor:
    """Return the unbiased standard deviation along the last axis, from simple operations that every target has."""
    centred = x - x.mean(-1, keepdim=True)
    # A padding row has no variance: without the tiny term its gradient would be 0 * inf in training.
    return torch.sqrt((centred * centred).sum(-1, keepdim=True) / (x.shape[-1] - 1) + 1e-24)


class SCN(nn.Module):
    """Score candidates for a history of item ids; id 0 is padding on the right, an unknown id a zero embedding."""

    def __init__(self, vocabulary: int, dimension: int, heads: int, mini_batch: int) -> None:
        super().__init__()
        if dimension % (2 * heads):
            raise ValueError(f"dimension {dimension} must be a multiple of 2 * heads = {2 * heads}")
        width = dimension // heads
        self.heads, self.width, self.mini_batch = heads, width, mini_batch
        self.items = ItemEmbedding(vocabulary, dimension)
        self.input_norm = RMSNorm(dimension)
        self.query = nn.Linear(dimension, dimension, bias=False)
        self.key = nn.Linear(dimension, dimension, bias=False)
        self.value = nn.Linear(dimension, dimension, bias=False)
        self.inner_lr = nn.Linear(dimension, heads)
        self.token_scale_offset = nn.Parameter(torch.zeros(mini_batch))
        self.initial_weight = nn.Parameter(torch.empty(heads, width, width))
        self.initial_bias = nn.Parameter(torch.zeros(heads, 1, width))
        self.inner_norm_weight = nn.Parameter(torch.ones(heads, 1, width))
        self.inner_norm_bias = nn.Parameter(torch.zeros(heads, 1, width))
        self.post_norm = LayerNorm(dimension)
        self.output = nn.Linear(dimension, dimension, bias=False)
        self.output_norm = RMSNorm(dimension)
        self.candidate_hidden = nn.Linear(dimension, dimension)
        self.candidate_output = nn.Linear(dimension, dimension)
        cosine, sine = rope_tables(mini_batch, width)
        self.register_buffer("rope_cosine", cosine, persistent=False)
        self.register_buffer("rope_sine", sine, persistent=False)
        self.register_buffer("rope_neighbour", torch.arange(width) ^ 1, persistent=False)
        self.register_buffer("token_scale", 1.0 / torch.arange(1, mini_batch + 1), persistent=False)
        self.register_buffer("causal", torch.ones(mini_batch, mini_batch).tril(), persistent=False)
        self.reset()

    def reset(self, std: float = INITIAL_STD) -> None:
        """Draw all matrices from N(0, std); biases and offsets start at zero and norms at one."""
        self.items.reset(std)
        nn.init.normal_(self.initial_weight, std=std)
        initialise(self, partial(nn.init.normal_, std=std))

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        hidden = self.hidden_state(item_ids)
        user = self.user_state(hidden, last_position(item_ids, hidden.dtype))
        return self.score(user, self.items(candidate_ids))

    def hidden_state(self, item_ids: Tensor) -> Tensor:
        """Return H [B, N, D] of histories [B, N] (eq. 8); this is what a device uploads."""
        return self.input_norm(self.items(item_ids))

    def user_state(self, hidden: Tensor, last: Tensor, correction: Correction | None = None) -> Tensor:
        """Return u [B, D] from H [B, N, D] and the mask [B, N] of last valid positions; a `correction` wants N = b."""
        # Everything after the mixing is done per token, so only the token that is asked for goes on.
        chosen = last[:, None, :, None]  # [B, 1, N, 1]
        mixed = (self.mix(hidden, correction) * chosen).sum(2)  # [B, h, N, d] -> [B, h, d]
        mixed = mixed.reshape(hidden.shape[0], -1)  # heads side by side: [B, D]
        return self.output_norm(self.output(self.post_norm(mixed)))

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return Y [B, N, D] of histories [B, N] at every position, as the published code computes it."""
        mixed = self.mix(self.hidden_state(item_ids)).transpose(1, 2).flatten(2)  # [B, h, N, d] -> [B, N, D]
        return self.output_norm(self.output(self.post_norm(mixed)))

    def score(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Return u . T(e) [B, C] for users [B, D] and embeddings e [B, C, D]."""
        return tower_product(user, candidates, self.candidate_hidden, self.candidate_output)

    def mix(self, hidden: Tensor, correction: Correction | None = None) -> Tensor:
        """Return the outputs [B, h, N, d] of all tokens of H [B, N, D], mini-batch by mini-batch (eqs. 9-13)."""
        length = hidden.shape[1]
        if correction is not None and length != self.mini_batch:
            raise ValueError(f"a correction is for {self.mini_batch} tokens, this history has {length}")
        query, key, value = (self._split(linear(hidden)) for linear in (self.query, self.key, self.value))
        # Not as a call of the module: the published code has bare parameters here, which its counter did not see.
        inner_lr = torch.sigmoid(functional.linear(hidden, self.inner_lr.weight, self.inner_lr.bias)) / self.width
        inner_lr = inner_lr.transpose(1, 2)[:, :, None]  # [B, N, h] -> [B, h, 1, N]
        weight = self.initial_weight.expand(hidden.shape[0], -1, -1, -1)  # [B, h, d, d]
        bias = self.initial_bias.expand(hidden.shape[0], -1, -1, -1)  # [B, h, 1, d]
        outputs = []
        for start in range(0, length, self.mini_batch):
            stop = min(start + self.mini_batch, length)
            q, k, v = (cut(x, 2, start, stop) for x in (query, key, value))
            q, k = self._rotate(q), self._rotate(k)
            scale = cut(torch.relu(self.token_scale + self.token_scale_offset), 0, 0, stop - start)
            step_size = scale[:, None] * cut(inner_lr, 3, start, stop)  # [B, h, b, b]
            gradient = self._gradient(product(k, weight) + bias, v - k)
            causal = cut(cut(self.causal, 0, 0, stop - start), 1, 0, stop - start)
            attention = product(q, k.transpose(2, 3)) * causal
            token_bias = bias - product(step_size * causal, gradient)
            if correction is not None:
                attention = fuse(attention, correction.attention, correction.attention_weight)
                token_bias = fuse(token_bias, correction.bias, correction.bias_weight)
            mixed = product(q, weight) - product(step_size * attention, gradient) + token_bias
            outputs.append(q + normalise(mixed)[0] * self.inner_norm_weight + self.inner_norm_bias)
            if stop < length:
                last = step_size[:, :, -1:]  # [B, h, 1, b]
                weight = weight - product((last.transpose(2, 3) * k).transpose(2, 3), gradient)
                bias = bias - product(last, gradient)
        return torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]

    def _split(self, x: Tensor) -> Tensor:
        """Cut [B, N, D] into heads [B, h, N, d]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.width).transpose(1, 2)

    def _rotate(self, x: Tensor) -> Tensor:
        """Apply RoPE (eq. 10) to one mini-batch [B, h, b, d] whose first token is at angle 0."""
        cosine, sine = cut(self.rope_cosine, 0, 0, x.shape[2]), cut(self.rope_sine, 0, 0, x.shape[2])
        return x * cosine + x.index_select(-1, self.rope_neighbour) * sine

    def _gradient(self, z: Tensor, target: Tensor) -> Tensor:
        """Return G [B, h, b, d], the gradient of 1/2 ||LN(Z) - target||^2 for Z [B, h, b, d], in closed form."""
        normal, inverse = normalise(z)
        g = (normal * self.inner_norm_weight + self.inner_norm_bias - target) * self.inner_norm_weight
        return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * inverse


def rope_tables(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines, both [length, width], for pairs of (even, odd) neighbours (eq. 10)."""
    frequency = ROPE_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = (torch.arange(length, dtype=torch.float64)[:, None] * frequency).repeat_interleave(2, -1)
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(width // 2)
    return angle.cos().float(), (angle.sin() * sign).float()


class HiddenState(nn.Module):
    """The program `hidden_state`; it holds only what H needs, so that no other weight gets into its artifact."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.items, self.input_norm = model.items, model.input_norm

    def forward(self, item_ids: Tensor) -> Tensor:
        """Map histories [1, N] to H [1, N, D]."""
        return self.input_norm(self.items(item_ids))


class CachedRerank(nn.Module):
    """The program `rerank_cached`: SCN on embeddings that the device keeps for a session, without the catalogue."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.model = copy.copy(model)
        self.model._modules = dict(model._modules)  # its own, so that the copy alone loses its table
        del self.model.items

    def forward(self, history_embeddings: Tensor, history_length: Tensor, candidate_embeddings: Tensor) -> Tensor:
        """Map embeddings [1, N, D] of a history, its count of clicks [1, 1] and embeddings [1, C, D] to [1, C]."""
        hidden = self.model.input_norm(history_embeddings)
        last = last_of(history_length.to(hidden.dtype), hidden.shape[1])
        return self.model.score(self.model.user_state(hidden, last), candidate_embeddings)


def build(architecture: Mapping[str, int]) -> SCN:
    """Return an untrained SCN; raises TypeError or ValueError for an architecture that is none."""
    return SCN(**architecture)


SPEC = ModelSpec(
    name="scn",
    description="Self-correction network of CoCorrRec: test-time training on the device, one mini-batch at a time",
    build=build,
    architecture={"dimension": 64, "heads": 4, "mini_batch": 10},
    programs={
        "rerank": RERANK,
        "rerank_cached": ProgramSpec(
            name="rerank_cached",
            description="Score candidates from embeddings that the device keeps, so that no catalogue ships",
            runs_on="device",
            inputs=CACHED_EMBEDDINGS,
            outputs=("scores",),
            ranking="scores",
            build=lambda model, _selection=None: CachedRerank(model),
            cases=cached_embeddings,
        ),
        "hidden_state": ProgramSpec(
            name="hidden_state",
            description="Compute H, which the device uploads for a correction by the cloud",
            runs_on="device",
            inputs=(ITEM_IDS,),
            outputs=("hidden_state",),
            sends=("hidden_state",),
            ranking=None,
            build=lambda model, _selection=None: HiddenState(model),
            cases=histories_only,
        ),
    },
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
