"""The layers of the zoo: products, convolutions, pooling, normalisations and small compositions."""

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F  # noqa: N812
from mil_judging import mean_of_whole_kernels
from mil_zoo import Exhibit, numbers


def layers() -> list[Exhibit]:
    """Return the functions of this file."""
    groups = (_layers, _convolutions, _pools, _norms, _compositions)
    return [exhibit for group in groups for exhibit in group()]


def _layers() -> Iterator[Exhibit]:
    for shape in ((5,), (3, 5), (2, 3, 5)):
        weight, bias = numbers(4, 5, seed=1), numbers(4, seed=2)
        yield Exhibit(f"linear-{len(shape)}", lambda x, w=weight, b=bias: F.linear(x, w, b), (numbers(*shape),))
        yield Exhibit(f"linear-plain-{len(shape)}", lambda x, w=weight: F.linear(x, w), (numbers(*shape),))
    pairs = [
        ((3, 4), (4, 5)),
        ((2, 3, 4), (2, 4, 5)),
        ((2, 3, 4), (4, 5)),
        ((2, 1, 3, 4), (1, 6, 4, 5)),
        ((2, 3, 4), (1, 4, 2)),
    ]
    for number, (left, right) in enumerate(pairs):
        yield Exhibit(f"matmul-{number}", torch.matmul, (numbers(*left, seed=1), numbers(*right, seed=2)))
    yield Exhibit("bmm", torch.bmm, (numbers(2, 3, 4, seed=1), numbers(2, 4, 5, seed=2)))
    yield Exhibit("addmm", torch.addmm, (numbers(5), numbers(3, 4, seed=1), numbers(4, 5, seed=2)))
    yield Exhibit("baddbmm", torch.baddbmm, (numbers(2, 3, 5), numbers(2, 3, 4, seed=1), numbers(2, 4, 5, seed=2)))
    for number, equation in enumerate(
        ["bhid,bhjd->bhij", "bhij,bhjd->bhid", "bij,bjk->bik", "ij,jk->ik", "bi,bj->bij"]
    ):
        sizes = {"b": 2, "h": 3, "i": 4, "j": 4, "d": 5, "k": 6}
        terms = equation.split("->")[0].split(",")
        inputs = tuple(numbers(*(sizes[c] for c in term), seed=n) for n, term in enumerate(terms))
        yield Exhibit(f"einsum-{number}", lambda x, y, e=equation: torch.einsum(e, x, y), inputs)
    q, k, v = (numbers(1, 2, 4, 8, seed=s) for s in (1, 2, 3))
    yield Exhibit("attention", F.scaled_dot_product_attention, (q, k, v))
    yield Exhibit(
        "attention-mask", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), (q, k, v, numbers(4, 4))
    )


# inner and outer channels, kernel, stride, padding, dilation, groups
CONVOLUTIONS = [
    (3, 4, 3, 1, 0, 1, 1),
    (4, 6, 2, 2, 1, 1, 2),
    (4, 4, 3, 1, 2, 2, 1),
    (4, 4, 3, 2, 1, 1, 4),
    (4, 8, 3, 1, 1, 1, 4),
    (2, 3, 1, 1, 0, 1, 1),
]
# inner and outer channels, kernel, stride, padding, groups
TRANSPOSED = [(3, 4, 3, 1, 0, 1), (4, 6, 2, 2, 0, 2), (2, 3, 3, 2, 1, 1), (4, 4, 4, 2, 1, 4)]
# kernel, stride, padding, ceil mode
POOLS = [(2, 2, 0, False), (3, 2, 1, False), (3, 1, 1, False), (3, 2, 1, True), (2, 3, 0, True)]


