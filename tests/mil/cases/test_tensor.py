"""Operations that join, split, fill, pad, sort and select."""

import numpy as np
import pytest
from mil_judging import Case, bools, expand, floats, ints


def _cases():
    import torch

    x = floats(2, 3, 4)
    for number, (lower, upper) in enumerate([(-1, 0), (0, -1), (0, 0), (1, 0), (0, 2), (-1, -1), (1, 1)]):
        for shape in ((4, 4), (2, 3, 5), (5, 3)):
            constants = {"lower": np.int32(lower), "upper": np.int32(upper)}
            yield Case(
                f"band_part-{number}-{len(shape)}{shape[-1]}",
                "band_part",
                {"x": floats(*shape)},
                constants,
                lambda x, a=lower, b=upper: _band(x, a, b),
            )
    for axis in (0, 1, -1):
        parts = tuple(floats(*(3 if a == axis % 3 else s for a, s in enumerate(x.shape)), seed=i) for i in range(3))
        yield Case(
            f"concat-{axis}",
            "concat",
            {"values": (x, *parts)},
            {"axis": np.int32(axis)},
            lambda v, a=axis: torch.cat(v, a),
            folds=False,
        )
        same = (x, floats(*x.shape, seed=5))
        constants = {"axis": np.int32(axis), "interleave": True}
        yield Case(
            f"concat-interleave-{axis}",
            "concat",
            {"values": same},
            constants,
            lambda v, a=axis: torch.stack(v, a % 3 + 1).flatten(a % 3, a % 3 + 1),
            folds=False,
        )
        yield Case(
            f"stack-{axis}", "stack", {"values": same}, {"axis": np.int32(axis)}, lambda v, a=axis: torch.stack(v, a)
        )
    yield Case("concat-one", "concat", {"values": (x,)}, {"axis": np.int32(0)}, lambda v: v[0], folds=False)
    scalars = (np.float32(1), np.float32(2))
    yield Case("stack-scalars", "stack", {"values": scalars}, {"axis": np.int32(0)}, torch.stack)
    yield Case("concat-ints", "concat", {"values": (ints(3), ints(2))}, {"axis": np.int32(0)}, torch.cat, folds=False)
    y = floats(6, 4)
    for name, constants, sizes, axis in (
        ("even", {"num_splits": np.int32(3), "axis": np.int32(0)}, 2, 0),
        ("sizes", {"split_sizes": np.int32([1, 3, 2]), "axis": np.int32(0)}, [1, 3, 2], 0),
        ("both", {"num_splits": np.int32(2), "split_sizes": np.int32([1, 3]), "axis": np.int32(-1)}, [1, 3], -1),
    ):
        yield Case(f"split-{name}", "split", {"x": y}, constants, lambda x, s=sizes, a=axis: x.split(s, a), folds=False)
    for axis in (0, 1, 2, -1):
        for exclusive in (False, True):
            for reverse in (False, True):
                constants = {"axis": np.int32(axis), "exclusive": exclusive, "reverse": reverse}
                name = f"cumsum-{axis}-{exclusive}-{reverse}"
                yield Case(
                    name,
                    "cumsum",
                    {"x": x},
                    constants,
                    lambda x, a=axis, e=exclusive, r=reverse: _cumsum(x, a, e, r),
                    folds=not exclusive,
                )
    yield Case("cumsum-int", "cumsum", {"x": ints(3, 4)}, {"axis": np.int32(1)}, lambda x: x.cumsum(1, dtype=x.dtype))
    yield from _made()
    yield from _sorted()
    yield from _padded()
    yield from _hot()


def _band(x, lower, upper):
    import torch

    rows, columns = torch.arange(x.shape[-2])[:, None], torch.arange(x.shape[-1])
    keep = ((rows - columns <= lower) | (lower < 0)) & ((columns - rows <= upper) | (upper < 0))
    return x * keep


