"""Operations that rearrange a tensor (MIL tensor_transformation)."""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, axes_of, axis_of, integers, movement


def reshape(env: Env, x: np.ndarray, shape: np.ndarray) -> Any:
    """Reshape; -1 is inferred, and 0 copies a size of x: at the same place, from iOS 17 on counted from the right."""
    return x.reshape(_target(env, x.shape, integers(shape)))


def _target(env: Env, source: tuple[int, ...], shape: list[int]) -> tuple[int, ...]:
    if 0 in shape:
        if env.opset >= 17:
            offset = len(source) - len(shape)
            shape = [
                size if size else source[offset + place] if offset + place >= 0 else 1
                for place, size in enumerate(shape)
            ]
        elif len(shape) == len(source):
            shape = [size or source[place] for place, size in enumerate(shape)]
        else:
            raise RefusedError(
                f"0 in shape {shape} copies a size of x only if the ranks agree; x has rank {len(source)}"
            )
    return tuple(shape)


def reshape_like(
    x: np.ndarray,
    ref_tensors: list[np.ndarray],
    begins: list[np.ndarray],
    ends: list[np.ndarray],
    end_masks: list[np.ndarray],
) -> Any:
    """Reshape to the joined parts [begin:end] of the shapes of the reference tensors; a masked end is open."""
    shape: list[int] = []
    for reference, begin, end, mask in zip(ref_tensors, begins, ends, end_masks, strict=True):
        shape.extend(reference.shape[int(begin) : None if bool(mask) else int(end)])
    return x.reshape(shape)


def transpose(x: np.ndarray, perm: np.ndarray) -> Any:
    """Permute the axes."""
    return x.transpose(integers(perm))


def expand_dims(x: np.ndarray, axes: np.ndarray) -> Any:
    """Insert axes of size one; `axes` are positions in the result."""
    inserted = axes_of(axes, x.ndim + np.size(axes))
    sizes = iter(x.shape)
    return x.reshape([1 if axis in inserted else next(sizes) for axis in range(x.ndim + len(inserted))])


def squeeze(x: np.ndarray, axes: np.ndarray | None = None) -> Any:
    """Remove axes of size one, all of them by default; as in the spec, named axes of other sizes stay."""
    named = range(x.ndim) if axes is None else axes_of(axes, x.ndim)
    return x.reshape([size for axis, size in enumerate(x.shape) if axis not in named or size != 1])


def flatten2d(x: np.ndarray, axis: Any = 1) -> Any:
    """Join the axes before `axis` and those from it on."""
    place = int(axis)
    if not -x.ndim <= place <= x.ndim:
        raise RefusedError(f"axis {place} is out of range for rank {x.ndim}")
    return x.reshape(math.prod(x.shape[:place]), math.prod(x.shape[place:]))


def reverse(x: np.ndarray, axes: np.ndarray | None = None) -> Any:
    """Reverse along `axes`, all of them by default."""
    return np.flip(x, None if axes is None else axes_of(axes, x.ndim))


def reverse_sequence(x: np.ndarray, lengths: np.ndarray, seq_axis: Any = 0, batch_axis: Any = 0) -> Any:
    """Reverse the first lengths[i] elements along `seq_axis` of the i-th slice along `batch_axis`."""
    sequence, batch = axis_of(seq_axis, x.ndim), axis_of(batch_axis, x.ndim)
    size = x.shape[sequence]
    if sequence == batch or lengths.shape != (x.shape[batch],):
        raise RefusedError(f"lengths {list(lengths.shape)}, seq_axis {sequence} and batch_axis {batch} do not fit")
    if lengths.size and (int(lengths.min()) < 0 or int(lengths.max()) > size):
        raise RefusedError(f"lengths must lie in 0..{size}")
    steps, ends = np.arange(size), lengths.astype(np.int64)[:, None]
    source = np.where(steps < ends, ends - 1 - steps, steps)  # [batch, sequence]
    shape = [1] * x.ndim
    shape[batch], shape[sequence] = x.shape[batch], size
    return np.take_along_axis(x, (source if batch < sequence else source.T).reshape(shape), sequence)


def sliding_windows(x: np.ndarray, axis: Any, size: Any, stride: Any = 1) -> Any:
    """Windows of `size` elements every `stride` along `axis`; the elements of a window get the axis after it."""
    place, width, step = axis_of(axis, x.ndim), int(size), int(stride)
    if not 1 <= width <= x.shape[place] or step < 1:
        raise RefusedError(f"windows of {width} every {step} do not fit an axis of {x.shape[place]}")
    windows = np.lib.stride_tricks.sliding_window_view(x, width, place)
    every = (*(slice(None),) * place, slice(None, None, step))
    return np.moveaxis(windows[every], -1, place + 1)


