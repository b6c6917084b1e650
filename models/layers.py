"""Blocks that at least two models share, written so that every target lowers them and none reads past a table."""

# mypy: allow-subclassing-any

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

EPS = 1e-6
HIDDEN = -1e4  # stands for minus infinity before a softmax: exp gives 0, and fp16 can hold it


class ItemEmbedding(nn.Module):
    """Look up int32 or int64 ids in a V x D table whose row 0 is zero; an id outside [0, V) is embedded as row 0."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.weight = nn.Parameter(torch.empty(vocabulary, dimension))
        self.reset()

    def reset(self, std: float = 0.02) -> None:
        """Draw the table from N(0, std) and set its padding row to zero."""
        nn.init.normal_(self.weight, std=std)
        with torch.no_grad():
            self.weight[0].zero_()

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids [...] to embeddings [..., D]."""
        # Runtimes disagree about ids out of range: some fail, some read past the table. So none may get that far.
        in_table = torch.logical_and(ids >= 0, ids < self.vocabulary)
        return functional.embedding(torch.where(in_table, ids, torch.zeros_like(ids)), self.weight, padding_idx=0)


class RMSNorm(nn.Module):
    """Divide [..., D] by its root mean square along the last axis and multiply by a learned scale (eq. 8)."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        self.dimension = dimension
        self.weight = nn.Parameter(torch.ones(dimension))

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]; a zero row stays zero."""
        # sqrt(D) / sqrt(sum + D eps) equals 1 / sqrt(mean + eps), but D eps is a normal number in fp16, where eps
        # alone may be flushed to zero and turn a padding row into 0 * inf.
        total = (x * x).sum(-1, keepdim=True) + self.dimension * EPS
        return x * torch.rsqrt(total) * (self.weight * self.dimension**0.5)


def normalise(x: Tensor, eps: float = EPS) -> tuple[Tensor, Tensor]:
    """Return (x - mean) / std [..., D] and 1 / std [..., 1] along the last axis, std = sqrt(biased variance + eps)."""
    centred = x - x.mean(-1, keepdim=True)
    inverse = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + eps)
    return centred * inverse, inverse


class LayerNorm(nn.LayerNorm):
    """Normalise [..., D] along the last axis, with learned scale and shift, in operations that lower in fp16 too."""

    def __init__(self, dimension: int, eps: float = EPS) -> None:
        super().__init__(dimension, eps)

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        return normalise(x, self.eps)[0] * self.weight + self.bias


class SmallEpsNorm(LayerNorm):
    """Layer norm whose eps is too small for fp16: a row without variance is divided by one there, not by zero."""

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred * centred).mean(-1, keepdim=True)
        flat = (variance == 0).to(x.dtype)
        return centred * torch.rsqrt(variance + flat + self.eps) * self.weight + self.bias


class GRU(nn.GRU):
    """torch.nn.GRU of one layer, batch first, which can also go on by one token."""

    def __init__(self, inputs: int, dimension: int, bias: bool = True) -> None:
        super().__init__(inputs, dimension, bias=bias, batch_first=True)

    def forward(self, x: Tensor, initial: Tensor | None = None) -> Tensor:
        """Map [B, N, inputs] to the states [B, N, D] after each token, from the state `initial` [B, D] or zero."""
        states, _ = super().forward(x, None if initial is None else initial[None])
        return states

    def step(self, x: Tensor, state: Tensor) -> Tensor:
        """Map one token [B, inputs] and the state [B, D] before it to the state [B, D] after it."""
        return self(x[:, None], state)[:, 0]


