"""SCN, the self-correction network of CoCorrRec: a sequence model whose state is trained on each history as it is read.

Code name -> paper symbol: hidden H, query Q, key K, value V, weight W0, bias c0 (the state), inner_lr lr_j, token_scale
tau_i, step_size eta = tau_i * lr_j, reconstruction Z, gradient G, attention A, token_bias c, mixed Z~, user u,
candidate_hidden W_1 and c_1, candidate_output W_2 and c_2.
Sizes: batch B, history N, candidates C, vocabulary V, dimension D, heads h, head width d = D / h, mini-batch b.
"""

# mypy: allow-subclassing-any

import copy
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import (
    cut,
    initialise,
    inner_product,
    last_position,
    states_at,
    tower,
    until,
)
from models.scn.gcn import GCN, Correction, whole_mini_batches
from models.scn.inner import State, gradient_of, product, trained
from models.scn.layer import Layer

INITIAL_STD = 0.02
WITHOUT_GCN = "this checkpoint has no GCN, which computes corrections; train one with cocorr-train scn --gcn"


class SCN(Layer):
    """Score candidates for a history of item ids; id 0 is padding on the right, an unknown id a zero embedding."""

    def __init__(self, vocabulary: int, dimension: int, heads: int, mini_batch: int, gcn: int = 0) -> None:
        super().__init__(vocabulary, dimension, heads, mini_batch)
        if gcn not in (0, 1) or (gcn and mini_batch < 2):
            raise ValueError("gcn, which is 1 or left out, corrects mini-batches of at least 2")
        self.gcn: GCN | None = None
        self.reset()
        if gcn:
            self.gcn = GCN(dimension, heads, mini_batch)

    def reset(self, std: float = INITIAL_STD) -> None:
        """Draw all matrices from N(0, std); biases and offsets start at zero and norms at one."""
        self.items.reset(std)
        nn.init.normal_(self.initial_weight, std=std)
        initialise(self.without("gcn"), partial(nn.init.normal_, std=std))

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the scores [B, C] of candidate ids [B, C] after histories [B, N]."""
        return self.score(self.user(item_ids), self.items(candidate_ids))

    def user(self, item_ids: Tensor) -> Tensor:
        """Return u [B, D] after histories [B, N]."""
        hidden = self.hidden_state(item_ids)
        return self.user_state(hidden, last_position(item_ids, hidden.dtype))

    def corrected(self, item_ids: Tensor, candidate_ids: Tensor, correction: Correction | None = None) -> Tensor:
        """Return the scores [B, C] after histories [B, k b] with the cloud's correction, by default the own GCN's.

        Raises ValueError for a history with a rest that fills no mini-batch, and where there is no GCN.
        """
        hidden = self.hidden_state(item_ids)
        if correction is None:
            if self.gcn is None:
                raise ValueError(WITHOUT_GCN)
            correction = self.gcn(hidden)
        user = self.user_state(hidden, last_position(item_ids, hidden.dtype), correction)
        return self.score(user, self.items(candidate_ids))

    def user_state(self, hidden: Tensor, last: Tensor, correction: Correction | None = None) -> Tensor:
        """Return u [B, D] from H [B, N, D] and the mask [B, N] of last valid positions; corrected only for N = k b."""
        if correction is not None:
            return self._corrected_user(hidden, last, correction)
        if hidden.shape[1] > self.mini_batch:
            return self._user_of_long(hidden, last)
        return states_at(self._read(self.mix(hidden)), last)

    def _user_of_long(self, hidden: Tensor, last: Tensor) -> Tensor:
        """Return the same for M > 1 mini-batches; of earlier ones only what they leave is computed, W and c."""
        own, here, _, weight, bias = self._at_last(hidden, last)
        key, value, inner_lr = self._to_learn(own)
        by_weight, by_bias = self._learn(key, value, inner_lr * until(here)[:, None, None], weight, bias)
        query, scale = self._asked(own, here)
        return self._user_of(query, weight - scale * by_weight, bias - scale * by_bias)

    def _corrected_user(self, hidden: Tensor, last: Tensor, correction: Correction) -> Tensor:
        """Return the same with a correction of all M mini-batches, of which that with the last click has its own.

        A correction changes the outputs of its mini-batch and not the W and c that it leaves, so no other one is read.
        """
        if whole_mini_batches(hidden.shape[1], self.mini_batch) > 1:
            hidden, last, current, weight, bias = self._at_last(hidden, last)
            correction = correction.at(current)
        else:
            weight, bias = self._started(hidden.shape[0])
        query, key, value = (self._split(linear(hidden)) for linear in (self.query, self.key, self.value))
        inner_lr = self._inner_lr(hidden)
        outputs, *_ = self._mini_batch(query, key, value, inner_lr, weight, bias, correction)
        return states_at(self._read(outputs), last)

    def _at_last(self, hidden: Tensor, last: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Find the mini-batch that the last click is in, among M > 1 of H [B, N, D].

        Return its H [B, b, D], the click's place in it [B, b], which one it is [B, M], and W and c that it starts with.
        """
        batch, length, dimension = hidden.shape
        count = -(-length // self.mini_batch)
        missing = count * self.mini_batch - length
        if missing:
            hidden, last = functional.pad(hidden, (0, 0, 0, missing)), functional.pad(last, (0, missing))
        marked = last.reshape(batch, count, self.mini_batch)
        current, here = marked.sum(2), marked.sum(1)  # which mini-batch has the last click, and its place there
        earlier = cut(until(current) - current, 1, 0, count - 1)
        weight, bias = self._after(cut(hidden, 1, 0, (count - 1) * self.mini_batch), earlier)
        own = torch.matmul(current[:, None], hidden.reshape(batch, count, -1)).reshape(batch, -1, dimension)
        return own, here, current, weight, bias

    def _after(self, hidden: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
        """Return W [B, h, d, d] and c [B, h, 1, d] after those mini-batches of H [B, M b, D] that `read` marks."""
        blocks = (hidden.shape[0], self.heads, read.shape[1], self.mini_batch)
        key, value = self._split(self.key(hidden)), self._split(self.value(hidden))
        key = self._rotate(key.reshape(*blocks, self.width), self.rope_cosine, self.rope_sine).reshape(value.shape)
        step_size = self._inner_lr(hidden).reshape(blocks) * read[:, None, :, None] * self._scale()[-1]
        weights = (self.initial_weight, self.initial_bias, self.inner_norm_weight, self.inner_norm_bias)
        return trained(key, value - key, step_size, *(x.expand(blocks[0], -1, -1, -1) for x in weights))

    def step(self, item_id: Tensor, state: State) -> tuple[Tensor, State]:
        """Return u [B, D] after one more click [B, 1] and the state after it, at a cost that no history changes.

        This is the primal form of `mix`: W and c are there at each token, after its step of the inner learning.
        """
        hidden = self.hidden_state(item_id)
        query, key, value = (self._split(linear(hidden)) for linear in (self.query, self.key, self.value))
        here = (torch.arange(self.mini_batch, dtype=hidden.dtype) == state.position).to(hidden.dtype)  # [B, b]
        angle = [torch.matmul(here, table)[:, None, None] for table in (self.rope_cosine, self.rope_sine)]
        query, key = self._rotate(query, *angle), self._rotate(key, *angle)
        weight, bias = self.initial_weight + state.weight_change, self.initial_bias + state.bias_change
        gradient = gradient_of(
            product(key, weight) + bias, value - key, self.inner_norm_weight, self.inner_norm_bias
        )  # [B, h, 1, d]
        inner_lr = self._inner_lr(hidden)  # [B, h, 1, 1]
        weight_gradient = state.weight_gradient + product((inner_lr * key).transpose(2, 3), gradient)
        bias_gradient = state.bias_gradient + inner_lr * gradient
        scale = torch.matmul(here, self._scale()[:, None])[:, :, None, None]  # [B, 1, 1, 1]
        user = self._user_of(query, weight - scale * weight_gradient, bias - scale * bias_gradient)
        full = here[:, -1:, None, None]  # [B, 1, 1, 1]: 1 at the border between two mini-batches
        rest = 1 - full
        return user, State(
            state.weight_change - full * scale * weight_gradient,
            state.bias_change - full * scale * bias_gradient,
            rest * weight_gradient,
            rest * bias_gradient,
            rest[:, :, 0, 0] * (state.position + 1),
        )

    def chunk(self, item_ids: Tensor, state: State) -> tuple[Tensor, State]:
        """Return u [B, D] after up to b more clicks [B, b], padded on the right with 0, and the state after them.

        All clicks of a mini-batch learn from the W and c that it starts with: those up to the border in one product,
        those behind it in another. Only u of the last click is asked for, so no other output is computed.
        Without a click the state stays as it is, and u is that of a click on padding.
        """
        places = torch.arange(self.mini_batch, dtype=state.position.dtype)
        clicks = (item_ids != 0).to(places.dtype).sum(-1, keepdim=True)  # [B, 1]
        last = torch.relu(clicks - 1)
        # Each click goes to its place in its mini-batch; those behind the border come round to the places in front.
        ahead = places - state.position  # [B, b]
        own = (ahead >= 0).to(places.dtype)  # 1 at the places up to the border
        order = ahead + (1 - own) * self.mini_batch  # which click is at each place, from 0
        read = (order <= last).to(places.dtype)
        # Whatever a device gives as its position, nothing but its clicks is read.
        hidden = self.hidden_state(item_ids.gather(1, order.to(torch.int64).clamp(0, self.mini_batch - 1)))
        key, value, inner_lr = self._to_learn(hidden)

        weight, bias = self.initial_weight + state.weight_change, self.initial_bias + state.bias_change
        by_weight, by_bias = self._learn(key, value, inner_lr * (own * read)[:, None, None], weight, bias)
        weight_gradient, bias_gradient = state.weight_gradient + by_weight, state.bias_gradient + by_bias
        end = (state.position + clicks)[:, :, None, None]  # [B, 1, 1, 1]
        full = (end >= self.mini_batch).to(places.dtype)
        border_scale = full * self._scale()[-1]
        weight_change = state.weight_change - border_scale * weight_gradient
        bias_change = state.bias_change - border_scale * bias_gradient
        next_weight, next_bias = self.initial_weight + weight_change, self.initial_bias + bias_change
        next_weight_gradient, next_bias_gradient = self._learn(
            key, value, inner_lr * ((1 - own) * read)[:, None, None], next_weight, next_bias
        )

        here = (order == last).to(places.dtype)
        query, scale = self._asked(hidden, here)
        behind = (end > self.mini_batch).to(places.dtype)  # 1 where the last click is behind the border
        user = self._user_of(
            query,
            (1 - behind) * (weight - scale * weight_gradient) + behind * (next_weight - scale * next_weight_gradient),
            (1 - behind) * (bias - scale * bias_gradient) + behind * (next_bias - scale * next_bias_gradient),
        )
        any_click = torch.clamp(clicks, max=1.0)[:, :, None, None]  # padding has no key, but a bias of its own
        return user, State(
            weight_change,
            bias_change,
            (1 - full) * weight_gradient + next_weight_gradient,
            (1 - full) * (state.bias_gradient + any_click * by_bias) + next_bias_gradient,
            (end - full * self.mini_batch)[:, :, 0, 0],
        )

    def start(self, batch: int) -> State:
        """Return the state before the first click, zeros, for B sessions."""
        heads, width = self.heads, self.width
        weight, bias = (torch.zeros(batch, heads, rows, width) for rows in (width, 1))
        return State(weight, bias, weight, bias, torch.zeros(batch, 1))

    def without(self, part: str) -> "SCN":
        """Return the same model without one of its modules, so that the weights of that get into no artifact."""
        rest = copy.copy(self)
        rest._modules = {**self._modules, part: None}  # its own, so that the copy alone loses the module
        return rest

    def encode(self, item_ids: Tensor) -> Tensor:
        """Return Y [B, N, D] of histories [B, N] at every position, as the published code computes it."""
        return self._read(self.mix(self.hidden_state(item_ids)))

    def score(self, user: Tensor, candidates: Tensor) -> Tensor:
        """Return u . T(e) [B, C] for users [B, D] and embeddings e [B, C, D]."""
        return inner_product(user, tower(candidates, self.candidate_hidden, self.candidate_output))

    def mix(self, hidden: Tensor) -> Tensor:
        """Return the outputs [B, h, N, d] of all tokens of H [B, N, D], mini-batch by mini-batch (eqs. 9-13)."""
        length = hidden.shape[1]
        query, key, value = (self._split(linear(hidden)) for linear in (self.query, self.key, self.value))
        inner_lr = self._inner_lr(hidden)
        weight, bias = self._started(hidden.shape[0])
        outputs = []
        for start in range(0, length, self.mini_batch):
            stop = min(start + self.mini_batch, length)
            q, k, v = (cut(x, 2, start, stop) for x in (query, key, value))
            output, k, step_size, gradient = self._mini_batch(q, k, v, cut(inner_lr, 3, start, stop), weight, bias)
            outputs.append(output)
            if stop < length:
                last = step_size[:, :, -1:]  # [B, h, 1, b]
                weight = weight - product((last.transpose(2, 3) * k).transpose(2, 3), gradient)
                bias = bias - product(last, gradient)
        return torch.cat(outputs, 2) if len(outputs) > 1 else outputs[0]
