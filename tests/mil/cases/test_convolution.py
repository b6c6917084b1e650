"""Convolutions and pooling over one to three spatial axes, against torch.nn.functional."""

from functools import partial

import numpy as np
import pytest
from mil_judging import Case, expand, floats, mean_of_whole_kernels


def _functional(name, dimensions, *arguments, **options):
    def run(x):
        import torch

        tensors = [torch.from_numpy(v) if isinstance(v, np.ndarray) else v for v in arguments]
        return getattr(torch.nn.functional, f"{name}{dimensions}d")(x, *tensors, **options)

    return run


# input, weight, strides, pad (before, after per axis; None: valid), dilations, groups
CONVOLUTIONS = [
    ((2, 3, 9), (4, 3, 3), [1], None, [1], 1),
    ((1, 4, 9), (6, 2, 2), [2], [1, 1], [2], 2),
    ((2, 3, 7, 8), (4, 3, 3, 3), [1, 1], None, [1, 1], 1),
    ((2, 3, 7, 8), (4, 3, 3, 2), [2, 1], [1, 1, 0, 0], [1, 2], 1),
    ((1, 4, 7, 8), (4, 1, 3, 3), [1, 1], [1, 1, 1, 1], [1, 1], 4),
    ((1, 4, 7, 8), (8, 1, 3, 3), [2, 2], [1, 1, 1, 1], [1, 1], 4),
    ((2, 6, 5, 5), (4, 3, 1, 1), [1, 1], None, [1, 1], 2),
    ((1, 1, 5, 5), (1, 1, 5, 5), [1, 1], None, [1, 1], 1),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), [1, 2, 1], [1, 1, 0, 0, 1, 1], [1, 1, 2], 1),
    ((2, 2, 4, 4, 4), (4, 1, 2, 2, 2), [1, 1, 1], None, [1, 1, 1], 2),
]

# input, weight, strides, pad, output padding, dilations, groups
TRANSPOSED = [
    ((2, 3, 5), (3, 4, 3), [1], [0], [0], [1], 1),
    ((1, 4, 5), (4, 2, 3), [2], [1], [1], [1], 2),
    ((2, 3, 4, 5), (3, 4, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1], 1),
    ((1, 3, 4, 5), (3, 2, 3, 2), [2, 3], [1, 0], [0, 0], [1, 2], 1),
    ((1, 4, 4, 4), (4, 1, 2, 2), [2, 2], [0, 0], [0, 0], [1, 1], 4),
    ((1, 2, 3, 3), (2, 3, 3, 3), [3, 3], [1, 1], [2, 1], [1, 1], 1),
    ((1, 2, 2, 3, 2), (2, 2, 2, 2, 3), [1, 2, 2], [0, 1, 0], [0, 0, 0], [1, 1, 1], 1),
]

# input, kernel, strides, pad, ceil
POOLS = [
    ((2, 3, 9), [2], [2], [0], False),
    ((2, 3, 9), [3], [2], [1], True),
    ((1, 2, 7, 8), [2, 2], [2, 2], [0, 0], False),
    ((1, 2, 7, 8), [3, 2], [1, 2], [1, 1], False),
    ((1, 2, 7, 8), [3, 3], [2, 2], [1, 1], True),
    ((1, 2, 7, 8), [2, 3], [3, 3], [0, 0], True),
    ((1, 1, 40, 3), [40, 3], [1, 1], [0, 0], False),
    ((1, 2, 4, 5, 6), [2, 3, 2], [1, 2, 2], [1, 1, 0], False),
]


def _pairs(pad):
    return [number for number in pad for _ in range(2)]


def _cases():
    yield from _convolutions()
    yield from _pools()