def last_position(item_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Return [B, N] with 1 at each row's last valid position, max(non-zero ids - 1, 0), and 0 elsewhere; N <= 2048."""
    # In floats, exact in fp16 up to 2048: integer arithmetic in the graph would be int64 on some targets.
    return last_of((item_ids != 0).to(dtype).sum(-1, keepdim=True), item_ids.shape[1])


def last_of(count: Tensor, length: int) -> Tensor:
    """Return [B, N = length] with 1 at max(count - 1, 0) and 0 elsewhere, for clicks counted in floats [B, 1]."""
    positions = torch.arange(length, dtype=count.dtype, device=count.device)
    return (positions == torch.relu(count - 1)).to(count.dtype)


def states_at(states: Tensor, last: Tensor) -> Tensor:
    """Return the states [B, D] at the positions that `last` [B, N] marks in [B, N, D]."""
    return (states * last[:, :, None]).sum(1)


def inner_product(user: Tensor, candidates: Tensor) -> Tensor:
    """Return u . e as [B, C] for user states [B, D] and candidate embeddings e [B, C, D]."""
    return torch.bmm(candidates, user[:, :, None]).squeeze(-1)


def tower(items: Tensor, hidden: nn.Linear, output: nn.Linear) -> Tensor:
    """Return T(e) = W_2 tanh(W_1 e + c_1) + c_2 of embeddings e [..., D] as [..., D]."""
    projected: Tensor = output(torch.tanh(hidden(items)))
    return projected


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    clicked: Tensor | None = None,
    future: Tensor | None = None,
) -> Tensor:
    """Return softmax(Q K^T / sqrt(d)) V, head by head, as [B, M, D] for Q [B, M, D], K and V [B, N, D].

    Nothing attends to where `clicked` [B, N] is false; where it is false for all N, all are attended to alike.
    `future` [M, N] is added to the products: HIDDEN where a token must not see another one, and 0 elsewhere.
    """
    width = query.shape[2] // heads
    query, key, value = (_heads_apart(x, heads, width) for x in (query, key, value))  # [B * h, M or N, d]
    scores = torch.bmm(query, key.transpose(1, 2)) * width**-0.5  # [B * h, M, N]
    if clicked is not None:
        wide = scores.reshape(-1, heads, *scores.shape[1:])
        seen = clicked.to(scores.dtype)[:, None, None]  # a product and a sum, which all targets take, in place of where
        scores = (wide * seen + (1 - seen) * HIDDEN).flatten(0, 1)
    if future is not None:
        scores = scores + future
    mixed = torch.bmm(torch.softmax(scores, -1), value)  # [B * h, M, d]
    return mixed.reshape(-1, heads, *mixed.shape[1:]).transpose(1, 2).flatten(2)


def _heads_apart(x: Tensor, heads: int, width: int) -> Tensor:
    """Cut [B, N, D] into heads [B * h, N, d]."""
    return x.reshape(x.shape[0], x.shape[1], heads, width).transpose(1, 2).flatten(0, 1)


def initialise(model: nn.Module, draw: Callable[[Tensor], object]) -> None:
    """Let `draw` fill the matrices of all linear maps and GRUs in a model, and set their biases to zero."""
    for module in model.modules():
        if isinstance(module, nn.Linear | GRU):
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    draw(parameter)
                else:
                    nn.init.zeros_(parameter)


def redraw(model: nn.Module, std: float) -> None:
    """Draw a model's item table and the matrices of its linear maps and GRUs from N(0, std); their biases are zero."""
    for module in model.modules():
        if isinstance(module, ItemEmbedding):
            module.reset(std)
    initialise(model, partial(nn.init.normal_, std=std))


def until(last: Tensor) -> Tensor:
    """Return [B, N] with 1 up to and including the position that `last` [B, N] marks, and 0 behind it."""
    positions = torch.arange(last.shape[1], dtype=last.dtype, device=last.device)
    return (positions <= (last * positions).sum(-1, keepdim=True)).to(last.dtype)


def cut(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Return [start, stop) of an axis; a slice of everything exports as an alias, which Core ML's converter refuses."""
    return x if (start, stop) == (0, x.shape[axis]) else x.narrow(axis, start, stop - start)
