"""Matrix products (MIL linear)."""

from dataclasses import replace
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic


def linear(env: Env, x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> Any:
    """x W^T + bias: [*D, D_in], [D_out, D_in], [D_out] -> [*D, D_out]."""
    if weight.ndim != 2 or (bias is not None and bias.shape != weight.shape[:1]):
        raise RefusedError(f"weight {list(weight.shape)} and its bias do not fit")
    product = env.matmul(x, weight.T)
    return product if bias is None else product + bias


def matmul(env: Env, x: np.ndarray, y: np.ndarray, transpose_x: bool = False, transpose_y: bool = False) -> Any:
    """Multiply the last two axes and broadcast the others; the transpositions have no effect on rank 1."""
    if transpose_x and x.ndim > 1:
        x = x.swapaxes(-1, -2)
    if transpose_y and y.ndim > 1:
        y = y.swapaxes(-1, -2)
    return env.matmul(x, y)


def einsum(env: Env, values: list[np.ndarray], equation: str) -> Any:
    """The spec's two equations: nchw,nwhu->nchu and chw,whr->chr, with broadcasting of n and h."""
    if len(values) != 2:
        raise RefusedError(f"einsum takes two values, not {len(values)}")
    x, y = values
    rank = x.ndim
    if rank not in (3, 4) or y.ndim != rank or _pattern(equation) != _PATTERNS[rank]:
        raise RefusedError(
            f"equation {equation!r} for ranks {x.ndim} and {y.ndim} is none of the two that the spec knows"
        )
    # [.., C, H, W1] and [.., W1, H, W2] become matrix products over a batch of (.., H).
    return env.matmul(x.swapaxes(-2, -3), y.swapaxes(-2, -3)).swapaxes(-2, -3)


_PATTERNS = {4: ((0, 1, 2, 3), (0, 3, 2, 4), (0, 1, 2, 4)), 3: ((0, 1, 2), (2, 1, 3), (0, 1, 3))}


def _pattern(equation: str) -> tuple[tuple[int, ...], ...]:
    order: dict[str, int] = {}
    terms = equation.replace(" ", "").replace("->", ",").split(",")
    return tuple(tuple(order.setdefault(letter, len(order)) for letter in term) for term in terms)


LINEAR: dict[str, Kernel] = {
    "linear": replace(arithmetic(linear), mixes=frozenset({"weight", "bias"})),
    "matmul": replace(arithmetic(matmul), mixes=frozenset({"x", "y"})),
    "einsum": arithmetic(einsum, "values"),
}