def _cumsum(x, axis, exclusive, reverse):
    x = x.flip(axis) if reverse else x
    total = x.cumsum(axis)
    total = total - x if exclusive else total
    return total.flip(axis) if reverse else total


def _made():
    import torch

    size = {"shape": np.int32([2, 3])}
    yield Case(
        "fill", "fill", size, {"value": np.float32(1.5)}, lambda s: torch.full((2, 3), 1.5), half=False, folds=False
    )
    yield Case("fill-default", "fill", size, torch=lambda s: torch.zeros(2, 3), folds=False)
    yield Case(
        "fill-int",
        "fill",
        size,
        {"value": np.int32(7)},
        lambda s: torch.full((2, 3), 7, dtype=torch.int32),
        folds=False,
    )
    yield Case("fill-bool", "fill", size, {"value": True}, lambda s: torch.ones(2, 3, dtype=torch.bool), folds=False)
    like = {"ref_tensor": floats(2, 3)}
    yield Case(
        "fill_like",
        "fill_like",
        like,
        {"value": np.int32(7)},
        lambda x: torch.full((2, 3), 7, dtype=torch.int32),
        since=16,
    )
    yield Case("fill_like-default", "fill_like", like, torch=torch.zeros_like, since=16, half=False)
    yield Case("shape", "shape", {"x": floats(2, 3, 4)}, torch=lambda x: np.int32(x.shape))
    data = {"start": np.int32(2), "end": np.int32(11), "step": np.int32(3)}
    yield Case("range_1d-int", "range_1d", data, torch=lambda a, b, s: torch.arange(2, 11, 3, dtype=torch.int32))
    data = {"start": np.float32(5), "end": np.float32(0.4), "step": np.float32(-1.25)}
    yield Case("range_1d-float", "range_1d", data, torch=lambda a, b, s: torch.arange(5, 0.4, -1.25))
    data = {"start": np.int32(3), "end": np.int32(3), "step": np.int32(1)}
    yield Case("range_1d-empty", "range_1d", data, torch=lambda a, b, s: torch.arange(3, 3, dtype=torch.int32))
    for number, reps in enumerate([[1, 2, 3], [2, 1, 1], [1, 1, 1]]):
        yield Case(
            f"tile-{number}", "tile", {"x": floats(2, 3, 4)}, {"reps": np.int32(reps)}, lambda x, r=reps: x.tile(r)
        )
    yield Case("tile-dynamic", "tile", {"x": ints(2, 3), "reps": np.int32([2, 3])}, torch=lambda x, r: x.tile(2, 3))
    yield Case("identity", "identity", {"x": floats(2, 3)}, torch=lambda x: x)
    x = np.where(bools(3, 4, 2), floats(3, 4, 2), 0).astype(np.float32)
    yield Case("non_zero", "non_zero", {"x": x}, torch=lambda x: x.nonzero().int(), half=False)
    yield Case("non_zero-bool", "non_zero", {"x": bools(7)}, torch=lambda x: x.nonzero().int())
    yield Case("non_zero-none", "non_zero", {"x": np.zeros((2, 2), np.int32)}, torch=lambda x: x.nonzero().int())


