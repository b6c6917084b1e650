"""Pooling (MIL pool)."""

import math
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
    last = [(move.count - 1) * move.stride - move.before for move in moves]
    if any(start >= size for start, size in zip(last, x.shape[2:], strict=True)):
        env.doubt("a window lies wholly beyond the input, where torch has none; here it holds padding")
    if len(moves) > 2 and _overhang(x.shape[2:], moves):
        env.doubt("it has ceil mode in three dimensions, which coremltools says there is not; here it is as in two")
    return moves


def _overhang(sizes: Sequence[int], moves: Sequence[Window]) -> bool:
    """Say whether windows end beyond the padding that is stated, as they may in ceil mode."""
    ends = [(move.count - 1) * move.stride + move.kernel - move.before for move in moves]
    return any(end > size + move.after for end, size, move in zip(ends, sizes, moves, strict=True))


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


def _covered(sizes: Sequence[int], moves: Sequence[Window]) -> np.ndarray:
    """Return how many elements of the input each window covers, [*count]."""
    total = np.ones((), np.int64)
    for size, move in zip(sizes, moves, strict=True):
        start = np.arange(move.count) * move.stride - move.before
        total = total[..., None] * np.maximum(np.minimum(start + move.kernel, size) - np.maximum(start, 0), 0)
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
    """The mean of each window, padding counted unless excluded.

    Where windows end beyond the stated padding, in ceil mode, that counts as padding too: every window is divided by
    the whole kernel. So it was measured of Core ML's CPU in one and two dimensions without padding (coremltools issue
    2772 and pull request 2844); torch divides by what is left of the window.
    """
    moves = _moves(env, x, kernel_sizes, strides, pad_type, pad, bool(ceil_mode))
    total = _reduce(pad_spatial(x, moves), moves, np.add)
    if exclude_padding_from_average:
        return total / _covered(x.shape[2:], moves).astype(x.dtype)
    if _overhang(x.shape[2:], moves) and any(move.before or move.after for move in moves):
        env.doubt("windows of ceil mode end beyond padding that is stated; here all count as the whole kernel")
    return total / x.dtype.type(math.prod(move.kernel for move in moves))


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
