"""Finetune: every user's device goes on training DeviceRec's blocks, for some steps, on what that user has clicked.

A step is one of Adam on the mean cross-entropy of each click after the first, among all items, given the clicks before
it. Embeddings and layer norms stay as they are, so that what comes out is a weights package like any other.
Sizes: batch B, history N, dimension D, blocks L, numbers per block P, items with padding V.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

LEARNING_RATE = 1e-3
USERS_AT_ONCE = 32
LOGITS_AT_ONCE = 1 << 24
"""What is tuned together takes some 100 MB: weights, gradients and two averages of each user, and the logits."""

States = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps histories [B, N], structures [B, L] and weights [B, L, P] to what blocks and exit make of each click [B, N, D].

What it makes of a click must not depend on those after it: one pass then predicts every click from those before it.
"""


def tune(states_of: States, start: Tensor, item_ids: Tensor, structure: Tensor, table: Tensor, steps: int) -> Tensor:
    """Return the weights [B, L, P] after steps from `start` [L, P], each user's on the user's own history [B, N].

    `table` [V, D] is the item table. A user without a second click keeps `start`, and but for rounding
    none depends on who else is tuned. Works under torch.no_grad too.
    """
    users = max(1, min(USERS_AT_ONCE, LOGITS_AT_ONCE // (item_ids.shape[1] * len(table))))
    parts = zip(item_ids.split(users), structure.split(users), strict=True)
    with torch.enable_grad():
        return torch.cat([_tune(states_of, start, *part, table.detach(), steps) for part in parts])


def _tune(states_of: States, start: Tensor, item_ids: Tensor, structure: Tensor, table: Tensor, steps: int) -> Tensor:
    weights = start.detach().expand(len(item_ids), -1, -1).clone().requires_grad_()
    # Adam goes number by number: one optimiser of all users' numbers is one for each user.
    optimiser = torch.optim.Adam([weights], lr=LEARNING_RATE, fused=True)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(states_of(item_ids, structure, weights), item_ids, table).backward(inputs=[weights])
        optimiser.step()
    return weights.detach()


def loss(states: Tensor, item_ids: Tensor, table: Tensor) -> Tensor:
    """Return the sum over users of each one's mean cross-entropy of the clicks in [B, N] after the states [B, N, D]."""
    following = item_ids[:, 1:].long()
    is_click = following > 0
    share = (1.0 / is_click.sum(-1, keepdim=True)).expand_as(following)[is_click]
    logits = states[:, :-1][is_click] @ table[1:].T  # [targets, V - 1]: padding is no item
    return (functional.cross_entropy(logits, following[is_click] - 1, reduction="none") * share).sum()
