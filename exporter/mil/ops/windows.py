"""Sliding windows over spatial axes, shared by convolution and pooling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from exporter.mil.kernel import RefusedError, integers

PAD_TYPES = ("valid", "same", "same_lower", "custom")


@dataclass(frozen=True)
class Window:
    """How a window moves along one spatial axis: padded input, kernel, and the number of positions."""

    before: int
    after: int
    kernel: int
    stride: int
    dilation: int
    count: int


def windows(
    sizes: Sequence[int],
    kernel: Sequence[int],
    strides: Any,
    dilations: Any,
    pad_type: str,
    pad: Any,
    ceil_mode: bool = False,
) -> list[Window]:
    """Return one window per spatial axis; output sizes follow the spec of conv and of the pooling operations.

    `same` puts the odd element of the padding after the input, `same_lower` before it.
    """
    rank = len(sizes)
    steps = [1] * rank if strides is None else integers(strides)
    spread = [1] * rank if dilations is None else integers(dilations)
    kind = pad_type.lower()
    if kind not in PAD_TYPES:
        raise RefusedError(f"pad_type {pad_type!r} is not known; the spec has {', '.join(PAD_TYPES)}")
    custom = [0] * (2 * rank) if pad is None or kind != "custom" else integers(pad)
    if any(len(values) != rank for values in (kernel, steps, spread)) or len(custom) != 2 * rank:
        raise RefusedError(f"kernel, strides, dilations and padding do not fit {rank} spatial axes")
    if min([*kernel, *steps, *spread], default=1) < 1 or min(custom, default=0) < 0:
        raise RefusedError("kernel, strides and dilations must be positive and padding must not be negative")
    result = []
    for axis, size in enumerate(sizes):
        reach = (kernel[axis] - 1) * spread[axis] + 1
        before, after = custom[2 * axis], custom[2 * axis + 1]
        if kind in ("same", "same_lower"):
            total = max(0, (-(-size // steps[axis]) - 1) * steps[axis] + reach - size)
            before = total // 2 if kind == "same" else total - total // 2
            after = total - before
        room = size + before + after - reach
        count = room // steps[axis] + 1
        if ceil_mode:
            count = -(-room // steps[axis]) + 1
            # As in torch, no window may start in the padding after the input.
            if (count - 1) * steps[axis] >= size + before and before + after > 0:
                count -= 1
        if room < 0 or count < 1:
            raise RefusedError(f"a window of {reach} does not fit an axis of {size} padded by {before} and {after}")
        result.append(Window(before, after, kernel[axis], steps[axis], spread[axis], count))
    return result


def pad_spatial(x: np.ndarray, moves: Sequence[Window], value: float = 0.0) -> np.ndarray:
    """Pad [n, C, *D] so that every window lies inside; in ceil mode that is further than the padding states."""
    margins = []
    for size, move in zip(x.shape[2:], moves, strict=True):
        reach = (move.count - 1) * move.stride + (move.kernel - 1) * move.dilation + 1
        margins.append((move.before, max(0, reach - size - move.before)))
    if not any(before or after for before, after in margins):
        return x
    shape = [size + before + after for size, (before, after) in zip(x.shape[2:], margins, strict=True)]
    padded = np.full((*x.shape[:2], *shape), value, x.dtype)
    inside = tuple(slice(before, before + size) for size, (before, _) in zip(x.shape[2:], margins, strict=True))
    padded[(slice(None), slice(None), *inside)] = x
    return padded


def padded_elements(x: np.ndarray, moves: Sequence[Window]) -> list[int]:
    """Return the shape that `pad_spatial` needs at most, for a check of the memory limit before it allocates."""
    reach = [(move.count - 1) * move.stride + (move.kernel - 1) * move.dilation + 1 for move in moves]
    return [*x.shape[:2], *(max(r, size + m.before) for r, size, m in zip(reach, x.shape[2:], moves, strict=True))]


def view(padded: np.ndarray, moves: Sequence[Window]) -> np.ndarray:
    """Return the windows of a padded [n, C, *D] without a copy: [n, C, *count, *kernel]."""
    strides = padded.strides
    steps = [stride * move.stride for stride, move in zip(strides[2:], moves, strict=True)]
    taps = [stride * move.dilation for stride, move in zip(strides[2:], moves, strict=True)]
    shape = (*padded.shape[:2], *(move.count for move in moves), *(move.kernel for move in moves))
    return np.lib.stride_tricks.as_strided(padded, shape, (*strides[:2], *steps, *taps), writeable=False)