def depth_to_space(x: np.ndarray, block_size: Any) -> Any:
    """[n, b*b*C, H, W] -> [n, C, b*H, b*W]; the block position is the slower part of the channel."""
    (n, c, h, w), b = _image(x), _factor(block_size)
    return x.reshape(n, b, b, c // (b * b), h, w).transpose(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: np.ndarray, block_size: Any) -> Any:
    """[n, C, b*H, b*W] -> [n, b*b*C, H, W]; the inverse of depth_to_space."""
    (n, c, h, w), b = _image(x), _factor(block_size)
    return x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def pixel_shuffle(x: np.ndarray, upscale_factor: Any) -> Any:
    """[n, C*f*f, H, W] -> [n, C, f*H, f*W]; the position in the block is the faster part of the channel."""
    (n, c, h, w), f = _image(x), _factor(upscale_factor)
    return x.reshape(n, c // (f * f), f, f, h, w).transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (f * f), h * f, w * f)


def pixel_unshuffle(x: np.ndarray, downscale_factor: Any) -> Any:
    """[n, C, f*H, f*W] -> [n, C*f*f, H, W]; the inverse of pixel_shuffle."""
    (n, c, h, w), f = _image(x), _factor(downscale_factor)
    return x.reshape(n, c, h // f, f, w // f, f).transpose(0, 1, 3, 5, 2, 4).reshape(n, c * f * f, h // f, w // f)


def space_to_batch(env: Env, x: np.ndarray, block_shape: np.ndarray, paddings: np.ndarray) -> Any:
    """Pad [n, C, H, W] with zeros and move the blocks' positions to the front of the batch."""
    (n, c, _, _), (rows, columns) = _image(x), _pair(block_shape)
    env.reserve(
        [size + sum(pad) for size, pad in zip(x.shape, [[0], [0], *paddings.tolist()], strict=True)], x.itemsize
    )
    padded = np.pad(x, ((0, 0), (0, 0), *map(tuple, paddings.tolist())))
    height, width = padded.shape[2] // rows, padded.shape[3] // columns
    blocks = padded.reshape(n, c, height, rows, width, columns).transpose(3, 5, 0, 1, 2, 4)
    return blocks.reshape(n * rows * columns, c, height, width)


def batch_to_space(x: np.ndarray, block_shape: np.ndarray, crops: np.ndarray) -> Any:
    """Move the front of the batch into blocks of the image and crop it; the inverse of space_to_batch."""
    (n, c, h, w), (rows, columns) = _image(x), _pair(block_shape)
    image = x.reshape(rows, columns, n // (rows * columns), c, h, w).transpose(2, 3, 4, 0, 5, 1)
    image = image.reshape(n // (rows * columns), c, h * rows, w * columns)
    (top, bottom), (left, right) = crops.tolist()
    if min(top, bottom, left, right) < 0:
        raise RefusedError("crops are negative")
    return image[:, :, top : h * rows - bottom, left : w * columns - right]


def _image(x: np.ndarray) -> tuple[int, ...]:
    if x.ndim != 4:
        raise RefusedError(f"x must have rank 4, not {x.ndim}")
    return x.shape


def _factor(value: Any) -> int:
    factor = int(value)
    if factor < 1:
        raise RefusedError(f"a block of size {factor} is none")
    return factor


def _pair(value: np.ndarray) -> tuple[int, int]:
    rows, columns = (_factor(size) for size in integers(value))
    return rows, columns


TRANSFORMATION: dict[str, Kernel] = {
    "reshape": movement(reshape),
    "reshape_like": movement(reshape_like, "ref_tensors", "begins", "ends", "end_masks"),
    "transpose": movement(transpose),
    "expand_dims": movement(expand_dims),
    "squeeze": movement(squeeze),
    "flatten2d": movement(flatten2d),
    "reverse": movement(reverse),
    "reverse_sequence": movement(reverse_sequence),
    "sliding_windows": movement(sliding_windows),
    "depth_to_space": movement(depth_to_space),
    "space_to_depth": movement(space_to_depth),
    "pixel_shuffle": movement(pixel_shuffle),
    "pixel_unshuffle": movement(pixel_unshuffle),
    "space_to_batch": movement(space_to_batch),
    "batch_to_space": movement(batch_to_space),
}
