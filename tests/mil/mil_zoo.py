"""Several hundred small torch functions over data types, ranks, axes, strides, paddings and broadcasts.

The layers are in mil_zoo_layers.py. Left out, because coremltools 9 does not convert them from torch 2.13: trunc,
log_sigmoid, addcmul, prod over an axis and cosine_similarity.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


@dataclass(frozen=True)
class Exhibit:
    """One function and the tensors to call it with; `half` says that it makes sense in float16."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    half: bool = True
    # Where the converter writes something else than torch means: what it writes, for the interpreter to be judged by.
    written: Callable[..., Any] | None = None


def numbers(*shape: int, low: float = -2.0, high: float = 2.0, seed: int = 0) -> Tensor:
    """Return reproducible floats in [low, high)."""
    generator = torch.Generator().manual_seed(seed + 7 * len(shape))
    return torch.rand(*shape, generator=generator) * (high - low) + low


def whole(*shape: int, low: int = -5, high: int = 9, seed: int = 0) -> Tensor:
    """Return reproducible int32 numbers in [low, high)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)


def exhibits() -> list[Exhibit]:
    """Return the functions of this file."""
    groups = (_unary, _binary, _reductions, _shapes, _joins, _indexing)
    return [exhibit for group in groups for exhibit in group()]


def _unary() -> Iterator[Exhibit]:
    positive = {
        "sqrt": (0.0, 4.0),
        "log": (0.1, 4.0),
        "rsqrt": (0.2, 4.0),
        "log1p": (-0.5, 3.0),
        "reciprocal": (0.5, 3.0),
    }
    bounded = {"acos": (-0.9, 0.9), "asin": (-0.9, 0.9), "atanh": (-0.9, 0.9), "tan": (-1.2, 1.2), "log2": (0.2, 4.0)}
    plain = [
        "abs", "atan", "ceil", "cos", "cosh", "erf", "exp", "exp2", "expm1", "floor", "neg", "round", "sign", "sin",
        "sinh", "square", "tanh", "sigmoid", "relu",
    ]  # fmt: skip
    for name in [*plain, *positive, *bounded]:
        low, high = {**positive, **bounded}.get(name, (-3.0, 3.0))
        function = getattr(torch, name)
        # Rounding to float16 moves some values across a step of these.
        half = name not in ("ceil", "floor", "round", "sign")
        for shape in ((7,), (2, 3, 4), (1, 2, 1, 3, 2)):
            # The converter writes 1 / x as `inverse` with its default epsilon.
            written = (lambda x: 1 / (x + 1e-4)) if name == "reciprocal" else None
            yield Exhibit(f"{name}-{len(shape)}", function, (numbers(*shape, low=low, high=high),), half, written)
    activations = {
        "relu6": F.relu6, "silu": F.silu, "softplus": F.softplus, "softsign": F.softsign, "hardswish": F.hardswish,
        "hardsigmoid": F.hardsigmoid, "hardtanh": F.hardtanh, "mish": F.mish, "selu": F.selu, "elu": F.elu,
        "gelu": F.gelu, "leaky_relu": F.leaky_relu, "tanhshrink": F.tanhshrink,
    }  # fmt: skip
    for name, function in activations.items():
        for shape in ((9,), (2, 3, 4)):
            yield Exhibit(f"{name}-{len(shape)}", function, (numbers(*shape, low=-4, high=4),))
    x = numbers(2, 3, 4)
    yield Exhibit("elu-alpha", lambda x: F.elu(x, 0.3), (x,))
    yield Exhibit("leaky_relu-slope", lambda x: F.leaky_relu(x, 0.3), (x,))
    yield Exhibit("clamp", lambda x: x.clamp(-0.5, 1.0), (x,))
    yield Exhibit("clamp_min", lambda x: x.clamp_min(-0.25), (x,))
    yield Exhibit("clamp_max", lambda x: x.clamp_max(0.25), (x,))
    yield Exhibit("threshold", lambda x: F.threshold(x, 0.3, -1.0), (x,), half=False)
    yield Exhibit("logical_not", lambda x: torch.logical_not(x > 0).float(), (x,), half=False)
    yield Exhibit("to-int", lambda x: (x * 10).to(torch.int32), (x,), half=False)
    yield Exhibit("from-int", lambda x: x.to(torch.float32) * 0.5, (whole(3, 4),))
    yield Exhibit("abs-int", torch.abs, (whole(3, 4),))
    yield Exhibit("neg-int", torch.neg, (whole(3, 4),))


PAIRS = [
    ((3, 4), (3, 4)),
    ((2, 3, 4), (4,)),
    ((2, 3, 4), (3, 1)),
    ((2, 1, 4), (1, 3, 1)),
    ((5, 1), (1, 6)),
    ((1,), (2, 3)),
]


def _binary() -> Iterator[Exhibit]:
    operations = {
        "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "maximum": torch.maximum,
        "minimum": torch.minimum, "floor_divide": torch.floor_divide, "remainder": torch.remainder,
    }  # fmt: skip
    for name, function in operations.items():
        for number, (left, right) in enumerate(PAIRS):
            x, y = numbers(*left, seed=1), numbers(*right, low=0.5, high=2, seed=2)
            yield Exhibit(f"{name}-{number}", function, (x, y), half=name not in ("floor_divide", "remainder"))
    for name in ("eq", "ne", "gt", "ge", "lt", "le"):
        for number, (left, right) in enumerate(PAIRS[:4]):
            x, y = whole(*left, seed=1), whole(*right, seed=2)
            yield Exhibit(f"{name}-{number}", lambda x, y, n=name: getattr(torch, n)(x, y).float(), (x, y))
    for name in ("logical_and", "logical_or", "logical_xor"):
        x, y = numbers(3, 4, seed=1), numbers(3, 4, seed=2)
        yield Exhibit(name, lambda x, y, n=name: getattr(torch, n)(x > 0, y > 0).float(), (x, y), half=False)
    for name, function in (("add", torch.add), ("sub", torch.sub), ("mul", torch.mul), ("max", torch.maximum)):
        yield Exhibit(f"{name}-int", function, (whole(3, 4, seed=1), whole(4, seed=2)))
    x = numbers(2, 3, low=0.2, high=2)
    for exponent in (2, 3, 0.5, -1.0, -0.5):
        yield Exhibit(f"pow-{exponent}", lambda x, e=exponent: x**e, (x,))
    yield Exhibit("pow-tensor", torch.pow, (x, numbers(2, 3, seed=5)))
    yield Exhibit("add-scalar", lambda x: x + 2.5, (x,))
    yield Exhibit("rsub-scalar", lambda x: 1.5 - x, (x,))
    yield Exhibit("div-scalar", lambda x: x / 3.0, (x,))
    yield Exhibit("rdiv-scalar", lambda x: 3.0 / x, (x,), written=lambda x: 3.0 / (x + 1e-4))
    # The converter loses the keyword arguments of exported programs, so `alpha` goes unnoticed.
    yield Exhibit("add-alpha", lambda x, y: torch.add(x, y, alpha=2), (x, x + 1), written=torch.add)
    for number, (left, right) in enumerate(PAIRS[:2]):
        condition = numbers(*left, seed=3)
        inputs = (condition, numbers(*left, seed=1), numbers(*right, seed=2))
        yield Exhibit(f"where-{number}", lambda c, x, y: torch.where(c > 0, x, y), inputs, half=False)
    yield Exhibit("masked_fill", lambda x: x.masked_fill(x > 1, -9.0), (x,), half=False)
    yield Exhibit("lerp", lambda x, y: x + 0.3 * (y - x), (x, x + 1))


def _reductions() -> Iterator[Exhibit]:
    x = numbers(2, 3, 4, low=0.1)
    single = {"sum": torch.sum, "mean": torch.mean, "amax": torch.amax, "amin": torch.amin}
    for name, function in single.items():
        for axes in ((0,), (1,), (-1,), (0, 2), (-2, -1), (0, 1, 2)):
            for keep in (False, True):
                label = f"{name}-{','.join(map(str, axes))}-{keep}"
                yield Exhibit(label, lambda x, f=function, a=axes, k=keep: f(x, dim=a, keepdim=k), (x,))
    for axis in (0, 1, -1):
        yield Exhibit(f"logsumexp-{axis}", lambda x, a=axis: torch.logsumexp(x, a), (x,))
        yield Exhibit(f"argmax-{axis}", lambda x, a=axis: torch.argmax(x, a).int(), (x,), half=False)
        yield Exhibit(f"argmin-{axis}", lambda x, a=axis: torch.argmin(x, a).int(), (x,), half=False)
        yield Exhibit(f"max-{axis}", lambda x, a=axis: torch.max(x, a)[0], (x,))
        yield Exhibit(f"softmax-{axis}", lambda x, a=axis: torch.softmax(x, a), (x,))
        yield Exhibit(f"log_softmax-{axis}", lambda x, a=axis: torch.log_softmax(x, a), (x,))
        yield Exhibit(f"cumsum-{axis}", lambda x, a=axis: torch.cumsum(x, a), (x,))
        yield Exhibit(f"norm-{axis}", lambda x, a=axis: torch.norm(x, 2, a), (x,))
        for unbiased in (False, True):
            yield Exhibit(f"var-{axis}-{unbiased}", lambda x, a=axis, u=unbiased: torch.var(x, a, unbiased=u), (x,))
            yield Exhibit(f"std-{axis}-{unbiased}", lambda x, a=axis, u=unbiased: torch.std(x, a, unbiased=u), (x,))
    yield Exhibit("sum-all", lambda x: x.sum().reshape(1), (x,))
    yield Exhibit("mean-all", lambda x: x.mean().reshape(1), (x,))
    yield Exhibit("sum-int", lambda x: x.sum(1).int(), (whole(3, 4),))
    for k in (1, 2, 4):
        for largest in (True, False):
            yield Exhibit(f"topk-{k}-{largest}", lambda x, k=k, g=largest: torch.topk(x, k, largest=g)[0], (x,))
    yield Exhibit("sort", lambda x: torch.sort(x, -1)[0], (x,))
    yield Exhibit("sort-descending", lambda x: torch.sort(x, -1, descending=True)[0], (x,))
    yield Exhibit("argsort", lambda x: torch.argsort(x, -1).int(), (x,), half=False)


def _shapes() -> Iterator[Exhibit]:
    x = numbers(2, 3, 4)
    for number, shape in enumerate([(24,), (6, 4), (2, -1), (4, 3, 2), (1, 2, 3, 4), (2, 3, 2, 2)]):
        yield Exhibit(f"reshape-{number}", lambda x, s=shape: x.reshape(s), (x,))
    for number, order in enumerate([(0, 2, 1), (2, 1, 0), (1, 2, 0), (-1, 0, 1)]):
        yield Exhibit(f"permute-{number}", lambda x, o=order: x.permute(o) * 1.0, (x,))
    yield Exhibit("transpose", lambda x: x.transpose(0, 2) * 1.0, (x,))
    for axis in (0, 1, 3, -1):
        yield Exhibit(f"unsqueeze-{axis}", lambda x, a=axis: x.unsqueeze(a), (x,))
    for axis in (0, 2):
        yield Exhibit(f"squeeze-{axis}", lambda x, a=axis: x.squeeze(a), (numbers(1, 3, 1, 2),))
    for number, (start, end) in enumerate([(0, 1), (1, 2), (0, 2)]):
        yield Exhibit(f"flatten-{number}", lambda x, s=start, e=end: x.flatten(s, e), (x,))
    for number, reps in enumerate([(1, 2, 1), (2, 1, 3), (2, 1, 1, 2)]):
        yield Exhibit(f"repeat-{number}", lambda x, r=reps: x.repeat(r), (x,))
    yield Exhibit("expand", lambda x: x.expand(5, 3, 4) * 1.0, (numbers(1, 3, 4),))
    yield Exhibit("expand-rank", lambda x: x.expand(2, 3, 4) * 1.0, (numbers(3, 1),))
    for axes in ((0,), (2,), (0, 1), (-1,)):
        yield Exhibit(f"flip-{axes}", lambda x, a=axes: x.flip(a), (x,))
    y = numbers(6, 7)
    slices = [
        (slice(1, 4), slice(None)),
        (slice(None, None, 2), slice(1, -1)),
        (slice(-3, None), slice(2, 7, 3)),
        (2, slice(None)),
        (slice(None), -1),
        (slice(0, 1), slice(0, 100)),
    ]
    for number, index in enumerate(slices):
        yield Exhibit(f"slice-{number}", lambda x, i=index: x[i] * 1.0, (y,))
    yield Exhibit("narrow", lambda x: x.narrow(1, 2, 3) * 1.0, (y,))
    for number, (diagonal, name) in enumerate([(0, "tril"), (1, "tril"), (-1, "tril"), (0, "triu"), (1, "triu")]):
        yield Exhibit(f"{name}-{number}", lambda x, d=diagonal, n=name: getattr(torch, n)(x, d), (numbers(2, 4, 4),))
    for number, (pad, mode) in enumerate(
        [
            ((1, 2), "constant"),
            ((1, 2, 0, 3), "constant"),
            ((1, 1), "reflect"),
            ((2, 1, 1, 0), "reflect"),
            ((1, 2), "replicate"),
            ((1, 2, 3, 1), "replicate"),
        ]
    ):
        sample = numbers(2, 3, 4, 5) if len(pad) == 4 else numbers(2, 3, 5)
        yield Exhibit(f"pad-{number}-{mode}", lambda x, p=pad, m=mode: F.pad(x, p, m), (sample,))
    yield Exhibit("pad-value", lambda x: F.pad(x, (1, 1), value=2.5), (x,))
    yield Exhibit("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), (numbers(1, 8, 3, 2),))
    yield Exhibit("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), (numbers(1, 2, 4, 6),))


def _joins() -> Iterator[Exhibit]:
    x, y = numbers(2, 3, 4, seed=1), numbers(2, 3, 4, seed=2)
    for axis in (0, 1, 2, -1):
        yield Exhibit(f"cat-{axis}", lambda x, y, a=axis: torch.cat([x, y, x], a), (x, y))
        yield Exhibit(f"stack-{axis}", lambda x, y, a=axis: torch.stack([x, y], a), (x, y))
    yield Exhibit("chunk", lambda x: torch.cat(x.chunk(2, -1)[::-1], -1), (x,))
    yield Exhibit("split", lambda x: torch.cat(x.split([1, 3], 2)[::-1], 2), (x,))
    yield Exhibit("unbind", lambda x: x.unbind(1)[1] + x.unbind(1)[0], (x,))
    yield Exhibit("cat-int", lambda x, y: torch.cat([x, y]), (whole(3), whole(2, seed=4)))


def _indexing() -> Iterator[Exhibit]:
    x, table = numbers(4, 5, 6), numbers(9, 3)
    ids = whole(2, 4, low=0, high=9)
    yield Exhibit("embedding", lambda i, t: F.embedding(i, t), (ids, table))
    for axis in (0, 1, 2):
        chosen = whole(3, low=0, high=4, seed=axis)
        yield Exhibit(f"index_select-{axis}", lambda x, i, a=axis: x.index_select(a, i), (x, chosen))
        shape = [2 if place == axis else size for place, size in enumerate(x.shape)]
        places = whole(*shape, low=0, high=4)
        yield Exhibit(f"gather-{axis}", lambda x, i, a=axis: x.gather(a, i.long()), (x, places))
    yield Exhibit(
        "index-pair",
        lambda x, i, j: x[i.long(), j.long()],
        (x, whole(3, low=0, high=4), whole(3, low=0, high=5, seed=2)),
    )
    yield Exhibit(
        "scatter",
        lambda x, i, s: x.scatter(1, i.long(), s),
        (numbers(2, 5), torch.tensor([[0, 3], [4, 1]]).int(), numbers(2, 2)),
    )
    yield Exhibit(
        "scatter_add",
        lambda x, i, s: x.scatter_add(1, i.long(), s),
        (numbers(2, 5), whole(2, 4, low=0, high=5), numbers(2, 4)),
    )
    yield Exhibit("one_hot", lambda i: F.one_hot(i.long(), 9).float(), (ids,))
    yield Exhibit("arange-add", lambda x: x + torch.arange(4.0), (numbers(3, 4),))
    yield Exhibit("nonzero-count", lambda i: (i != 0).sum(1).int(), (whole(3, 4, low=0, high=3),))
