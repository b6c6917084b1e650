"""Quantised tensors, and compressed constants of iOS 16 and iOS 18 down to one bit."""

import numpy as np
import pytest
from mil_judging import Case, expand, floats


def _integers(dtype, *shape, low=None, high=None):
    bounds = np.iinfo(dtype)
    low, high = bounds.min if low is None else low, bounds.max + 1 if high is None else high
    return np.random.default_rng(list(shape)).integers(low, high, shape).astype(dtype)


def _cases():
    x = floats(2, 3, 4, low=-9, high=9)
    for dtype in ("int8", "uint8"):
        zero = np.int8(-3) if dtype == "int8" else np.uint8(130)
        constants = {"scale": np.float32(0.05), "zero_point": zero, "output_dtype": dtype}
        yield Case(
            f"quantize-{dtype}",
            "quantize",
            {"input": x},
            constants,
            lambda x, z=int(zero), d=dtype: _quantize(x, 0.05, z, d),
            since=17,
            half=False,
        )
        plain = {"scale": np.float32(0.25), "output_dtype": dtype}
        yield Case(
            f"quantize-plain-{dtype}",
            "quantize",
            {"input": x},
            plain,
            lambda x, d=dtype: _quantize(x, 0.25, 0, d),
            since=17,
        )
        scales = np.float32([0.03, 0.05, 0.1])
        zeros = np.array([1, 2, 3], dtype)
        constants = {"scale": scales, "zero_point": zeros, "axis": np.int32(1), "output_dtype": dtype}
        yield Case(
            f"quantize-axis-{dtype}",
            "quantize",
            {"input": x},
            constants,
            lambda x, s=scales, z=zeros, d=dtype: _quantize(x, _column(s), _column(z), d),
            since=17,
            half=False,
        )
        data = {"input": _integers(dtype, 2, 3, 4)}
        constants = {"scale": scales, "zero_point": zeros, "axis": np.int32(-2)}
        yield Case(
            f"dequantize-{dtype}",
            "dequantize",
            data,
            constants,
            lambda q, s=scales, z=zeros: (q.float() - _column(z)) * _column(s),
            since=17,
        )
        constants = {"scale": np.float32(0.5)}
        yield Case(f"dequantize-plain-{dtype}", "dequantize", data, constants, lambda q: q.float() * 0.5, since=17)
        weights = _integers(dtype, 4, 3, 2)
        for name, scale, shift in (("scalar", np.float32(0.1), zero), ("vector", scales, zeros)):
            constants = {"quantized_data": weights, "zero_point": shift, "scale": scale, "axis": np.int32(1)}
            yield Case(f"affine-{name}-{dtype}", "constexpr_affine_dequantize", {}, constants, since=16)
    source = {"source_val": floats(3, 5).astype(np.float16), "output_dtype": "fp32"}
    yield Case("constexpr_cast", "constexpr_cast", {}, source, since=16)
    yield from _tables()
    yield from _sparse()
    yield from _blockwise()


def _column(values):
    import torch

    return torch.from_numpy(np.asarray(values).astype(np.float32)).reshape(1, -1, 1)


def _quantize(x, scale, zero, dtype):
    bounds = np.iinfo(dtype)
    return ((x / scale).round() + zero).clamp(bounds.min, bounds.max).numpy().astype(dtype)


