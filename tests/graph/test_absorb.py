"""The pass absorb, and plain forms of simplify: what moves into constant matrices, and what must not."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from exporter import graph
from exporter.core.types import Captured
from exporter.graph.capture import capture

N, D, H = 5, 8, 2
EVERYTHING = {step.name: step for step in graph.PASSES}
MOVED = ("simplify", "absorb")


class Block(nn.Module):
    """Weights for small graphs; `compute` is what a test wants computed of them."""

    def __init__(self, compute: "Callable[[Block, Tensor], Tensor]", seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.compute = compute
        self.one, self.two, self.three = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, 3, bias=False)
        self.heads = nn.Parameter(torch.randn(H, D // H, D // H))
        self.gain, self.shift = nn.Parameter(torch.randn(D)), nn.Parameter(torch.randn(D))

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(self, x)


def rewritten(module: nn.Module, *names: str) -> tuple[Captured, Counter[str]]:
    """Return a module's program after passes, of which every one that computes differently fails here."""
    x = np.random.default_rng(0).normal(size=(1, N, D)).astype(np.float32)
    captured = capture("random", "random", module.eval(), {"x": x}, ("y",))
    result = graph.rewritten(captured, tuple(EVERYTHING[name] for name in names))
    with torch.no_grad():
        expected, found = (one.exported.module()(x=torch.from_numpy(x))["y"] for one in (captured, result))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    nodes = result.exported.graph.nodes
    return result, Counter(str(node.target).split(".")[1] for node in nodes if "aten" in str(node.target))


