"""Resizing, cropping and sampling of images."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats


def _interpolate(**options):
    def run(x, *_):
        import torch

        return torch.nn.functional.interpolate(x, **options)

    return run


def _points(mode, size, count):
    """The sampling points of the spec's documentation of resize_bilinear, as it states them."""
    i = np.arange(count, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if count == 1:
            return np.array([0.0 if mode == "STRICT_ALIGN_CORNERS" else (size - 1) / 2])
        points = i * (size - 1) / (count - 1)
    elif mode == "DEFAULT":
        points = i * ((size - size / count) / (count - 1) if count > 1 else 0.0)
    elif mode == "OFFSET_CORNERS":
        delta = max(1, size - 1) / count
        points = 0.5 * delta + i * delta
    else:
        points = i * size / count + 0.5 * size / count - 0.5
    return np.minimum(size - 1, np.maximum(0, points))


def _by_points(height, width, mode):
    """Let torch's grid_sample interpolate at given points: an independent interpolation."""

    def run(x, *_):
        import torch

        rows, columns = (_points(mode, size, count) for size, count in zip(x.shape[-2:], (height, width), strict=True))
        scale = [2 / max(size - 1, 1) for size in x.shape[-2:]]
        grid = np.stack(np.meshgrid(columns * scale[1] - 1, rows * scale[0] - 1), -1)
        flat = x.reshape(1, -1, *x.shape[-2:])
        grid = torch.from_numpy(grid.astype(np.float32))[None]
        sampled = torch.nn.functional.grid_sample(flat, grid, align_corners=True, padding_mode="border")
        return sampled.reshape(*x.shape[:-2], height, width)

    return run


MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")


def _cases():
    x = floats(2, 3, 4, 5)
    for mode in MODES:
        for height, width in ((7, 9), (2, 3), (4, 5), (1, 6)):
            sizes = {
                "target_size_height": np.int32(height),
                "target_size_width": np.int32(width),
                "sampling_mode": mode,
            }
            judge = _by_points(height, width, mode)
            yield Case(f"resize_bilinear-{mode}-{height}", "resize_bilinear", {"x": x}, sizes, judge, tolerance=1e-4)
            shape = {"shape": np.int32([height, width]), "resized_dims": np.uint32(2), "sampling_mode": mode}
            yield Case(f"resize-{mode}-{height}", "resize", {"x": x}, shape, judge, since=17, tolerance=1e-4)
    judge = _interpolate(size=(7, 3), mode="bilinear", align_corners=False)
    sizes = {"target_size_height": np.int32(7), "target_size_width": np.int32(3), "sampling_mode": "UNALIGN_CORNERS"}
    yield Case("resize_bilinear-torch", "resize_bilinear", {"x": x}, sizes, judge)
    for height, width in ((7, 9), (2, 3), (8, 10)):
        sizes = {"target_size_height": np.int32(height), "target_size_width": np.int32(width)}
        judge = _interpolate(size=(height, width), mode="nearest")
        yield Case(f"resize_nearest-{height}", "resize_nearest_neighbor", {"x": x}, sizes, judge)
    yield Case(
        "resize-rank5",
        "resize",
        {"x": floats(1, 2, 3, 4, 5)},
        {"shape": np.int32([1, 8, 10]), "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
        lambda x: _interpolate(size=(8, 10), mode="bilinear")(x[0])[None],
        since=17,
    )
    yield Case(
        "resize-keeps",
        "resize",
        {"x": x},
        {"shape": np.int32([0, 10]), "resized_dims": np.uint32(2), "sampling_mode": "UNALIGN_CORNERS"},
        _interpolate(size=(4, 10), mode="bilinear"),
        since=17,
    )
    for number, (up, across) in enumerate([(2, 3), (1, 1), (3, 2)]):
        scales = {"scale_factor_height": np.int32(up), "scale_factor_width": np.int32(across)}
        judge = _interpolate(scale_factor=(float(up), float(across)), mode="nearest")
        yield Case(f"upsample_nearest-{number}", "upsample_nearest_neighbor", {"x": x}, scales, judge)
        for corners in (False, True):
            judge = _interpolate(scale_factor=(float(up), float(across)), mode="bilinear", align_corners=corners)
            constants = {**scales, "align_corners": corners}
            yield Case(f"upsample_bilinear-{number}-{corners}", "upsample_bilinear", {"x": x}, constants, judge)
    fraction = {"scale_factor_height": np.float32(2.5), "scale_factor_width": np.float32(1.6)}
    judge = _interpolate(scale_factor=(2.5, 1.6), mode="nearest")
    yield Case("upsample_nearest-fraction", "upsample_nearest_neighbor", {"x": x}, fraction, judge, half=False)
    judge = _interpolate(scale_factor=(2.5, 1.6), mode="bilinear", align_corners=False, recompute_scale_factor=True)
    constants = {**fraction, "align_corners": False}
    yield Case("upsample_bilinear-fraction", "upsample_bilinear", {"x": x}, constants, judge, half=False)
    constants = {
        "scale_factor_height": np.int32(2),
        "scale_factor_width": np.int32(2),
        "align_corners": False,
        "half_pixel_centers": False,
    }
    yield Case(
        "upsample_bilinear-neither",
        "upsample_bilinear",
        {"x": x},
        constants,
        _by_points(8, 10, "DEFAULT"),
        since=16,
        tolerance=1e-4,
    )
    margins = {"crop_height": np.int32([1, 0]), "crop_width": np.int32([2, 1])}
    yield Case("crop", "crop", {"x": x}, margins, lambda x: x[..., 1:, 2:-1])
    yield from _sampled()


def _sampled():
    import torch

    x = floats(2, 3, 4, 5)
    coordinates = floats(2, 3, 6, 2, low=-1.4, high=1.4, seed=5)
    paddings = {"constant": "zeros", "border": "border", "reflection": "reflection", "symmetric": "reflection"}
    for sampling in ("bilinear", "nearest"):
        for padding, name in paddings.items():
            # torch's reflection is `reflection` with aligned corners and `symmetric` without.
            for align in (True, False):
                if padding in ("reflection", "symmetric") and align != (padding == "reflection"):
                    continue
                constants = {
                    "sampling_mode": sampling,
                    "padding_mode": padding,
                    "padding_value": np.float32(0),
                    "coordinates_mode": "normalized_minus_one_to_one",
                    "align_corners": align,
                }
                data = {"x": x, "coordinates": coordinates}
                # Half precision moves a nearest sample to the neighbour, which no tolerance describes.
                yield Case(
                    f"resample-{sampling}-{padding}-{align}",
                    "resample",
                    data,
                    constants,
                    lambda x, c, s=sampling, p=name, a=align: torch.nn.functional.grid_sample(x, c, s, p, a),
                    half=False,
                    tolerance=1e-4,
                )
    base = {
        "sampling_mode": "bilinear",
        "padding_mode": "constant",
        "padding_value": np.float32(0),
        "align_corners": True,
    }
    share = {"x": x, "coordinates": (coordinates + 1) / 2}
    constants = {**base, "coordinates_mode": "normalized_zero_to_one"}
    yield Case(
        "resample-zero-to-one",
        "resample",
        share,
        constants,
        lambda x, c: torch.nn.functional.grid_sample(x, c * 2 - 1, align_corners=True),
        half=False,
        tolerance=1e-4,
    )
    pixels = {"x": x, "coordinates": ((coordinates + 1) / 2 * np.float32([4, 3])).astype(np.float32)}
    constants = {**base, "coordinates_mode": "unnormalized"}
    yield Case(
        "resample-pixels",
        "resample",
        pixels,
        constants,
        lambda x, c: torch.nn.functional.grid_sample(x, c / torch.tensor([4.0, 3.0]) * 2 - 1, align_corners=True),
        half=False,
        tolerance=1e-4,
    )
    matrix = np.float32([[0.8, 0.2, 0.1, -0.3, 1.1, 0.0], [1, 0, 0, 0, 1, 0]])
    constants = {
        **base,
        "coordinates_mode": "normalized_minus_one_to_one",
        "output_height": np.int32(3),
        "output_width": np.int32(7),
    }
    for number, count in enumerate((2, 1)):
        data = {"x": x, "transform_matrix": matrix[:count]}
        yield Case(f"affine-{number}", "affine", data, constants, _affine, half=False, tolerance=1e-4)
    yield from _boxes(x)


def _affine(x, matrix):
    import torch

    theta = matrix.reshape(-1, 2, 3).expand(x.shape[0], 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [x.shape[0], x.shape[1], 3, 7], align_corners=True)
    return torch.nn.functional.grid_sample(x, grid, align_corners=True)


def _boxes(x):
    boxes = np.float32([[0.5, 1.0, 2.5, 3.5], [0.0, 0.0, 3.0, 4.0], [1.0, 2.0, 1.0, 2.0]])
    images = np.int32([1, 0, 1])
    for mode in MODES:
        constants = {"target_height": np.int32(3), "target_width": np.int32(2), "sampling_mode": mode}
        data = {"x": x, "boxes": boxes, "box_indices": images}
        yield Case(
            f"crop_resize-{mode}",
            "crop_resize",
            data,
            constants,
            lambda x, b, i, m=mode: _cropped(x, b, i, m),
            since=17,
            half=False,
            tolerance=1e-4,
        )
        roi = np.concatenate([images[:, None], boxes], 1).astype(np.float32)[:, None, :, None, None]
        one = {"x": x[1:], "roi": np.where(np.arange(5)[:, None, None] == 0, np.float32(0), roi).astype(np.float32)}
        yield Case(
            f"crop_resize-roi-{mode}",
            "crop_resize",
            one,
            constants,
            lambda x, r, m=mode: _cropped(x, r[:, 0, 1:, 0, 0], r[:, 0, 0, 0, 0].int(), m)[:, None],
            until=16,
            half=False,
            tolerance=1e-4,
        )
    every = {"x": x, "roi": boxes[:, None, :, None, None]}
    constants = {"target_height": np.int32(3), "target_width": np.int32(2), "sampling_mode": "ALIGN_CORNERS"}
    yield Case("crop_resize-every", "crop_resize", every, constants, _every, until=16, half=False, tolerance=1e-4)
    # Boxes of shares of the image; points beyond it are padded.
    beyond = np.float32([[0.1, 0.3, 1.3, 1.0], [0.5, 1.8, 1.0, 0.3], [-0.2, 0.0, 0.6, 0.7]])
    constants = constants | {"normalized_coordinates": np.bool_(True), "pad_value": np.float32(10)}
    yield Case(
        "crop_resize-beyond",
        "crop_resize",
        {"x": x, "boxes": beyond, "box_indices": images},
        constants,
        _padded,
        since=17,
        half=False,
        tolerance=1e-4,
    )
    first = np.zeros(3, np.int32)
    roi = np.concatenate([first[:, None], beyond], 1).astype(np.float32)[:, None, :, None, None]
    yield Case(
        "crop_resize-roi-beyond",
        "crop_resize",
        {"x": x[1:]},
        {**constants, "roi": roi},
        lambda x: _padded(x, beyond, first)[:, None],
        since=16,
        until=16,
        half=False,
        tolerance=1e-4,
    )


def _padded(x, boxes, images):
    import torch

    boxes = torch.as_tensor(boxes) * torch.tensor([3.0, 4.0, 3.0, 4.0])
    return _cropped(x, boxes, images, "ALIGN_CORNERS", pad=10.0)


def _every(x, roi):
    import torch

    boxes = roi[:, 0, :, 0, 0]
    images = [torch.full((len(boxes),), image) for image in range(len(x))]
    return torch.stack([_cropped(x, boxes, image, "ALIGN_CORNERS") for image in images], 1)


def _cropped(x, boxes, images, mode, pad=0.0):
    """Sample every box at the points of its interval with torch's grid_sample."""
    import torch

    crops = []
    for (top, left, bottom, right), image in zip(boxes.tolist(), images.tolist(), strict=True):
        rows, columns = _interval(top, bottom, 3, mode), _interval(left, right, 2, mode)
        grid = np.stack(np.meshgrid(columns * 2 / 4 - 1, rows * 2 / 3 - 1), -1).astype(np.float32)
        crop = torch.nn.functional.grid_sample(
            x[image : image + 1], torch.from_numpy(grid)[None], align_corners=True, padding_mode="border"
        )
        outside = ((rows < 0) | (rows > 3))[:, None] | ((columns < 0) | (columns > 4))[None]
        crops.append(torch.where(torch.from_numpy(outside), torch.tensor(pad), crop[0]))
    return torch.stack(crops)


def _interval(start, end, count, mode):
    i, size = np.arange(count, dtype=np.float64), end - start + 1
    if mode == "STRICT_ALIGN_CORNERS" or mode == "ALIGN_CORNERS":
        return start + i * (end - start) / (count - 1)
    if mode == "DEFAULT":
        return start + i * (size - size / count) / (count - 1)
    if mode == "OFFSET_CORNERS":
        delta = max(1, end - start) / count
        return start + 0.5 * delta + i * delta
    return start + i * size / count + 0.5 * size / count - 0.5


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_image(judge, case, opset, half):
    judge(CASES, case, opset, half)