def _sorted():
    x = np.random.default_rng(1).permutation(24).reshape(2, 3, 4).astype(np.float32)
    for axis in (0, 1, -1):
        for ascending in (False, True):
            constants = {"axis": np.int32(axis), "ascending": ascending}
            yield Case(
                f"argsort-{axis}-{ascending}",
                "argsort",
                {"x": x},
                constants,
                lambda x, a=axis, u=ascending: x.argsort(a, descending=not u).int(),
            )
            yield Case(
                f"topk-{axis}-{ascending}",
                "topk",
                {"x": x},
                {**constants, "k": np.int32(2)},
                lambda x, a=axis, u=ascending: _topk(x, 2, a, u),
            )
    yield Case(
        "argsort-int", "argsort", {"x": np.int32([5, -3, 9, 2])}, torch=lambda x: x.argsort(descending=True).int()
    )
    yield Case("topk-default", "topk", {"x": x}, torch=lambda x: _topk(x, 1, -1, False))
    yield Case(
        "topk-values", "topk", {"x": x}, {"k": np.int32(3), "return_indices": False}, lambda x: x.topk(3)[0], since=16
    )
    constants = {"k": np.int32(3), "sort": False, "output_indices_dtype": "uint16"}
    yield Case("topk-uint16", "topk", {"x": x}, constants, _narrow, since=17, folds=False, half=False)
    unsigned = np.uint8([[3, 200, 7], [0, 1, 255]])
    yield Case(
        "topk-uint8",
        "topk",
        {"x": unsigned},
        {"k": np.int32(2)},
        lambda x: _topk(x, 2, -1, False),
        since=17,
        differs="the folder negates unsigned numbers to sort them backwards, so that they wrap around",
        trust="torch",
    )
    yield Case(
        "topk-int", "topk", {"x": np.int32([[5, -3, 9, 2]])}, {"k": np.int32(2)}, lambda x: _topk(x, 2, -1, False)
    )


def _narrow(x):
    values, indices = _topk(x, 3, -1, False)
    return values, indices.numpy().astype(np.uint16)


def _topk(x, k, axis, ascending):
    values, indices = x.topk(k, axis, largest=not ascending)
    return values, indices.int()


def _padded():
    import torch

    x = floats(2, 3, 4, 5)
    for number, pad in enumerate([[1, 2], [0, 1, 2, 0], [0, 0, 1, 0, 0, 0, 2, 1]]):
        flipped = [n for pair in reversed(list(zip(pad[::2], pad[1::2], strict=True))) for n in pair]
        for mode in ("constant", "reflect", "replicate"):
            if mode != "constant" and len(pad) > 4:
                continue
            constants = {"pad": np.int32(pad), "mode": mode}
            options = {"value": 1.5} if mode == "constant" else {}
            if mode == "constant":
                constants["constant_val"] = np.float32(1.5)
            yield Case(
                f"pad-{mode}-{number}",
                "pad",
                {"x": x},
                constants,
                lambda x, p=flipped, m=mode, o=options: _pad(x, p, m, o),
            )
    dynamic = {"x": floats(2, 3), "pad": np.int32([1, 0, 0, 2])}
    yield Case("pad-dynamic", "pad", dynamic, torch=lambda x, p: torch.nn.functional.pad(x, (0, 2, 1, 0)))


def _pad(x, flipped, mode, options):
    import torch

    if mode == "constant" or len(flipped) == 4:
        return torch.nn.functional.pad(x, flipped, mode, **options)
    # torch reflects the last axis of a tensor of rank 3 only.
    return torch.nn.functional.pad(x.flatten(0, 1), flipped, mode).reshape(*x.shape[:3], -1)


def _hot():
    import torch

    indices = np.int32([[0, 2], [3, 1]])
    for axis in (-1, 0, 1, 2):
        constants = {
            "one_hot_vector_size": np.int32(5),
            "axis": np.int32(axis),
            "on_value": np.float32(2),
            "off_value": np.float32(-1),
        }
        yield Case(
            f"one_hot-{axis}",
            "one_hot",
            {"indices": indices},
            constants,
            lambda i, a=axis: torch.nn.functional.one_hot(i.long(), 5).movedim(-1, a) * 3.0 - 1,
            half=False,
        )
    size = {"one_hot_vector_size": np.int32(4)}
    yield Case(
        "one_hot-default",
        "one_hot",
        {"indices": indices},
        size,
        lambda i: torch.nn.functional.one_hot(i.long(), 4).int(),
    )


CASES = list(_cases())


@pytest.mark.parametrize(("case", "opset", "half"), expand(CASES))
def test_tensor(judge, case, opset, half):
    judge(CASES, case, opset, half)