def _convolutions():
    for number, (shape, kernel, strides, pad, dilations, groups) in enumerate(CONVOLUTIONS):
        weight, bias = floats(*kernel, seed=1), floats(kernel[0], seed=2)
        common = {"strides": np.int32(strides), "dilations": np.int32(dilations), "groups": np.int32(groups)}
        padded = {"pad_type": "valid"} if pad is None else {"pad_type": "custom", "pad": np.int32(pad)}
        rank = len(shape) - 2
        one = [0] * rank if pad is None else pad[::2]
        judge = _functional("conv", rank, weight, bias, strides, one, dilations, groups)
        constants = {"weight": weight, "bias": bias, **common, **padded}
        yield Case(f"conv-{number}", "conv", {"x": floats(*shape)}, constants, judge, half=False, tolerance=2e-5)
        if max(dilations) == 1:
            data = {"x": floats(*shape), "weight": weight}
            dynamic = _dynamic(rank, strides, one, groups)
            yield Case(f"conv-dynamic-{number}", "conv", data, {**common, **padded}, dynamic, tolerance=2e-5)
    for number, (shape, kernel) in enumerate(
        [((1, 2, 6, 7), (3, 2, 3, 3)), ((1, 2, 6), (3, 2, 5)), ((1, 2, 6, 6), (3, 2, 2, 4))]
    ):
        weight, rank = floats(*kernel, seed=1), len(shape) - 2
        odd = all(size % 2 for size in kernel[2:])
        for strides in ([1] * rank, [2] * rank):
            constants = {"weight": weight, "pad_type": "same", "strides": np.int32(strides)}
            yield Case(
                f"conv-same-{number}-{strides[0]}",
                "conv",
                {"x": floats(*shape)},
                constants,
                lambda x, w=weight, s=strides, lower=False: _same(x, w, s, lower),
                half=False,
                tolerance=2e-5,
            )
            if not odd or strides[0] > 1:
                constants = {**constants, "pad_type": "same_lower"}
                yield Case(
                    f"conv-lower-{number}-{strides[0]}",
                    "conv",
                    {"x": floats(*shape)},
                    constants,
                    lambda x, w=weight, s=strides: _same(x, w, s, True),
                    half=False,
                    since=16,
                    tolerance=2e-5,
                )
    for number, (shape, kernel, strides, pad, more, dilations, groups) in enumerate(TRANSPOSED):
        weight, bias = floats(*kernel, seed=1), floats(kernel[1] * groups, seed=2)
        judge = _functional("conv_transpose", len(shape) - 2, weight, bias, strides, pad, more, groups, dilations)
        constants = {
            "weight": weight,
            "bias": bias,
            "strides": np.int32(strides),
            "dilations": np.int32(dilations),
            "groups": np.int32(groups),
            "pad_type": "custom",
            "pad": np.int32(_pairs(pad)),
        }
        if any(more):
            constants["output_shape"] = np.int32(_shape_of(judge, shape))
        yield Case(
            f"conv_transpose-{number}",
            "conv_transpose",
            {"x": floats(*shape)},
            constants,
            judge,
            half=False,
            tolerance=2e-5,
        )
    weight = floats(3, 2, 3, 3, seed=1)
    constants = {"weight": weight, "strides": np.int32([2, 2]), "pad_type": "same"}
    yield Case(
        "conv_transpose-same",
        "conv_transpose",
        {"x": floats(1, 3, 4, 5)},
        constants,
        lambda x: _functional("conv_transpose", 2, weight, None, [2, 2])(x)[:, :, :8, :10],
        half=False,
        tolerance=2e-5,
    )
    quantised = {
        "weight": np.random.default_rng(1).integers(0, 255, (4, 3, 3, 3)).astype(np.uint8),
        "quantization_type": "linear",
        "quant_scale": floats(4, low=0.01, high=0.02, seed=1),
        "quant_bias": floats(4, low=-2, high=0, seed=2),
    }
    column = (-1, 1, 1, 1)
    dense = quantised["weight"] * quantised["quant_scale"].reshape(column) + quantised["quant_bias"].reshape(column)
    judge = _functional("conv", 2, dense.astype(np.float32))
    yield Case(
        "conv_quantized", "conv_quantized", {"x": floats(1, 3, 5, 5)}, quantised, judge, half=False, tolerance=5e-5
    )


