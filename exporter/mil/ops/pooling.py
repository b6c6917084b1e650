"""Pooling (MIL pool)."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, integers
from exporter.mil.ops.windows import Window, pad_spatial, padded_elements, windows

# Up to this kernel size it is faster to combine shifted inputs than to reduce over strided windows.
SHIFT_UP_TO = 32


def _moves(env: Env, x: np.ndarray, kernel: Any, strides: Any, pad_type: str, pad: Any, ceil: bool) -> list[Window]:
    if x.ndim < 3:
        raise RefusedError(f"x must have rank 3 to 5, not {x.ndim}")
    moves = windows(x.shape[2:], integers(kernel), strides, None, pad_type, pad, ceil)
    env.reserve(padded_elements(x, moves), x.itemsize)
    return moves


def _reduce(padded: np.ndarray, moves: Sequence[Window], combine: np.ufunc) -> np.ndarray:
    """Combine every window of a padded [n, C, *D]; a box is separable, so one axis after the other."""
    for axis, move in enumerate(moves, 2):
        span = (move.count - 1) * move.stride + 1
        before: tuple[slice, ...] = (slice(None),) * axis
        if move.kernel <= SHIFT_UP_TO:
            total = padded[(*before, slice(0, span, move.stride))]
            for tap in range(1, move.kernel):
                total = combine(total, padded[(*before, slice(tap, tap + span, move.stride))])
            padded = total
        else:
            frames = np.lib.stride_tricks.sliding_window_view(padded, move.kernel, axis)
            padded = combine.reduce(frames[(*before, slice(0, span, move.stride))], axis=-1)
    return padded


def _counts(sizes: Sequence[int], moves: Sequence[Window], exclude: bool) -> np.ndarray:
    """Return how many elements each window averages over, [*count]; torch's rule for windows that overhang."""
    total = np.ones((), np.int64)
    for size, move in zip(sizes, moves, strict=True):
        start = np.arange(move.count) * move.stride - move.before
        stop = np.minimum(start + move.kernel, size + (0 if exclude else move.after))
        total = total[..., None] * (stop - (np.maximum(start, 0) if exclude else start))
    return total


def max_pool(
    env: Env,
    x: np.ndarray,
    kernel_sizes: Any,
    pad_type: str,
    strides: Any = None,
    pad: Any = None,
    ceil_mode: bool = False,
) -> Any:
    """The largest element of each window."""
    moves = _moves(env, x, kernel_sizes, strides, pad_type, pad, bool(ceil_mode))
    return _reduce(pad_spatial(x, moves, -np.inf), moves, np.maximum)


def avg_pool(
    env: Env,
    x: np.ndarray,
    kernel_sizes: Any,
    pad_type: str,
    strides: Any = None,
    pad: Any = None,
    ceil_mode: bool = False,
    exclude_padding_from_average: bool = False,
) -> Any:
    """The mean of each window, padding counted unless excluded."""
    moves = _moves(env, x, kernel_sizes, strides, pad_type, pad, bool(ceil_mode))
    total = _reduce(pad_spatial(x, moves), moves, np.add)
    return total / _counts(x.shape[2:], moves, bool(exclude_padding_from_average)).astype(x.dtype)


def l2_pool(
    env: Env,
    x: np.ndarray,
    kernel_sizes: Any,
    pad_type: str,
    strides: Any = None,
    pad: Any = None,
    ceil_mode: bool = False,
) -> Any:
    """The root of the sum of squares of each window."""
    moves = _moves(env, x, kernel_sizes, strides, pad_type, pad, bool(ceil_mode))
    return np.sqrt(_reduce(pad_spatial(np.square(x), moves), moves, np.add))


_POOLS: dict[str, Callable[..., Any]] = {"avg_pool": avg_pool, "l2_pool": l2_pool, "max_pool": max_pool}

POOLING: dict[str, Kernel] = {name: arithmetic(run) for name, run in _POOLS.items()}
