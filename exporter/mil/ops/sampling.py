"""Sampling of images at computed points: resample, affine and crop_resize (MIL image_resizing)."""

from typing import Any

import numpy as np

from exporter.mil.kernel import Env, Kernel, RefusedError, arithmetic, integers
from exporter.mil.ops.grids import grid


def _pixels(points: np.ndarray, size: int, mode: str, align: bool) -> np.ndarray:
    """Turn coordinates of the given mode into pixel positions, 0 being the centre of the first pixel."""
    if mode == "unnormalized":
        return points
    if mode not in ("normalized_minus_one_to_one", "normalized_zero_to_one"):
        raise RefusedError(f"coordinates mode {mode!r} is not known")
    share = (points + 1) / 2 if mode == "normalized_minus_one_to_one" else points
    return share * (size - 1) if align else share * size - 0.5


def _folded(pixels: np.ndarray, size: int, padding: str) -> np.ndarray:
    """Bring positions outside of the image back into it, for the padding modes that do so."""
    if padding == "constant":
        return pixels
    if padding == "reflection":
        pixels = _reflected(pixels, 0.0, size - 1.0)
    elif padding == "symmetric":
        pixels = _reflected(pixels, -0.5, size - 0.5)
    elif padding != "border":
        raise RefusedError(
            f"padding mode {padding!r} is not known; the spec has constant, border, reflection, symmetric"
        )
    folded: np.ndarray = np.clip(pixels, 0, size - 1)
    return folded


def _reflected(pixels: np.ndarray, low: float, high: float) -> np.ndarray:
    span = high - low
    if span <= 0:
        return np.zeros_like(pixels)
    away = np.abs(pixels - low) % (2 * span)
    reflected: np.ndarray = low + np.minimum(away, 2 * span - away)
    return reflected


def _tap(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: Any) -> np.ndarray:
    """Take x[b, :, rows, columns], or `outside` where that is no pixel: [B, C, H, W] at [B, h, w] -> [B, C, h, w]."""
    height, width = x.shape[2:]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    batch = np.arange(x.shape[0]).reshape(-1, 1, 1)
    r = np.clip(np.nan_to_num(rows), 0, height - 1).astype(np.int64)
    c = np.clip(np.nan_to_num(columns), 0, width - 1).astype(np.int64)
    taken = np.moveaxis(x[batch, :, r, c], -1, 1)
    result: np.ndarray = np.where(inside[:, None], taken, outside)
    return result


def _sample(x: np.ndarray, rows: np.ndarray, columns: np.ndarray, nearest: bool, outside: Any) -> np.ndarray:
    """Sample [B, C, H, W] at pixel positions [B, h, w]; a bilinear tap outside of the image counts as `outside`."""
    if nearest:
        return _tap(x, np.rint(rows), np.rint(columns), outside)
    top, left = np.floor(rows), np.floor(columns)
    down, right = rows - top, columns - left
    result = np.zeros((x.shape[0], x.shape[1], *rows.shape[1:]), x.dtype)
    for row, row_share in ((top, 1 - down), (top + 1, down)):
        for column, column_share in ((left, 1 - right), (left + 1, right)):
            share = (row_share * column_share).astype(x.dtype)[:, None]
            result += share * _tap(x, row, column, outside)
    return result


def resample(
    env: Env,
    x: np.ndarray,
    coordinates: np.ndarray,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: bool,
) -> Any:
    """Sample [B, C, H, W] at coordinates [B, h, w, 2] given as (x, y) -> [B, C, h, w]."""
    if x.ndim != 4 or coordinates.ndim != 4 or coordinates.shape[0] != x.shape[0] or coordinates.shape[3] != 2:
        raise RefusedError(f"x {list(x.shape)} and coordinates {list(coordinates.shape)} do not fit")
    if sampling_mode not in ("bilinear", "nearest"):
        raise RefusedError(f"sampling mode {sampling_mode!r} is not known; the spec has bilinear and nearest")
    env.reserve([x.shape[0], x.shape[1], *coordinates.shape[1:3]], 8)
    points = coordinates.astype(np.float64)
    align = bool(align_corners)
    columns = _folded(_pixels(points[..., 0], x.shape[3], coordinates_mode, align), x.shape[3], padding_mode)
    rows = _folded(_pixels(points[..., 1], x.shape[2], coordinates_mode, align), x.shape[2], padding_mode)
    nearest = sampling_mode == "nearest"
    if nearest and any((np.abs(pixels % 1) == 0.5).any() for pixels in (rows, columns)):
        env.doubt("a point is halfway between two pixels; here the one of even number is taken")
    return _sample(x, rows, columns, nearest, x.dtype.type(padding_value))


def affine(
    env: Env,
    x: np.ndarray,
    transform_matrix: np.ndarray,
    output_height: Any,
    output_width: Any,
    sampling_mode: str,
    padding_mode: str,
    padding_value: Any,
    coordinates_mode: str,
    align_corners: bool,
) -> Any:
    """Sample [B, C, H, W] where the matrices [B or 1, 6] send the output's coordinates, (x, y) in [-1, 1]."""
    height, width = int(output_height), int(output_width)
    if transform_matrix.ndim != 2 or transform_matrix.shape[1] != 6 or transform_matrix.shape[0] not in (1, x.shape[0]):
        raise RefusedError(f"transform_matrix {list(transform_matrix.shape)} does not fit x {list(x.shape)}")
    if min(height, width) < 1:
        raise RefusedError(f"an output of {height} x {width} is none")
    env.reserve([x.shape[0], x.shape[1], height, width], 8)
    across, down = (_positions(size, bool(align_corners)) for size in (width, height))
    matrix = transform_matrix.astype(np.float64)[:, :, None, None]
    points = [matrix[:, i] * across + matrix[:, i + 1] * down[:, None] + matrix[:, i + 2] for i in (0, 3)]
    coordinates = np.broadcast_to(np.stack(points, -1), (x.shape[0], height, width, 2))
    return resample(
        env, x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, bool(align_corners)
    )


