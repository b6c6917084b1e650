"""Quantised tensors and compressed constants (MIL quantization_ops, constexpr_ops, compression)."""

import math
from typing import Any

import numpy as np

from exporter.mil.blob import unpack
from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, axis_of, integers, movement
from exporter.mil.ops.elementwise import round_
from exporter.mil.types import DTYPE_NAMES


def _along(values: np.ndarray, data: np.ndarray, axis: Any) -> np.ndarray:
    """Give a scalar or a vector along `axis` the rank of `data`."""
    if values.ndim == 0 or values.size == 1:
        return values.reshape(())
    if values.ndim != 1 or axis is None:
        raise RefusedError(f"parameters of shape {list(values.shape)} need an axis and must be vectors")
    place = axis_of(axis, data.ndim)
    if values.shape[0] != data.shape[place]:
        raise RefusedError(f"{values.shape[0]} parameters do not fit axis {place} of {list(data.shape)}")
    return values.reshape(-1, *(1,) * (data.ndim - place - 1))


def quantize(
    env: Env,
    input: np.ndarray,
    scale: np.ndarray,
    output_dtype: str,
    zero_point: np.ndarray | None = None,
    axis: Any = None,
) -> Any:
    """clip(round(input / scale) + zero_point) to int8 or uint8."""
    if output_dtype not in ("int8", "uint8"):
        raise RefusedError(f"quantize makes int8 or uint8, not {output_dtype!r}")
    steps = round_(env, input / _along(scale, input, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, input, axis).astype(steps.dtype)
    bounds = np.iinfo(output_dtype)
    return np.clip(np.nan_to_num(steps, nan=0.0), bounds.min, bounds.max).astype(output_dtype)


def dequantize(input: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None = None, axis: Any = None) -> Any:
    """scale * (input - zero_point)."""
    data = input.astype(scale.dtype)
    if zero_point is not None:
        data = data - _along(zero_point, input, axis).astype(scale.dtype)
    return data * _along(scale, input, axis)


def constexpr_affine_dequantize(
    quantized_data: np.ndarray, zero_point: np.ndarray, scale: np.ndarray, axis: Any
) -> Any:
    """scale * (quantized_data - zero_point), the parameters scalars or vectors along `axis`."""
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_cast(source_val: np.ndarray, output_dtype: str) -> Any:
    """A float16 constant as float32."""
    if DTYPE_NAMES.get(output_dtype, output_dtype) != "float32":
        raise RefusedError(f"constexpr_cast makes fp32, not {output_dtype!r}")
    return source_val.astype(np.float32)


def constexpr_lut_to_dense(
    env: Env, indices: np.ndarray, lut: np.ndarray, shape: np.ndarray | None = None, vector_axis: Any = None
) -> Any:
    """Look indices up in tables.

    Up to iOS 17 `indices` are packed bits for `shape` and the table is [palettes]; from iOS 18 on there is a table
    [.., palettes, vector] for each block of indices, and a vector's elements follow each other along `vector_axis`.
    """
    if shape is not None:
        sizes = integers(shape)
        bits = lut.size.bit_length() - 1
        if lut.ndim != 1 or lut.size not in (2, 4, 16, 64, 256) or indices.ndim != 1:
            raise RefusedError(f"a table of shape {list(lut.shape)} is none of 2, 4, 16, 64 or 256 elements")
        env.reserve(sizes, max(lut.itemsize, 8))
        return lut[unpack(indices.view(np.uint8), bits, math.prod(sizes), signed=False)].reshape(sizes)
    return _from_tables(env, indices, lut, vector_axis)


def _from_tables(env: Env, indices: np.ndarray, lut: np.ndarray, vector_axis: Any) -> Any:
    rank, palettes, width = indices.ndim, lut.shape[-2] if lut.ndim > 1 else 0, lut.shape[-1] if lut.ndim else 0
    if lut.ndim != rank + 2 or any(not b or a % b for a, b in zip(indices.shape, lut.shape, strict=False)):
        raise RefusedError(f"tables of shape {list(lut.shape)} do not fit indices {list(indices.shape)}")
    if indices.size and int(indices.max()) >= palettes:
        raise RefusedError(f"an index is {int(indices.max())}, beyond a table of {palettes}")
    env.reserve([indices.size, width], 8)
    # Number the table of every index: one place value per axis, repeated over the block that shares it.
    table = np.zeros((1,) * rank, np.int64)
    for axis, (size, blocks) in enumerate(zip(indices.shape, lut.shape, strict=False)):
        step = np.arange(size) // (size // blocks) if size else np.arange(0)
        table = table * blocks + step.reshape(-1, *(1,) * (rank - axis - 1))
    picked = lut.reshape(-1, palettes, width)[np.broadcast_to(table, indices.shape), indices]  # [.., width]
    if width == 1:
        return picked[..., 0]
    if vector_axis is None:
        raise RefusedError("a table of vectors needs vector_axis")
    place = axis_of(vector_axis, rank)
    shape = list(indices.shape)
    shape[place] *= width
    return np.moveaxis(picked, -1, place + 1).reshape(shape)


def constexpr_sparse_to_dense(
    env: Env, nonzero_data: np.ndarray, mask: np.ndarray, shape: np.ndarray | None = None
) -> Any:
    """Put the values where the mask is set and zeros elsewhere; up to iOS 17 the mask is packed bits for `shape`."""
    if shape is not None:
        sizes = integers(shape)
        env.reserve(sizes, max(nonzero_data.itemsize, 8))
        mask = unpack(mask.view(np.uint8), 1, math.prod(sizes), signed=False).reshape(sizes)
    return _spread(nonzero_data, mask)


def _spread(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    places = mask != 0
    if values.ndim != 1 or int(np.count_nonzero(places)) != values.size:
        raise RefusedError(f"a mask of {int(np.count_nonzero(places))} set bits does not fit {values.size} values")
    dense = np.zeros(mask.shape, values.dtype)
    dense[places] = values
    return dense


def _shift_scale(data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None) -> np.ndarray:
    if data.ndim != scale.ndim or any(not b or a % b for a, b in zip(data.shape, scale.shape, strict=True)):
        raise RefusedError(f"scales of shape {list(scale.shape)} do not fit data {list(data.shape)}")
    if offset is not None and offset.shape != scale.shape:
        raise RefusedError(f"offsets of shape {list(offset.shape)} do not fit scales of {list(scale.shape)}")
    # Split every axis into (blocks, block) so that a scale is broadcast over its block without being repeated.
    split = [part for a, b in zip(data.shape, scale.shape, strict=True) for part in (b, a // b)]
    column = [part for b in scale.shape for part in (b, 1)]
    blocks = data.reshape(split).astype(scale.dtype)
    if offset is not None:
        blocks = blocks - offset.reshape(column).astype(scale.dtype)
    result: np.ndarray = (blocks * scale.reshape(column)).reshape(data.shape)
    return result


def constexpr_blockwise_shift_scale(data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None) -> Any:
    """scale * (data - offset) with one scale and offset per block, data.shape / scale.shape being the block's size."""
    return _shift_scale(data, scale, offset)


def constexpr_sparse_blockwise_shift_scale(
    data_mask: np.ndarray, nonzero_data: np.ndarray, scale: np.ndarray, offset: np.ndarray | None = None
) -> Any:
    """Shift and scale the set elements by their places in the dense tensor; returns the mask and the new values."""
    return data_mask, _shift_scale(_spread(nonzero_data, data_mask), scale, offset)[data_mask != 0]


def constexpr_lut_to_sparse(
    env: Env, indices_mask: np.ndarray, indices_nonzero_data: np.ndarray, lut: np.ndarray, vector_axis: Any = None
) -> Any:
    """Look the set elements up by their places in the dense tensor; returns the mask and the new values."""
    dense = _from_tables(env, _spread(indices_nonzero_data, indices_mask), lut, vector_axis)
    mask = indices_mask
    if lut.shape[-1] > 1:
        mask = np.repeat(mask, lut.shape[-1], axis_of(vector_axis, mask.ndim))
    return mask, dense[mask != 0]


QUANTIZATION: dict[str, Kernel] = {
    "quantize": arithmetic(quantize),
    "dequantize": arithmetic(dequantize),
    "constexpr_affine_dequantize": arithmetic(constexpr_affine_dequantize),
    "constexpr_blockwise_shift_scale": arithmetic(constexpr_blockwise_shift_scale),
    "constexpr_cast": movement(constexpr_cast),
    "constexpr_lut_to_dense": movement(constexpr_lut_to_dense),
    "constexpr_lut_to_sparse": movement(constexpr_lut_to_sparse),
    "constexpr_sparse_blockwise_shift_scale": arithmetic(constexpr_sparse_blockwise_shift_scale),
    "constexpr_sparse_to_dense": movement(constexpr_sparse_to_dense),
}