def _convolutions() -> Iterator[Exhibit]:
    for number, (inner, outer, kernel, stride, padding, dilation, groups) in enumerate(CONVOLUTIONS):
        for rank, sizes in ((1, (9,)), (2, (7, 8)), (3, (5, 6, 5))):
            weight, bias = numbers(outer, inner // groups, *(kernel,) * rank, seed=1), numbers(outer, seed=2)
            options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
            call = partial(getattr(F, f"conv{rank}d"), weight=weight, bias=bias, **options)
            yield Exhibit(f"conv{rank}d-{number}", call, (numbers(2, inner, *sizes),))
    for number, (inner, outer, kernel, stride, padding, groups) in enumerate(TRANSPOSED):
        for rank, sizes in ((1, (6,)), (2, (4, 5))):
            weight, bias = numbers(inner, outer // groups, *(kernel,) * rank, seed=1), numbers(outer, seed=2)
            options = {"stride": stride, "padding": padding, "groups": groups}
            call = partial(getattr(F, f"conv_transpose{rank}d"), weight=weight, bias=bias, **options)
            yield Exhibit(f"conv_transpose{rank}d-{number}", call, (numbers(1, inner, *sizes),))


def _pools() -> Iterator[Exhibit]:
    for number, (kernel, stride, padding, ceil) in enumerate(POOLS):
        for rank, sizes in ((1, (9,)), (2, (7, 8))):
            if rank == 1 and ceil and not padding:
                # Core ML keeps a last window that starts past the input, unless there is padding; torch drops it.
                continue
            x = numbers(1, 3, *sizes)
            options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil}
            yield Exhibit(f"max_pool{rank}d-{number}", partial(getattr(F, f"max_pool{rank}d"), **options), (x,))
            for counted in (True, False):
                call = partial(getattr(F, f"avg_pool{rank}d"), count_include_pad=counted, **options)
                written = partial(mean_of_whole_kernels, kernel=[kernel] * rank, strides=[stride] * rank)
                written = partial(written, pad=[padding] * rank, ceil=ceil) if counted else None
                yield Exhibit(f"avg_pool{rank}d-{number}-{counted}", call, (x,), written=written)
    yield Exhibit("adaptive_avg_pool2d", lambda x: F.adaptive_avg_pool2d(x, 1), (numbers(1, 3, 5, 6),))
    yield Exhibit("adaptive_max_pool2d", lambda x: F.adaptive_max_pool2d(x, 1), (numbers(1, 3, 5, 6),))
    for size in ((8, 10), (6, 15)):
        x = numbers(1, 2, 4, 5)
        yield Exhibit(f"interpolate-nearest-{size[0]}", partial(F.interpolate, size=size, mode="nearest"), (x,))
        for corners in (False, True):
            call = partial(F.interpolate, size=size, mode="bilinear", align_corners=corners)
            yield Exhibit(f"interpolate-bilinear-{size[0]}-{corners}", call, (x,))


def _norms() -> Iterator[Exhibit]:
    gamma, beta, mean, variance = (
        numbers(3, seed=1),
        numbers(3, seed=2),
        numbers(3, seed=3),
        numbers(3, low=0.2, high=2, seed=4),
    )
    for shape in ((2, 3, 5), (2, 3, 4, 5)):
        x = numbers(*shape)
        yield Exhibit(f"batch_norm-{len(shape)}", lambda x: F.batch_norm(x, mean, variance, gamma, beta), (x,))
        yield Exhibit(f"instance_norm-{len(shape)}", lambda x: F.instance_norm(x, weight=gamma, bias=beta), (x,))
    for shape, axes in (((2, 6), 1), ((2, 3, 6), 1), ((2, 3, 4), 2)):
        size = shape[len(shape) - axes :]
        weight, bias = numbers(*size, seed=5), numbers(*size, seed=6)
        yield Exhibit(
            f"layer_norm-{len(shape)}-{axes}",
            lambda x, s=size, w=weight, b=bias: F.layer_norm(x, s, w, b),
            (numbers(*shape),),
        )
    for groups in (1, 2, 4):
        yield Exhibit(f"group_norm-{groups}", lambda x, g=groups: F.group_norm(x, g), (numbers(2, 4, 3, 5),))
    yield Exhibit("rms_norm", lambda x: x * torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-6), (numbers(2, 3, 8),))
    yield Exhibit("normalize", lambda x: F.normalize(x, dim=-1), (numbers(2, 3, 8),))


def _compositions() -> Iterator[Exhibit]:
    yield Exhibit(
        "softmax-attention",
        lambda q, k: torch.softmax(q @ k.transpose(-1, -2) / 8**0.5, -1) @ k,
        (numbers(2, 4, 8), numbers(2, 5, 8, seed=1)),
    )
    yield Exhibit(
        "rope", lambda x: torch.stack((-x[..., 1::2], x[..., 0::2]), -1).flatten(-2) * 0.5 + x, (numbers(2, 3, 8),)
    )
    yield Exhibit("masked-mean", _masked_mean, (numbers(2, 4, 3), torch.tensor([[1, 2, 0, 0], [3, 0, 0, 0]]).int()))
    yield Exhibit("geglu", lambda x: x.chunk(2, -1)[0] * F.gelu(x.chunk(2, -1)[1]), (numbers(2, 3, 8),))
    yield Exhibit("causal", lambda x: (x @ x.transpose(-1, -2)).tril(), (numbers(2, 4, 3),))
    yield Exhibit("log-mean-exp", lambda x: torch.logsumexp(x, -1) - 2.0, (numbers(3, 8),))
    yield Exhibit("quadratic", lambda x, y: x * x - 2 * x * y + y * y, (numbers(3, 4), numbers(4, seed=1)))
    yield Exhibit(
        "standardise", lambda x: (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-5), (numbers(3, 8),)
    )


def _masked_mean(x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    keep = (ids != 0).float()
    return (x * keep[..., None]).sum(1) / keep.sum(1, keepdim=True)