def _tables():
    for bits in (1, 2, 4, 6, 8):
        shape = (3, 5)
        indices = _integers(np.uint8, *shape, low=0, high=1 << bits)
        packed = np.packbits(
            np.unpackbits(indices.reshape(-1, 1), axis=1, bitorder="little")[:, :bits].reshape(-1), bitorder="little"
        )
        constants = {"indices": packed, "lut": floats(1 << bits, seed=bits), "shape": np.uint32(shape)}
        yield Case(f"lut-iOS16-{bits}", "constexpr_lut_to_dense", {}, constants, since=16, until=17)
    for bits in (1, 2, 3, 4, 6, 8):
        for name, blocks, width, axis in (
            ("tensor", (1, 1), 1, None),
            ("groups", (2, 3), 1, None),
            ("vector-0", (1, 1), 2, 0),
            ("vector-1", (2, 1), 3, 1),
        ):
            constants = {
                "indices": _sub_byte(_integers(np.uint8, 4, 6, low=0, high=1 << bits), f"uint{bits}"),
                "lut": floats(*blocks, 1 << bits, width, seed=bits),
            }
            if axis is not None:
                constants["vector_axis"] = np.int32(axis)
            yield Case(f"lut-{name}-{bits}", "constexpr_lut_to_dense", {}, constants, since=18)
    mask = (np.arange(24).reshape(4, 6) % 3 != 0).astype(np.uint8)
    for width, axis in ((1, None), (2, 0)):
        constants = {
            "indices_mask": _sub_byte(mask, "uint1"),
            "indices_nonzero_data": _sub_byte(_integers(np.uint8, int(mask.sum()), low=0, high=4), "uint2"),
            "lut": floats(1, 1, 4, width),
        }
        if axis is not None:
            constants["vector_axis"] = np.int32(axis)
        yield Case(f"lut_to_sparse-{width}", "constexpr_lut_to_sparse", {}, constants, since=18)


def _sub_byte(values, name):
    """Mark an array as of a sub-byte type, in coremltools' way: by the metadata of its numpy type."""
    from coremltools.converters.mil.mil import types

    return values.astype(types.nptype_from_builtin(types.string_to_builtin(name)))


def _sparse():
    dense = np.where(np.arange(15) % 4 == 1, floats(15), 0).astype(np.float32)
    packed = np.packbits(dense != 0, bitorder="little")
    constants = {"nonzero_data": dense[dense != 0], "mask": packed, "shape": np.uint32([3, 5])}
    yield Case("sparse-iOS16", "constexpr_sparse_to_dense", {}, constants, since=16, until=17)
    mask = (dense != 0).astype(np.uint8).reshape(3, 5)
    constants = {"nonzero_data": dense[dense != 0], "mask": _sub_byte(mask, "uint1")}
    yield Case("sparse-iOS18", "constexpr_sparse_to_dense", {}, constants, since=18)


def _blockwise():
    for dtype in ("int4", "uint4", "int8", "uint8"):
        low, high = {"int4": (-8, 8), "uint4": (0, 16), "int8": (-128, 128), "uint8": (0, 256)}[dtype]
        held = np.int8 if dtype.startswith("int") else np.uint8
        data = _integers(held, 4, 6, low=low, high=high)
        for name, blocks in (("tensor", (1, 1)), ("channel", (4, 1)), ("blocks", (2, 3)), ("each", (4, 6))):
            offset = _integers(held, *blocks, low=low, high=high)
            pick = (lambda v, d=dtype: _sub_byte(v, d)) if dtype.endswith("4") else (lambda v: v)
            constants = {"data": pick(data), "scale": floats(*blocks, seed=1)}
            yield Case(f"blockwise-{dtype}-{name}", "constexpr_blockwise_shift_scale", {}, constants, since=18)
            constants = {**constants, "offset": pick(offset)}
            yield Case(f"blockwise-offset-{dtype}-{name}", "constexpr_blockwise_shift_scale", {}, constants, since=18)
    mask = (np.arange(24).reshape(4, 6) % 3 != 0).astype(np.uint8)
    constants = {
        "data_mask": _sub_byte(mask, "uint1"),
        "nonzero_data": _integers(np.int8, int(mask.sum())),
        "scale": floats(1, 6),
        "offset": _integers(np.int8, 1, 6),
    }
    yield Case("sparse-blockwise", "constexpr_sparse_blockwise_shift_scale", {}, constants, since=18)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_quantization(judge, case, opset, half):
    judge(CASES, case, opset, half)