def _dynamic(rank, strides, pad, groups):
    return lambda x, weight: _functional("conv", rank, weight.numpy(), None, strides, pad, 1, groups)(x)


def _shape_of(judge, shape):
    import torch

    return list(judge(torch.zeros(*shape)).shape)


def _same(x, weight, strides, lower):
    """Convolve with TensorFlow's padding: as much as needed for ceil(size / stride), the odd element at the end."""
    import torch

    margins = []
    for size, kernel, stride in zip(reversed(x.shape[2:]), reversed(weight.shape[2:]), reversed(strides), strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + kernel - size)
        small, large = total // 2, total - total // 2
        margins += [large, small] if lower else [small, large]
    x = torch.nn.functional.pad(x, margins)
    return _functional("conv", x.ndim - 2, weight, None, strides)(x)


def _pools():
    for number, (shape, kernel, strides, pad, ceil) in enumerate(POOLS):
        rank = len(shape) - 2
        if ceil and rank > 2:
            continue
        common = {
            "kernel_sizes": np.int32(kernel),
            "strides": np.int32(strides),
            "pad_type": "custom",
            "pad": np.int32(_pairs(pad)),
            "ceil_mode": ceil,
        }
        data = {"x": floats(*shape)}
        yield Case(
            f"max_pool-{number}",
            "max_pool",
            data,
            common,
            _functional("max_pool", rank, kernel, strides, pad, ceil_mode=ceil),
        )
        for exclude in (False, True):
            judge = _functional("avg_pool", rank, kernel, strides, pad, ceil, count_include_pad=False)
            judge = (
                judge if exclude else partial(mean_of_whole_kernels, kernel=kernel, strides=strides, pad=pad, ceil=ceil)
            )
            constants = {**common, "exclude_padding_from_average": exclude}
            yield Case(f"avg_pool-{number}-{exclude}", "avg_pool", data, constants, judge)
        if rank < 3:
            yield Case(
                f"l2_pool-{number}",
                "l2_pool",
                data,
                common,
                lambda x, n=rank, k=kernel, s=strides, p=pad, c=ceil: _l2(x, n, k, s, p, c),
            )
    valid = {"kernel_sizes": np.int32([2, 2]), "pad_type": "valid", "strides": np.int32([2, 1])}
    yield Case(
        "max_pool-valid", "max_pool", {"x": floats(1, 2, 5, 5)}, valid, _functional("max_pool", 2, [2, 2], [2, 1])
    )
    for op in ("max_pool", "avg_pool"):
        same = {"kernel_sizes": np.int32([3, 3]), "pad_type": "same", "strides": np.int32([1, 1])}
        judge = _functional(op, 2, [3, 3], [1, 1], [1, 1])
        yield Case(f"{op}-same", op, {"x": floats(1, 2, 5, 5)}, same, judge)


def _l2(x, rank, kernel, strides, pad, ceil):
    import torch

    pool = getattr(torch.nn.functional, f"avg_pool{rank}d")
    if rank == 1:
        return (pool(x * x, kernel, strides, pad, ceil) * _counts(x, rank, kernel, strides, pad, ceil)).sqrt()
    return pool(x * x, kernel, strides, pad, ceil, divisor_override=1).sqrt()


def _counts(x, rank, kernel, strides, pad, ceil):
    """The divisors of avg_pool1d, which cannot be left out: read off the mean of a one at a single place."""
    import torch

    spread = torch.nn.functional.avg_pool1d(torch.eye(x.shape[2])[:, None], kernel, strides, pad, ceil)
    return 1 / spread.amax(0)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_convolution(judge, case, opset, half):
    judge(CASES, case, opset, half)
