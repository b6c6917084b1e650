"""Resizing and cropping of the last axes (MIL image_resizing)."""

import math
from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, integers, movement
from exporter.mil.ops.grids import axis_grid, linear


def _image(x: np.ndarray) -> tuple[int, int]:
    if x.ndim < 3:
        raise RefusedError(f"x must have rank 3 or more, not {x.ndim}")
    return x.shape[-2], x.shape[-1]


def _linear(env: Env, x: np.ndarray, sizes: list[int], mode: str) -> np.ndarray:
    """Resize the last axes of x to `sizes`, one axis after the other."""
    env.reserve([*x.shape[: x.ndim - len(sizes)], *map(max, sizes, x.shape[x.ndim - len(sizes) :])], x.itemsize)
    for axis, size in enumerate(sizes, x.ndim - len(sizes)):
        x = linear(x, axis, axis_grid(mode, x.shape[axis], size))
    return x


def _nearest(env: Env, x: np.ndarray, places: list[np.ndarray]) -> np.ndarray:
    """Take the elements at `places` of the last axes."""
    first = x.ndim - len(places)
    env.reserve([*x.shape[:first], *(max(len(p), size) for p, size in zip(places, x.shape[first:], strict=True))])
    for axis, place in enumerate(places, first):
        x = x.take(np.clip(place, 0, x.shape[axis] - 1), axis)
    return x


def _floor_places(size: int, count: int) -> np.ndarray:
    if count < 1:
        raise RefusedError(f"a target size of {count} is none")
    return np.arange(count) * size // count


def resize_bilinear(
    env: Env, x: np.ndarray, target_size_height: Any = 1, target_size_width: Any = 1, sampling_mode: str = "DEFAULT"
) -> Any:
    """Resize the last two axes linearly to the target sizes."""
    _image(x)
    return _linear(env, x, [int(target_size_height), int(target_size_width)], sampling_mode)


def resize_nearest_neighbor(env: Env, x: np.ndarray, target_size_height: Any, target_size_width: Any) -> Any:
    """Resize the last two axes to the target sizes; output i takes the input at floor(i * size / target)."""
    height, width = _image(x)
    return _nearest(
        env, x, [_floor_places(height, int(target_size_height)), _floor_places(width, int(target_size_width))]
    )


def upsample_nearest_neighbor(
    env: Env, x: np.ndarray, scale_factor_height: Any = 1, scale_factor_width: Any = 1
) -> Any:
    """Scale the last two axes; output i takes the input at floor(i * size / target), the target being rounded down.

    The scale itself is not used again: coremltools writes it a little too large to survive the rounding.
    """
    height, width = _image(x)
    targets = _scaled(height, float(scale_factor_height)), _scaled(width, float(scale_factor_width))
    return _nearest(env, x, [_floor_places(height, targets[0]), _floor_places(width, targets[1])])


def upsample_bilinear(
    env: Env,
    x: np.ndarray,
    scale_factor_height: Any = 1,
    scale_factor_width: Any = 1,
    align_corners: bool = True,
    half_pixel_centers: Any = None,
) -> Any:
    """Scale the last two axes linearly; the spacing follows from the rounded output sizes."""
    height, width = _image(x)
    sizes = [_scaled(height, float(scale_factor_height)), _scaled(width, float(scale_factor_width))]
    half = not align_corners if half_pixel_centers is None else bool(half_pixel_centers)
    if align_corners and half:
        raise RefusedError("align_corners and half_pixel_centers exclude each other")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "UNALIGN_CORNERS" if half else "DEFAULT"
    return _linear(env, x, sizes, mode)


def _scaled(size: int, scale: float) -> int:
    if not (math.isfinite(scale) and scale > 0 and size * scale < 1 << 31):
        raise RefusedError(f"a scale of {scale} for an axis of {size} is none")
    return math.floor(size * scale)


def resize(
    env: Env,
    x: np.ndarray,
    shape: np.ndarray,
    resized_dims: Any,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Any:
    """Resize the last `resized_dims` axes to the end of `shape`, where 0 keeps the size of x."""
    target, count = integers(shape), int(resized_dims)
    if not 0 <= count <= min(len(target), x.ndim):
        raise RefusedError(f"{count} sizes cannot be taken from shape {target} for rank {x.ndim}")
    kept = x.shape[x.ndim - count :]
    sizes = [size or old for size, old in zip(target[len(target) - count :], kept, strict=True)]
    if interpolation_mode == "NEAREST_NEIGHBOR":
        # Unlike resize_nearest_neighbor this one rounds; a point halfway goes to the lower element.
        points = [axis_grid(sampling_mode, old, size) for old, size in zip(kept, sizes, strict=True)]
        return _nearest(env, x, [np.ceil(point - 0.5).astype(np.int64) for point in points])
    if interpolation_mode != "LINEAR":
        raise RefusedError(f"interpolation {interpolation_mode!r} is not known; the spec has LINEAR, NEAREST_NEIGHBOR")
    result = _linear(env, x if x.dtype.kind == "f" else x.astype(np.float32), sizes, sampling_mode)
    if x.dtype.kind != "f" and (result % 1 != 0).any():
        env.doubt("the result for whole numbers is not whole; here it is rounded towards zero")
    return result.astype(x.dtype)


def crop(x: np.ndarray, crop_height: np.ndarray, crop_width: np.ndarray) -> Any:
    """Cut the given numbers of rows and columns off both ends of the last two axes."""
    height, width = _image(x)
    (top, bottom), (left, right) = integers(crop_height), integers(crop_width)
    if min(top, bottom, left, right) < 0 or top + bottom > height or left + right > width:
        raise RefusedError(f"cropping {top}, {bottom}, {left} and {right} does not fit {height} x {width}")
    return x[..., top : height - bottom, left : width - right]


RESIZING: dict[str, Kernel] = {
    "resize_bilinear": arithmetic(resize_bilinear),
    "resize_nearest_neighbor": movement(resize_nearest_neighbor),
    "upsample_nearest_neighbor": movement(upsample_nearest_neighbor),
    "upsample_bilinear": arithmetic(upsample_bilinear),
    "resize": arithmetic(resize),
    "crop": movement(crop),
}