def apart(x: Tensor) -> Tensor:
    return x.reshape(1, N, H, D // H).transpose(1, 2)


def attention(b: Block, x: Tensor) -> Tensor:
    weights = torch.softmax(apart(b.one(x)) @ apart(b.two(x)).transpose(2, 3) * 0.25, -1)
    return weights @ apart(x)


MOVES: dict[str, tuple[Callable[[Block, Tensor], Tensor], dict[str, int]]] = {
    "gain and shift before": (
        lambda b, x: b.one(x * b.gain + b.shift) + b.two(x * b.gain + b.shift),
        {"mul": 0, "add": 1},
    ),
    "gain and shift behind": (lambda b, x: (b.one(x) * 0.5 - 1.0) / b.gain, {"mul": 0, "sub": 0, "div": 0}),
    "affine of a norm": (
        lambda b, x: b.one(functional.layer_norm(x, (D,), b.gain, b.shift)),
        {"layer_norm": 1, "linear": 1, "add": 0, "mul": 0},
    ),
    "the scale of attention": (attention, {"mul": 0, "bmm": 2}),
    "centring": (lambda b, x: (y := b.one(x)) - y.mean(-1, keepdim=True), {"mean": 0, "sub": 0}),
    "centring by heads": (
        lambda b, x: (y := apart(x) @ b.heads + b.shift[: D // H]) - y.mean(-1, keepdim=True),
        {"mean": 0, "sub": 0},
    ),
    "two products": (lambda b, x: b.three(b.one(x)), {"linear": 1}),
    "one column through a matrix": (
        lambda b, x: torch.einsum("bcd,bd->bc", b.two(torch.tanh(x)), x[:, 0]),
        {"linear": 2, "einsum": 0, "mm": 1},
    ),
    "parts of one product": (
        lambda b, x: (y := b.one(x).chunk(2, -1))[0].sum(1) + y[1][:, -1],
        {"linear": 2, "chunk": 0},
    ),
    "a factor of two terms": (
        lambda b, x: b.one(x) + (apart(x) @ (y := apart(x).tanh().transpose(2, 3)) - apart(x * 2).sin() @ y).sum(),
        {"bmm": 1},
    ),
    "a term that centring takes away": (
        lambda b, x: functional.layer_norm(
            apart(x).transpose(2, 3)
            @ (apart(b.one(x)).sin() * (c := x[..., :1].cos().reshape(1, 1, N, 1)) - (c * 3 + 1)),
            (D // H,),
        ),
        {"sub": 0, "add": 0, "mul": 1},
    ),
    "a value and its product": (
        lambda b, x: (p := x.sin() * x.cos()) + p * (x.tanh() * 1.0),
        {"mul": 3, "add": 1},
    ),
    "constants of one product": (
        lambda b, x: (apart(x).sin() * 0.25).transpose(1, 2) * b.heads[:, 0] * b.heads[:, 1],
        {"mul": 1},
    ),
    "a number and a constant": (lambda b, x: x.sin() / 4 * b.gain, {"mul": 1, "div": 0}),
    "a weighted sum": (lambda b, x: (x.tanh() * b.gain).sum(-1), {"mul": 0, "sum": 0, "linear": 1}),
}


@pytest.mark.parametrize("name", MOVES)
def test_what_is_linear_moves_into_matrices(name: str) -> None:
    compute, expected = MOVES[name]
    _, found = rewritten(Block(compute), *MOVED)
    assert {operation: found[operation] for operation in expected} == expected


STAYS: dict[str, tuple[Callable[[Block, Tensor], Tensor], dict[str, int]]] = {
    "a gain that another operation reads": (lambda b, x: b.one(y := x * b.gain) + y, {"mul": 1}),
    "a mean of another value": (lambda b, x: b.one(x) - b.two(x).mean(-1, keepdim=True), {"mean": 1}),
    "a product whose value is read": (lambda b, x: b.three(y := b.one(x)).sum() + y, {"linear": 2}),
    "a gain of each row": (lambda b, x: b.one(x * x[:, :1, :1]), {"mul": 1}),
    "parts of a product that is read": (lambda b, x: (y := b.one(x))[..., :4] * y.sum(), {"linear": 1}),
    "different factors": (lambda b, x: x @ b.one.weight.sin() + x.tanh() @ b.two.weight.sin(), {"mm": 2}),
    "a term that a bias keeps": (lambda b, x: functional.layer_norm(y := x.sin() - x[..., :1], (D,)) + y, {"sub": 1}),
    "a term along another axis": (lambda b, x: functional.layer_norm(x.sin() - x[:, :1], (D,)), {"sub": 1}),
    "a term beside a product of rows": (
        lambda b, x: functional.layer_norm((x.sin() - x[..., :1]) * x.cos(), (D,)),
        {"sub": 1},
    ),
    "a term whose mean is read": (
        lambda b, x: (y := x.sin() - x[..., :1]) - (mean := y.mean(-1, keepdim=True)) + mean.exp(),
        {"sub": 2},
    ),
    "a term of both sides of a product": (
        lambda b, x: functional.layer_norm((y := (x @ x.transpose(1, 2)).sin() - x[..., :1]) @ y, (N,)),
        {"sub": 1},
    ),
    "constants that are larger together": (lambda b, x: x.sin() * b.gain[:N, None] * b.gain, {"mul": 2}),
    "a mean along rows": (lambda b, x: (y := b.one(x)) - y.mean(1, keepdim=True), {"mean": 1}),
}


@pytest.mark.parametrize("name", STAYS)
def test_what_only_looks_linear_stays(name: str) -> None:
    compute, expected = STAYS[name]
    _, found = rewritten(Block(compute), *MOVED)
    assert {operation: found[operation] for operation in expected} == expected


def test_a_large_matrix_that_is_read_elsewhere_is_not_copied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.gain = nn.Parameter(torch.randn(4096, D)), nn.Parameter(torch.randn(D))

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x * self.gain, self.table) + (self.table * x.sum()).sum()

    result, found = rewritten(Tied(), *MOVED)
    assert found["mul"] == 2
    assert not [name for name, value in result.exported.named_buffers() if "rewritten" in name and value.numel() > 4096]


@pytest.mark.parametrize(
    "equation", ["bij,bjk->bik", "bij,bkj->bki", "bij,bik->bjk", "bij,jk->bik", "bij,k->bikj", "bij,bij->b"]
)
def test_einsum_is_a_product(equation: str) -> None:
    other = {"jk": (D, 3), "k": (4,), "bkj": (1, 3, D), "bjk": (1, D, 3), "bik": (1, N, 3), "bij": (1, N, D)}
    shape = other[equation.split(",")[1].split("->")[0]]
    value = torch.randn(shape)
    _, found = rewritten(Block(lambda _, x: torch.einsum(equation, x.sin(), value.sin() * x.sum())), "simplify")
    assert found["einsum"] == 0 and found["bmm"] + found["mm"] == (equation != "bij,k->bikj")  # sums over no letter


@pytest.mark.parametrize(("equation", "shapes"), [("bii->b", [(1, N, N)]), ("bij,bjk->bk", [(1, N, N), (1, N, 3)])])
def test_an_einsum_that_is_no_product_stays(equation: str, shapes: list[tuple[int, ...]]) -> None:
    values = [torch.randn(shape) for shape in shapes]
    _, found = rewritten(Block(lambda _, x: torch.einsum(equation, *(a * x.sum() for a in values))), "simplify")
    assert found["einsum"] == 1


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(0, 8), min_size=2, max_size=6), st.integers(0, 99))
def test_random_linear_graphs_compute_the_same(steps: list[int], seed: int) -> None:
    def compute(b: Block, x: Tensor) -> Tensor:
        for kind in steps:
            x = step(b, kind, x)
        return b.three(x)

    rewritten(Block(compute, seed), "simplify", "absorb")


def step(b: Block, kind: int, x: Tensor) -> Tensor:
    """Return a drawn operation of x [1, N, D]; values stay near one."""
    match kind:
        case 0:
            return x * b.gain.tanh()
        case 1:
            return (x + b.shift) / 2
        case 2:
            return b.one(x)
        case 3:
            return b.two(x) - b.two(x).mean(-1, keepdim=True)
        case 4:
            return functional.layer_norm(x, (D,), b.gain, b.shift)
        case 5:
            return (apart(x) @ b.heads.tanh() * 0.5).transpose(1, 2).flatten(2)
        case 6:
            return torch.tanh(x) + b.one(x)
        case 7:
            return x - (x.tanh() * b.gain).sum(-1, keepdim=True) * 0.1
        case _:
            return attention(b, x).transpose(1, 2).flatten(2)
