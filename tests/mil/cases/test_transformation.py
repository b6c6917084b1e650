"""Operations that rearrange a tensor, and slices."""

import numpy as np
import pytest
from mil_judging import Case, bools, expand, floats, ints


def _cases():
    x = floats(2, 3, 4)
    for number, shape in enumerate([[24], [4, 6], [2, -1], [-1], [1, 2, 3, 4, 1], [0, -1], [0, 3, 0]]):
        if 0 in shape and len(shape) != 3:
            continue
        wanted = [size or x.shape[i] for i, size in enumerate(shape)]
        yield Case(
            f"reshape-{number}", "reshape", {"x": x}, {"shape": np.int32(shape)}, lambda x, s=wanted: x.reshape(s)
        )
    zeros = {"shape": np.int32([1, 0, -1, 0])}
    yield Case(
        "reshape-zeros-iOS17", "reshape", {"x": floats(2, 50)}, zeros, lambda x: x.reshape(1, 1, 2, 50), since=17
    )
    yield Case("reshape-int", "reshape", {"x": ints(2, 6)}, {"shape": np.int32([3, 4])}, lambda x: x.reshape(3, 4))
    yield Case("reshape-bool", "reshape", {"x": bools(2, 6)}, {"shape": np.int32([3, 4])}, lambda x: x.reshape(3, 4))
    for number, perm in enumerate([[0, 1, 2], [2, 1, 0], [1, 2, 0], [-1, 0, 1]]):
        yield Case(
            f"transpose-{number}", "transpose", {"x": x}, {"perm": np.int32(perm)}, lambda x, p=perm: x.permute(*p)
        )
    for number, axes in enumerate([[0], [-1], [1, 3], [0, -1], [-5, -1], [4, 3]]):
        wanted = np.expand_dims(x, tuple(axes)).shape
        yield Case(
            f"expand_dims-{number}", "expand_dims", {"x": x}, {"axes": np.int32(axes)}, lambda x, s=wanted: x.reshape(s)
        )
    y = floats(1, 3, 1, 4, 1)
    for number, axes in enumerate([[0], [2], [-1], [0, 4], [0, 2, -1], None]):
        wanted = np.squeeze(y, None if axes is None else tuple(axes)).shape
        constants = {} if axes is None else {"axes": np.int32(axes)}
        yield Case(f"squeeze-{number}", "squeeze", {"x": y}, constants, lambda x, s=wanted: x.reshape(s))
    yield Case("squeeze-ignores", "squeeze", {"x": y}, {"axes": np.int32([0, 1])}, lambda x: x.reshape(3, 1, 4, 1))
    for axis in (-1, 0, 1, 2, 3):
        wanted = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
        yield Case(
            f"flatten2d-{axis}", "flatten2d", {"x": x}, {"axis": np.int32(axis)}, lambda x, s=wanted: x.reshape(s)
        )
    for number, axes in enumerate([[0], [-1], [0, 2], None]):
        constants = {} if axes is None else {"axes": np.int32(axes)}
        dims = axes or [0, 1, 2]
        yield Case(f"reverse-{number}", "reverse", {"x": x}, constants, lambda x, d=dims: x.flip(d))
    for number, (seq, batch) in enumerate([(1, 0), (0, 1), (2, 0), (2, 1)]):
        lengths = np.int32([1, 3, 0, 2, 4][: x.shape[batch]])
        lengths = np.minimum(lengths, x.shape[seq]).astype(np.int32)
        constants = {"seq_axis": np.int32(seq), "batch_axis": np.int32(batch)}
        yield Case(
            f"reverse_sequence-{number}",
            "reverse_sequence",
            {"x": x, "lengths": lengths},
            constants,
            lambda x, n, s=seq, b=batch: _reversed(x, n, s, b),
        )
    for number, (axis, size, stride) in enumerate([(0, 1, 1), (1, 2, 1), (2, 3, 1), (-1, 2, 2)]):
        constants = {"axis": np.int32(axis), "size": np.int32(size), "stride": np.int32(stride)}
        yield Case(
            f"sliding_windows-{number}",
            "sliding_windows",
            {"x": x},
            constants,
            lambda x, a=axis, n=size, s=stride: x.unfold(a, n, s).movedim(-1, a % 3 + 1),
        )
    yield from _blocks()
    yield from _slices()
    yield from _reshape_like()


def _reversed(x, lengths, seq, batch):
    x = x.clone().movedim((batch, seq), (0, 1))
    for row, length in enumerate(lengths.tolist()):
        x[row, :length] = x[row, :length].flip(0)
    return x.movedim((0, 1), (batch, seq))


