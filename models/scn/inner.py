"""The inner model of an SCN, Z = K W + c with a layer norm behind it, and how a history trains it.

Names and sizes are those of network.py.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from models.layers import cut, normalise
from models.scn.gcn import Correction, fuse

ROPE_BASE = 10_000.0


class Inner(NamedTuple):
    """The inner model at the start of a mini-batch, LN(K W + c)."""

    weight: Tensor  # W, [B, h, d, d]
    bias: Tensor  # c, [B, h, 1, d]
    gain: Tensor  # gamma of LN, [h, 1, d]
    shift: Tensor  # beta of LN, [h, 1, d]


class State(NamedTuple):
    """What a device remembers between clicks; all zero before the first one.

    The learned W0 and c0 stay in the model, so that their changes start at zero, as everything else does.
    """

    weight_change: Tensor  # W - W0 at the start of the mini-batch, [B, h, d, d]
    bias_change: Tensor  # c - c0 at the start of the mini-batch, [B, h, 1, d]
    weight_gradient: Tensor  # sum of lr_j K_j^T G_j over the mini-batch so far, [B, h, d, d]
    bias_gradient: Tensor  # sum of lr_j G_j over the mini-batch so far, [B, h, 1, d]
    position: Tensor  # of the next click in its mini-batch, from 0 to b - 1, [B, 1]


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply [B, h, m, n] by [B, h, n, p]; as one bmm, because matmul would copy both sides to expand them."""
    batch, heads, rows, _ = left.shape
    return torch.bmm(left.flatten(0, 1), right.flatten(0, 1)).reshape(batch, heads, rows, right.shape[3])


def gradient_of(z: Tensor, target: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Return G [..., b, d], the gradient of 1/2 ||LN(Z) - target||^2 for Z [..., b, d], in closed form."""
    normal, inverse = normalise(z)
    g = (normal * gain + shift - target) * gain
    return (g - g.mean(-1, keepdim=True) - normal * (g * normal).mean(-1, keepdim=True)) * inverse


def dual(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    step_size: Tensor,
    causal: Tensor,
    start: Inner,
    correction: Correction | None,
) -> tuple[Tensor, Tensor]:
    """Return the outputs of a mini-batch [B, h, b, d] in the dual form (eqs. 11-13), and G [B, h, b, d].

    `step_size` is eta [B, h, b, b], `causal` [b, b] has 1 up to the diagonal; `correction`, of this mini-batch alone,
    goes to A and to c (eqs. 14-15), and so to the outputs, but not to G, of which the next state is made.
    """
    weight, bias, gain, shift = start
    gradient = gradient_of(product(key, weight) + bias, value - key, gain, shift)
    attention = product(query, key.transpose(2, 3)) * causal
    token_bias = bias - product(step_size * causal, gradient)
    if correction is not None:
        attention = fuse(attention, correction.attention, correction.attention_weight)
        token_bias = fuse(token_bias, correction.bias, correction.bias_weight)
    mixed = product(query, weight) - product(step_size * attention, gradient) + token_bias
    return query + normalise(mixed)[0] * gain + shift, gradient


def trained(
    key: Tensor, target: Tensor, step_size: Tensor, weight: Tensor, bias: Tensor, gain: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    """Return W [B, h, d, d] and c [B, h, 1, d] after M mini-batches of keys and targets [B, h, M b, d], one by one.

    `step_size` [B, h, M, b] is 0 for those that are left out; `gain` and `shift` [B, h, 1, d] are those of the norm.
    """
    batch, heads, count, size = step_size.shape

    def flat(x: Tensor) -> Tensor:
        return x.reshape(batch * heads, *x.shape[2:])

    # [W; c] as one matrix of d + 1 rows, and [K, 1] to multiply it with: two products for each mini-batch. Long
    # histories have many, and every operation here is one more in their programs for each.
    eta = step_size.reshape(batch * heads, count * size, 1)
    given = torch.cat([flat(key), torch.ones_like(eta)], 2)  # [B h, M b, d + 1]
    taught, target = (given * eta).transpose(1, 2), flat(target)
    state, gain, shift = torch.cat([flat(weight), flat(bias)], 1), flat(gain), flat(shift)
    for start in range(0, count * size, size):
        k, t = (cut(x, 1, start, start + size) for x in (given, target))
        gradient = gradient_of(torch.bmm(k, state), t, gain, shift)
        state = state - torch.bmm(cut(taught, 2, start, start + size), gradient)
    state, rows = state.reshape(batch, heads, *state.shape[1:]), weight.shape[2]
    return cut(state, 2, 0, rows), cut(state, 2, rows, rows + 1)


def rope_tables(length: int, width: int) -> tuple[Tensor, Tensor]:
    """Return cosines and signed sines, both [length, width], for pairs of (even, odd) neighbours (eq. 10)."""
    frequency = ROPE_BASE ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle = (torch.arange(length, dtype=torch.float64)[:, None] * frequency).repeat_interleave(2, -1)
    sign = torch.tensor([-1.0, 1.0], dtype=torch.float64).repeat(width // 2)
    return angle.cos().float(), (angle.sin() * sign).float()