def _positions(size: int, align: bool) -> np.ndarray:
    if align:
        return np.linspace(-1.0, 1.0, size) if size > 1 else np.zeros(1)
    positions: np.ndarray = (np.arange(size) * 2 + 1) / size - 1
    return positions


def crop_resize(
    env: Env,
    x: np.ndarray,
    roi: np.ndarray | None = None,
    boxes: np.ndarray | None = None,
    box_indices: np.ndarray | None = None,
    target_height: Any = 1,
    target_width: Any = 1,
    normalized_coordinates: bool = False,
    spatial_scale: Any = 1.0,
    box_coordinate_mode: str = "CORNERS_HEIGHT_FIRST",
    sampling_mode: str = "DEFAULT",
    pad_value: Any = 0.0,
) -> Any:
    """Cut boxes out of [B, C, H, W] and resize each bilinearly; a point beyond the image is `pad_value`.

    From iOS 17 on `boxes` [N, 4] with `box_indices` [N] give [N, C, h, w]; before, `roi` [N, 1, 4, 1, 1] gives
    [N, B, C, h, w] and `roi` [N, 1, 5, 1, 1], whose first number is the image, [N, 1, C, h, w].
    """
    if (roi is None) == (boxes is None) or x.ndim != 4:
        raise RefusedError("crop_resize wants x of rank 4 and boxes (iOS 17) or roi (earlier)")
    channels = x.shape[1]
    corners, images, images_per_roi = _boxes_and_images(roi, boxes, box_indices, x.shape[0])
    height, width = int(target_height), int(target_width)
    env.reserve([len(images), channels, max(height, x.shape[2]), max(width, x.shape[3])], 8)
    box = _corners(corners.astype(np.float64), box_coordinate_mode) * float(spatial_scale)
    if normalized_coordinates:
        box = box * np.array([x.shape[2] - 1, x.shape[3] - 1] * 2)
    # Apple's tests want the whole image for such a box, against the spec.
    if (
        roi is not None
        and normalized_coordinates
        and ((box < 0).any() or (box > np.array([x.shape[2] - 1, x.shape[3] - 1] * 2)).any())
    ):
        env.doubt("a normalised box reaches beyond the image; here what is beyond is pad_value")
    rows = grid(sampling_mode, box[:, 0], box[:, 2], height)
    columns = grid(sampling_mode, box[:, 1], box[:, 3], width)
    result = _crops(x, images, rows, columns, x.dtype.type(pad_value))
    if roi is None:
        return result
    return result.reshape(np.asarray(roi).shape[0], images_per_roi, channels, height, width)


def _boxes_and_images(
    roi: np.ndarray | None, boxes: np.ndarray | None, box_indices: np.ndarray | None, batch: int
) -> tuple[np.ndarray, np.ndarray, int]:
    """Return boxes [M, 4], the image [M] that each is cut from, and how many images a roi of crop_resize is cut from.

    Raises RefusedError for other shapes, and for images that are not there.
    """
    rows = boxes if boxes is not None else np.asarray(roi).reshape(np.asarray(roi).shape[0], -1)
    count = rows.shape[0]
    if rows.shape[1:] not in ((4,), (5,)) or (boxes is not None and rows.shape[1] != 4):
        raise RefusedError(f"boxes of shape {list(rows.shape)} are not understood")
    images_per_roi = 1
    if rows.shape[1] == 5:
        images = rows[:, 0].astype(np.int64)
    elif roi is not None:
        images_per_roi = batch
        images = np.tile(np.arange(batch), count)
        rows = np.repeat(rows, batch, 0)
    else:
        images = np.arange(count) if box_indices is None else np.asarray(integers(box_indices), np.int64)
    if images.shape[0] != rows.shape[0] or (images.size and not 0 <= int(images.min()) <= int(images.max()) < batch):
        raise RefusedError(f"the boxes name images outside of a batch of {batch}")
    return rows[:, -4:], images, images_per_roi


def _corners(boxes: np.ndarray, mode: str) -> np.ndarray:
    """Return [N, 4] as (top, left, bottom, right)."""
    order = {"HEIGHT": [0, 1, 2, 3], "WIDTH": [1, 0, 3, 2]}
    kind, _, first = mode.removesuffix("_FIRST").rpartition("_")
    if kind not in ("CORNERS", "CENTER_SIZE") or first not in order:
        raise RefusedError(f"box coordinate mode {mode!r} is not known")
    box = boxes[:, order[first]]
    if kind == "CORNERS":
        return box
    centre, half = box[:, :2], box[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _crops(x: np.ndarray, images: np.ndarray, rows: np.ndarray, columns: np.ndarray, outside: Any) -> np.ndarray:
    height, width = x.shape[2:]
    beyond = ((rows < 0) | (rows > height - 1))[:, :, None] | ((columns < 0) | (columns > width - 1))[:, None, :]
    r, c = np.clip(rows, 0, height - 1), np.clip(columns, 0, width - 1)
    shape = (len(images), r.shape[1], c.shape[1])
    sampled = _sample(
        x[images], np.broadcast_to(r[:, :, None], shape), np.broadcast_to(c[:, None, :], shape), False, x.dtype.type(0)
    )
    result: np.ndarray = np.where(beyond[:, None], outside, sampled)
    return result


SAMPLING: dict[str, Kernel] = {
    "resample": arithmetic(resample),
    "affine": arithmetic(affine),
    "crop_resize": arithmetic(crop_resize),
}
