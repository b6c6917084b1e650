"""Convolutions (MIL conv)."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, integers
from exporter.mil.ops.windows import Window, pad_spatial, padded_elements, view, windows

# The windows of a convolution are copied out for a matrix product in parts of about this many elements.
PART_ELEMENTS = 1 << 22


def conv(
    env: Env,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    dilations: Any = None,
    groups: Any = 1,
) -> Any:
    """Cross-correlate [n, C_in, *D] with [C_out, C_in / groups, *K] and add the bias [C_out]."""
    parts = int(groups)
    if x.ndim < 3 or weight.ndim != x.ndim:
        raise RefusedError(f"x has rank {x.ndim} and weight {weight.ndim}; both must have the same rank of 3 to 5")
    if parts < 1 or x.shape[1] != weight.shape[1] * parts or weight.shape[0] % parts:
        raise RefusedError(f"weight {list(weight.shape)} in {parts} groups does not fit x {list(x.shape)}")
    moves = windows(x.shape[2:], weight.shape[2:], strides, dilations, pad_type, pad)
    env.reserve(padded_elements(x, moves), x.itemsize)
    env.reserve([x.shape[0], weight.shape[0], *(move.count for move in moves)], x.itemsize)
    padded = pad_spatial(x, moves)
    if weight.shape[1] == 1 and not env.pure:
        result = _depthwise(padded, weight, moves)
    else:
        result = _grouped(env, padded, weight, moves, parts)
    return result if bias is None else result + _per_channel(bias, result)


def _depthwise(padded: np.ndarray, weight: np.ndarray, moves: Sequence[Window]) -> np.ndarray:
    """One input channel per output channel: add up the shifted inputs, one per kernel element."""
    channels = padded.shape[1]
    repeat = weight.shape[0] // channels
    kernels = weight.reshape(channels, repeat, *weight.shape[2:])
    total: np.ndarray | None = None
    for taps in itertools.product(*(range(move.kernel) for move in moves)):
        every: Any = (slice(None), slice(None))
        shifted = padded[every + tuple(map(_tap, taps, moves))]
        factor = kernels[every + taps].reshape(channels, repeat, *(1,) * len(moves))
        term = shifted[:, :, None] * factor
        total = term if total is None else np.add(total, term, out=total)
    if total is None:
        raise RefusedError("the kernel is empty")
    return total.reshape(padded.shape[0], weight.shape[0], *(move.count for move in moves))


def _tap(tap: int, move: Window) -> slice:
    start = tap * move.dilation
    return slice(start, start + (move.count - 1) * move.stride + 1, move.stride)


def _grouped(env: Env, padded: np.ndarray, weight: np.ndarray, moves: Sequence[Window], groups: int) -> np.ndarray:
    """Copy the windows out in parts and multiply each with the flattened kernels of its group."""
    n, spatial = padded.shape[0], len(moves)
    counts = tuple(move.count for move in moves)
    inner = weight.shape[1] * math.prod(weight.shape[2:])
    kernels = weight.reshape(groups, weight.shape[0] // groups, inner)
    split = padded.reshape(n * groups, weight.shape[1], *padded.shape[2:])
    frames = view(split, moves).reshape(n, groups, weight.shape[1], *counts, *weight.shape[2:])
    order = (0, 1, 2, *range(3 + spatial, 3 + 2 * spatial), *range(3, 3 + spatial))
    frames = frames.transpose(order)  # [n, groups, C, *K, *out]
    result = np.empty((n, groups, weight.shape[0] // groups, *counts), np.result_type(padded, weight))
    axis = 3 + spatial
    row = n * groups * inner * math.prod(counts[1:])
    step = max(1, PART_ELEMENTS // max(row, 1))
    for start in range(0, counts[0], step):
        part = frames[(slice(None),) * axis + (slice(start, start + step),)]
        columns = part.reshape(n, groups, inner, -1)
        product = env.matmul(kernels, columns)
        result[:, :, :, start : start + step] = product.reshape(*product.shape[:3], -1, *counts[1:])
    return result.reshape(n, weight.shape[0], *counts)


def _per_channel(bias: np.ndarray, x: np.ndarray) -> np.ndarray:
    if bias.shape != (x.shape[1],):
        raise RefusedError(f"bias {list(bias.shape)} does not fit {x.shape[1]} output channels")
    return bias.reshape(-1, *(1,) * (x.ndim - 2))


def conv_quantized(
    env: Env,
    x: np.ndarray,
    weight: np.ndarray,
    quantization_type: str,
    quant_scale: np.ndarray,
    quant_bias: np.ndarray,
    bias: np.ndarray | None = None,
    nbits: Any = 8,
    strides: Any = None,
    pad_type: str = "valid",
    pad: Any = None,
    dilations: Any = None,
    groups: Any = 1,
) -> Any:
    """Convolve with weight * quant_scale + quant_bias, per output channel where those have one element per channel."""
    if quantization_type != "linear" or int(nbits) != 8:
        raise RefusedError(
            f"only linear quantisation with 8 bits is defined; this is {quantization_type!r}, {int(nbits)}"
        )
    column = (-1, *(1,) * (weight.ndim - 1))
    dense = weight.astype(x.dtype) * quant_scale.reshape(column) + quant_bias.reshape(column)
    plain = None if bias is None else bias.astype(x.dtype)
    return conv(env, x, dense, plain, strides, pad_type, pad, dilations, groups)


def conv_transpose(
    env: Env,
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray | None = None,
    pad: Any = None,
    output_shape: Any = None,
    pad_type: str = "valid",
    strides: Any = None,
    dilations: Any = None,
    groups: Any = 1,
) -> Any:
    """Spread [n, C_in, *D] with [C_in, C_out / groups, *K]: the gradient of conv with respect to its input."""
    parts, rank = int(groups), x.ndim - 2
    if rank < 1 or weight.ndim != x.ndim or parts < 1 or x.shape[1] != weight.shape[0] or x.shape[1] % parts:
        raise RefusedError(f"weight {list(weight.shape)} in {parts} groups does not fit x {list(x.shape)}")
    steps = [1] * rank if strides is None else integers(strides)
    spread = [1] * rank if dilations is None else integers(dilations)
    if len(steps) != rank or len(spread) != rank or min([*steps, *spread]) < 1:
        raise RefusedError(f"strides and dilations must be {rank} positive numbers each")
    n, out_channels, kernel = x.shape[0], weight.shape[1] * parts, weight.shape[2:]
    full = [(size - 1) * s + (k - 1) * d + 1 for size, s, k, d in zip(x.shape[2:], steps, kernel, spread, strict=True)]
    starts, sizes = _cropped(x.shape[2:], full, steps, pad_type.lower(), pad, output_shape)
    if pad_type.lower() == "same" and any((f - s) % 2 for f, s in zip(full, sizes, strict=True) if f > s):
        env.doubt("an odd number of elements is cut off for pad_type same; here the odd one is at the end")
    taps = math.prod(kernel)
    env.reserve([n, out_channels * taps, *x.shape[2:]], x.itemsize)
    env.reserve([n, out_channels, *(max(f, s + b) for f, s, b in zip(full, sizes, starts, strict=True))], x.itemsize)
    folded = weight.reshape(parts, weight.shape[0] // parts, weight.shape[1] * taps).swapaxes(1, 2)
    columns = env.matmul(folded, x.reshape(n, parts, x.shape[1] // parts, -1))
    columns = columns.reshape(n, out_channels, taps, *x.shape[2:])
    room = [max(f, b + s) for f, b, s in zip(full, starts, sizes, strict=True)]
    result = np.zeros((n, out_channels, *room), columns.dtype)
    for index, tap in enumerate(itertools.product(*(range(k) for k in kernel))):
        where = (
            slice(t * d, t * d + (size - 1) * s + 1, s)
            for t, d, size, s in zip(tap, spread, x.shape[2:], steps, strict=True)
        )
        result[(slice(None), slice(None), *where)] += columns[:, :, index]
    inside = (slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
    result = result[(slice(None), slice(None), *inside)]
    return result if bias is None else result + _per_channel(bias, result)


def _cropped(
    sizes: Sequence[int], full: Sequence[int], steps: Sequence[int], kind: str, pad: Any, output_shape: Any
) -> tuple[list[int], list[int]]:
    """Return where the output starts in the full result, and its sizes; beyond the full result there are zeros."""
    rank = len(sizes)
    custom = [0] * (2 * rank) if pad is None or kind != "custom" else integers(pad)
    if len(custom) != 2 * rank or min(custom) < 0:
        raise RefusedError(f"padding must be {2 * rank} numbers that are not negative")
    if kind == "same":
        extents = [size * s for size, s in zip(sizes, steps, strict=True)]
        starts = [max(0, f - w) // 2 for f, w in zip(full, extents, strict=True)]
    elif kind in ("valid", "custom"):
        starts = custom[::2]
        extents = [f - before - after for f, before, after in zip(full, starts, custom[1::2], strict=True)]
    else:
        raise RefusedError(f"pad_type {kind!r} is not known; the spec has valid, same and custom")
    if output_shape is not None:
        extents = integers(output_shape)[2:]
    if len(extents) != rank or min(extents, default=1) < 1:
        raise RefusedError(f"the output would have the spatial sizes {extents}")
    return starts, extents


CONVOLUTION: dict[str, Kernel] = {
    "conv": arithmetic(conv),
    "conv_quantized": arithmetic(conv_quantized),
    "conv_transpose": arithmetic(conv_transpose),
}