def _blocks():
    import torch

    deep, wide = floats(2, 12, 3, 2), floats(2, 3, 4, 6)
    shuffle, unshuffle = torch.nn.functional.pixel_shuffle, torch.nn.functional.pixel_unshuffle
    yield Case("pixel_shuffle", "pixel_shuffle", {"x": deep}, {"upscale_factor": np.int32(2)}, lambda x: shuffle(x, 2))
    down = {"downscale_factor": np.uint32(2)}
    yield Case("pixel_unshuffle", "pixel_unshuffle", {"x": wide}, down, lambda x: unshuffle(x, 2), since=16)

    def to_space(x):
        # The block position is the slow part of the channel here and the fast part in pixel_shuffle.
        n, c, h, w = x.shape
        return shuffle(x.reshape(n, 4, c // 4, h, w).transpose(1, 2).reshape(n, c, h, w), 2)

    def to_depth(x):
        n, c, h, w = x.shape
        return unshuffle(x, 2).reshape(n, c, 4, h // 2, w // 2).transpose(1, 2).reshape(n, 4 * c, h // 2, w // 2)

    yield Case("depth_to_space", "depth_to_space", {"x": deep}, {"block_size": np.int32(2)}, to_space)
    yield Case("space_to_depth", "space_to_depth", {"x": wide}, {"block_size": np.int32(2)}, to_depth)

    def to_batch(x):
        x = torch.nn.functional.pad(x, (1, 1, 0, 2))
        return torch.cat([x[:, :, i::2, j::2] for i in range(2) for j in range(2)])

    constants = {"block_shape": np.int32([2, 2]), "paddings": np.int32([[0, 2], [1, 1]])}
    yield Case("space_to_batch", "space_to_batch", {"x": wide}, constants, to_batch)

    def from_batch(x):
        out = x.new_zeros(2, 3, 6, 4)
        for number, (i, j) in enumerate([(i, j) for i in range(2) for j in range(2)]):
            out[:, :, i::2, j::2] = x[2 * number : 2 * number + 2]
        return out[:, :, 1:6, 0:3]

    constants = {"block_shape": np.int32([2, 2]), "crops": np.int32([[1, 0], [0, 1]])}
    yield Case("batch_to_space", "batch_to_space", {"x": floats(8, 3, 3, 2)}, constants, from_batch)


def _slices():
    x = floats(4, 5, 6)
    plain = [
        ([0, 0, 0], [4, 5, 6], None),
        ([1, 2, 3], [3, 5, 4], None),
        ([0, 0, 0], [4, 5, 6], [2, 3, 1]),
        ([-3, -2, 0], [-1, 5, -1], None),
    ]
    for number, (begin, end, stride) in enumerate(plain):
        constants = {"begin": np.int32(begin), "end": np.int32(end)}
        if stride:
            constants["stride"] = np.int32(stride)
        index = tuple(slice(*item) for item in zip(begin, end, stride or [1, 1, 1], strict=True))
        yield Case(f"slice-{number}", "slice_by_index", {"x": x}, constants, lambda x, i=index: x[i])
    constants = {
        "begin": np.int32([3, 1, 5]),
        "end": np.int32([0, 2, 0]),
        "stride": np.int32([-1, 1, -2]),
        "begin_mask": np.array([False, False, True]),
        "end_mask": np.array([True, False, True]),
    }
    yield Case("slice-backwards", "slice_by_index", {"x": x}, constants, lambda x: x.flip((0, 2))[:, 1:2, ::2])
    masked = {
        "begin": np.int32([2, 0, 1]),
        "end": np.int32([0, 0, 0]),
        "begin_mask": np.array([False, True, False]),
        "end_mask": np.array([False, True, True]),
        "squeeze_mask": np.array([True, False, False]),
    }
    yield Case("slice-squeeze", "slice_by_index", {"x": x}, masked, lambda x: x[2, :, 1:])
    negative = {**masked, "begin": np.int32([-1, 0, -2])}
    yield Case("slice-squeeze-negative", "slice_by_index", {"x": x}, negative, lambda x: x[-1, :, -2:])
    whole = {"begin": np.int32([1, 2, 3]), "end": np.int32([0, 0, 0]), "squeeze_mask": np.array([True, True, True])}
    yield Case("slice-to-scalar", "slice_by_index", {"x": x}, whole, lambda x: x[1, 2, 3], folds=False)
    dynamic = {"x": x, "begin": np.int32([1, 0, 2]), "end": np.int32([3, 5, 4])}
    yield Case("slice-dynamic", "slice_by_index", dynamic, torch=lambda x, b, e: x[1:3, 0:5, 2:4])
    yield Case(
        "slice-int", "slice_by_index", {"x": ints(7)}, {"begin": np.int32([2]), "end": np.int32([5])}, lambda x: x[2:5]
    )
    sizes = [([0, 0, 0], [4, 5, 6]), ([1, 2, 3], [2, 1, 3]), ([1, 0, -2], [-1, 2, 2])]
    for number, (begin, size) in enumerate(sizes):
        constants = {"begin": np.int32(begin), "size": np.int32(size)}
        starts = [b % n for b, n in zip(begin, x.shape, strict=True)]
        index = tuple(slice(b, n if s == -1 else b + s) for b, s, n in zip(starts, size, x.shape, strict=True))
        yield Case(f"slice_by_size-{number}", "slice_by_size", {"x": x}, constants, lambda x, i=index: x[i])

    def updated(x, update):
        x = x.clone()
        x[1:4:2, :, 2:4] = update
        return x

    constants = {
        "begin": np.int32([1, 0, 2]),
        "end": np.int32([4, 0, 4]),
        "stride": np.int32([2, 1, 1]),
        "end_mask": np.array([False, True, False]),
    }
    data = {"x": x, "update": floats(2, 5, 2, seed=9)}
    yield Case("slice_update", "slice_update", data, constants, updated, since=18)


def _reshape_like():
    data = {"x": floats(5, 6), "ref_tensors": (floats(2, 3, 4), floats(1, 5, 6))}
    constants = {
        "begins": (np.int32(0), np.int32(1)),
        "ends": (np.int32(2), np.int32(0)),
        "end_masks": (np.bool_(False), np.bool_(True)),
    }
    data["x"] = floats(6, 30)
    yield Case("reshape_like", "reshape_like", data, constants, lambda x, refs: x.reshape(2, 3, 5, 6), since=16)


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_transformation(judge, case, opset, half):
    judge(CASES, case, opset, half)
