"""What SCN is made of: its weights, and the computations that whole histories, mini-batches and single clicks share.

Names and sizes are those of network.py.
"""

# mypy: allow-subclassing-any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import ItemEmbedding, LayerNorm, RMSNorm, cut, normalise
from models.scn.gcn import Correction
from models.scn.inner import Inner, dual, gradient_of, product, rope_tables


class Layer(nn.Module):
    """The weights of an SCN, all but those of its GCN, and what is computed of them alike wherever clicks come from."""

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

    def hidden_state(self, item_ids: Tensor) -> Tensor:
        """Return H [B, N, D] of histories [B, N] (eq. 8); this is what a device uploads."""
        return self.input_norm(self.items(item_ids))

    def _mini_batch(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        inner_lr: Tensor,
        weight: Tensor,
        bias: Tensor,
        correction: Correction | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `dual` gives for up to b tokens [B, h, n, d] with lr [B, h, 1, n], turned keys and eta beside it.

        In this order: the outputs, K [B, h, n, d], eta [B, h, n, n] and G.
        """
        size = query.shape[2]
        angle = [cut(table, 0, 0, size) for table in (self.rope_cosine, self.rope_sine)]
        query, key = self._rotate(query, *angle), self._rotate(key, *angle)
        step_size = cut(self._scale(), 0, 0, size)[:, None] * inner_lr  # [B, h, n, n]
        causal = cut(cut(self.causal, 0, 0, size), 1, 0, size)
        start = Inner(weight, bias, self.inner_norm_weight, self.inner_norm_bias)
        outputs, gradient = dual(query, key, value, step_size, causal, start, correction)
        return outputs, key, step_size, gradient

    def _started(self, batch: int) -> tuple[Tensor, Tensor]:
        """Return the learned W [B, h, d, d] and c [B, h, 1, d] before the first click of B histories."""
        return self.initial_weight.expand(batch, -1, -1, -1), self.initial_bias.expand(batch, -1, -1, -1)

    def _to_learn(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return K and V [B, h, b, d] and lr [B, h, 1, b] of a mini-batch H [B, b, D]."""
        key, value = self._split(self.key(hidden)), self._split(self.value(hidden))
        return self._rotate(key, self.rope_cosine, self.rope_sine), value, self._inner_lr(hidden)

    def _asked(self, hidden: Tensor, here: Tensor) -> tuple[Tensor, Tensor]:
        """Return Q [B, h, 1, d] and tau [B, 1, 1, 1] of the token in H [B, b, D] that `here` [B, b] marks."""
        # As sums: a table that turns keys and is a matrix too, XNNPACK puts into two parts that need each other.
        angle = [(here[:, :, None] * table).sum(1)[:, None, None] for table in (self.rope_cosine, self.rope_sine)]
        query = self._rotate(self._split(self.query(torch.matmul(here[:, None], hidden))), *angle)
        return query, (here * self._scale()).sum(-1)[:, None, None, None]

    def _learn(
        self, key: Tensor, value: Tensor, inner_lr: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return sum lr_j K_j^T G_j [B, h, d, d] and sum lr_j G_j [B, h, 1, d] of tokens [B, h, b, d], G at W and c."""
        gradient = gradient_of(product(key, weight) + bias, value - key, self.inner_norm_weight, self.inner_norm_bias)
        return product((inner_lr.transpose(2, 3) * key).transpose(2, 3), gradient), product(inner_lr, gradient)

    def _user_of(self, query: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Return u [B, D] of a token's query [B, h, 1, d] at the W and c that it has learned."""
        mixed = product(query, weight) + bias
        mixed = query + normalise(mixed)[0] * self.inner_norm_weight + self.inner_norm_bias
        return self._read(mixed).squeeze(1)

    def _read(self, mixed: Tensor) -> Tensor:
        """Return Y [B, N, D] of the outputs [B, h, N, d] of all heads."""
        side_by_side = mixed.transpose(1, 2).flatten(2)
        normal: Tensor = self.output_norm(self.output(self.post_norm(side_by_side)))
        return normal

    def _split(self, x: Tensor) -> Tensor:
        """Cut [B, N, D] into heads [B, h, N, d]."""
        return x.reshape(x.shape[0], x.shape[1], self.heads, self.width).transpose(1, 2)

    def _inner_lr(self, hidden: Tensor) -> Tensor:
        """Return lr [B, h, 1, N] of the tokens of H [B, N, D]."""
        # Not as a call of the module: the published code has bare parameters here, which its counter did not see.
        logits = functional.linear(hidden, self.inner_lr.weight, self.inner_lr.bias)
        return (torch.sigmoid(logits) / self.width).transpose(1, 2)[:, :, None]

    def _scale(self) -> Tensor:
        """Return tau [b]."""
        return torch.relu(self.token_scale + self.token_scale_offset)

    def _rotate(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """Apply RoPE (eq. 10) to [B, h, b, d] with the angles' cosines and signed sines, [b, d] or [B, 1, 1, d]."""
        return x * cosine + x.index_select(-1, self.rope_neighbour) * sine
