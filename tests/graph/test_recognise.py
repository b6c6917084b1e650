"""What is written out becomes the operation that it is, what only looks like it stays, and what a target lacks goes."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from exporter import graph
from exporter.core.types import Captured, PassChoice
from exporter.graph.capture import capture
from exporter.parity.verdict import PASS_ERROR
from models.layers import RMSNorm, SmallEpsNorm, normalise

D, N, EPS = 8, 5, 1e-5
EVERYTHING = {step.name: step for step in graph.PASSES}
ONE = {"aten.layer_norm.default", "aten.rms_norm.default", "aten.gelu.default", "aten.silu.default", "aten.softmax.int"}


class Made(nn.Module):
    """A function of x [1, h, N, D] and of constants of D numbers that no two of its tests share."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.gain, self.bias = (nn.Parameter(torch.rand(D) + 0.5) for _ in range(2))
        self.matrix, self.table = nn.Parameter(torch.randn(D, D)), nn.Parameter(torch.rand(2, 1, D))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def rewritten(function: Callable[..., Tensor], *names: str) -> list[str]:
    """Return the operations after passes, each of which was proved on numbers of several sizes."""
    cases = (
        torch.randn(6, 1, 2, N, D, generator=torch.Generator().manual_seed(1))
        * torch.logspace(-2, 1, 6)[:, None, None, None, None]
    )
    cases[5, ..., 0, :] = 0
    captured = capture("made", "made", Made(function).eval(), {"x": cases[0].numpy()}, ("y",))
    passes, effects = graph.Proofs(captured, {"x": cases.numpy()}, PASS_ERROR).prove("captured", PassChoice(names))
    assert all(effect.reason is None for effect in effects), effects
    after = graph.rewritten(captured, passes)
    with torch.no_grad():
        for case in cases:
            expected = captured.exported.module()(x=case)["y"]
            torch.testing.assert_close(after.exported.module()(x=case)["y"], expected, rtol=1e-5, atol=1e-5)
    return operations(after)


def operations(captured: Captured) -> list[str]:
    return [str(node.target) for node in captured.exported.graph.nodes if node.op == "call_function"]


def mean(x: Tensor, how: int) -> Tensor:
    match how:
        case 0:
            return x.mean(-1, keepdim=True)
        case 1:
            return x.sum(-1, keepdim=True) / D
        case 2:
            return (1 / D) * torch.sum(x, dim=-1, keepdim=True)
        case _:
            return x.mean(3).unsqueeze(-1)


def square(x: Tensor, how: int) -> Tensor:
    return (x * x, x**2, torch.square(x), x.pow(2))[how]


def variance(x: Tensor, how: int) -> Tensor:
    match how:
        case 0:
            return x.var(-1, keepdim=True, unbiased=False)
        case 1:
            return mean(square(x - mean(x, 1), 2), 0)
        case 2:
            return torch.mean(x**2, -1, keepdim=True) - x.mean(-1, keepdim=True) ** 2
        case _:
            return mean(square(x - mean(x, 0), how % 4), 3)


def divided(x: Tensor, total: Tensor, how: int) -> Tensor:
    match how:
        case 0:
            return x * torch.rsqrt(total)
        case 1:
            return x / torch.sqrt(total)
        case 2:
            return 1 / torch.sqrt(total) * x
        case 3:
            return x * total**-0.5
        case _:
            return x / total**0.5


hows = st.integers(0, 3)


@settings(deadline=None, max_examples=8)
@given(st.booleans(), hows, hows, st.integers(0, 4), st.integers(0, 4), hows)
def test_every_spelling_of_a_norm_is_one_operation(
    centred: bool, mean_how: int, square_how: int, divided_how: int, gain_how: int, cast_how: int
) -> None:
    def written(made: Made, x: Tensor) -> Tensor:
        given_x = x.to(torch.float32) if cast_how else x
        total = variance(given_x, square_how) if centred else mean(square(given_x, square_how), mean_how)
        value = divided(given_x - mean(given_x, mean_how) if centred else given_x, EPS + total, divided_how)
        match gain_how:
            case 0:
                return torch.tanh(value)
            case 1:
                return made.gain * value
            case 2:
                return value.to(torch.float32) * made.gain + made.bias
            case 3:
                return value * made.table + made.bias  # a gain that differs by heads is not a norm's own
            case _:
                return made.bias.reshape(1, 1, D) + (made.gain * 2)[None] * value * 3

    found = rewritten(written, "recognise", "rms_norm", "absorb")
    rest = ["aten.tanh.default"] if gain_how == 0 else ["aten.mul.Tensor", "aten.add.Tensor"] if gain_how == 3 else []
    if not centred and gain_how in (2, 4):
        rest = ["aten.add.Tensor"]  # an RMS norm has no bias
    assert found == ["aten.layer_norm.default" if centred else "aten.rms_norm.default", *rest]


def gelu(how: int, x: Tensor) -> Tensor:
    erf, root = torch.erf(x / math.sqrt(2)), math.sqrt(2 / math.pi)
    tanh = torch.tanh(0.7978845608 * (x + 0.044715 * x**3))
    spelled: tuple[Callable[[], Tensor], ...] = (
        lambda: 0.5 * x * (1 + erf),
        lambda: x * (erf * 0.5 + 0.5),
        lambda: (x + x * torch.erf(x * 0.7071067811865476)) / 2,
        lambda: 0.5 * x * (1 + torch.tanh(root * (x + 0.044715 * (x * x * x)))),
        lambda: x * 0.5 * (tanh + 1.0),
        lambda: x * torch.sigmoid(2 * root * x * (1 + 0.044715 * torch.square(x))),
    )
    return spelled[how]()


@pytest.mark.parametrize("how", range(6))
def test_both_forms_of_gelu_are_one_operation(how: int) -> None:
    assert rewritten(lambda made, x: gelu(how, x * made.gain), "recognise") == ["aten.mul.Tensor", "aten.gelu.default"]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda _, x: x * torch.sigmoid(x), ["aten.silu.default"]),
        (lambda _, x: share(torch.exp(x - x.amax(2, True)), 2), ["aten.softmax.int"]),
        (lambda _, x: share(torch.exp(x - x.max(-1, True)[0]), -1), ["aten.softmax.int"]),
        (lambda _, x: torch.exp(x) / torch.exp(x).sum(-1, True), ["aten.softmax.int"]),
        (lambda made, x: x @ made.matrix.T + made.bias, ["aten.linear.default"]),
        (lambda made, x: made.bias[None] + torch.matmul(x, made.matrix), ["aten.linear.default"]),
        (lambda made, x: functional.linear(x, made.matrix) + made.bias, ["aten.linear.default"]),
        (lambda made, x: RMSNorm.forward(made_norm(made), x), ["aten.rms_norm.default"]),
        (lambda made, x: SmallEpsNorm.forward(made_norm(made), x), ["aten.layer_norm.default"]),
        (lambda made, x: normalise(x)[0], ["aten.layer_norm.default"]),
    ],
)  # fmt: skip
def test_what_is_written_out_is_one_operation(function: Callable[..., Tensor], expected: list[str]) -> None:
    assert rewritten(function, "recognise", "rms_norm", "absorb") == expected


def share(x: Tensor, axis: int) -> Tensor:
    return x * (1 / x.sum(axis, True))


def made_norm(made: Made) -> Made:
    made.weight, made.dimension, made.eps = made.gain, D, EPS
    return made


def attention(made: Made, x: Tensor) -> Tensor:
    query, key, value = x * made.gain, torch.tanh(x), x + made.bias
    return torch.softmax(query @ key.transpose(2, 3) / math.sqrt(D) + made.matrix[:N, :N], -1) @ value


def test_attention_is_one_operation_and_is_written_out_for_all_heads_at_once() -> None:
    found = rewritten(attention, "recognise")
    assert found[-1] == "aten.scaled_dot_product_attention.default" and "aten.softmax.int" not in found
    assert rewritten(attention, "recognise", "absorb", "spell_out").count("aten.bmm.default") == 2


def read_twice(x: Tensor, middle: Tensor) -> Tensor:
    return middle + (x - middle) * torch.rsqrt(x.var(-1, keepdim=True) + EPS)


STAY = {
    "eps behind the root": lambda _, x: (x - mean(x, 0)) / (torch.sqrt(variance(x, 1)) + EPS),
    "eps read as a value": lambda made, x: x * torch.rsqrt(mean(x * x, 0) + made.gain[0]),
    "eps twice": lambda _, x: x * torch.rsqrt(mean(x * x, 0) + EPS + EPS),
    "mean of another axis": lambda _, x: x * torch.rsqrt((x * x).mean(2, True) + EPS),
    "centre of another axis": lambda _, x: (x - x.mean(2, True)) * torch.rsqrt(x.var(-1, keepdim=True) + EPS),
    "root read elsewhere": lambda _, x: torch.mul(*normalise(x)),
    "mean read elsewhere": lambda _, x: read_twice(x, x.mean(-1, True)),
    "another value": lambda _, x: torch.tanh(x) * torch.rsqrt(mean(x * x, 0) + EPS),
    "not a square": lambda _, x: x * torch.rsqrt(mean(x * torch.tanh(x), 0) ** 2 + EPS),
    "another GELU": lambda _, x: 0.5 * x * (1 + torch.tanh(0.8 * (x + 0.044715 * x**3))),
    "another sigmoid": lambda _, x: x * torch.sigmoid(1.702 * x),
    "sigmoid read elsewhere": lambda _, x: (lambda s: torch.tanh(s) - x * s)(torch.sigmoid(x)),
    "softmax of two axes": lambda _, x: torch.exp(x) / torch.exp(x).sum((2, 3), True),
    "another sum": lambda _, x: torch.exp(x) / torch.exp(x.tanh()).sum(-1, True),
    "a shift in one of both": lambda _, x: torch.exp(x - x.amax(-1, True)) / torch.exp(x).sum(-1, True),
    "bias of rows": lambda made, x: x @ made.matrix + made.bias[:N, None],
}  # fmt: skip


@pytest.mark.parametrize("name", STAY)
def test_what_only_looks_like_it_stays(name: str) -> None:
    found = rewritten(STAY[name], "recognise", "rms_norm")
    assert not ONE & set(found) and "aten.linear.default" not in found


def test_gains_that_inputs_change_are_no_part_of_a_norm() -> None:
    def written(_: Made, x: Tensor) -> Tensor:
        return normalise(x)[0] * torch.tanh(x[:, :1, :1])

    assert rewritten(written, "recognise")[-1] == "aten.mul.Tensor"


@settings(deadline=None, max_examples=5)
@given(st.sampled_from(("none", "causal", "added", "seen", "nobody")), st.booleans(), st.integers(0, 2))
def test_what_a_target_lacks_is_written_out(kind: str, gain: bool, norm: int) -> None:
    seen = torch.ones(N, N, dtype=torch.bool).tril(1)
    seen[2] = kind != "nobody"
    mask = {"added": seen * -1.5, "seen": seen, "nobody": seen}.get(kind)

    def written(made: Made, x: Tensor) -> Tensor:
        weight, bias = (made.gain, made.bias) if gain else (None, None)
        match norm:
            case 0:
                y = functional.layer_norm(x, (D,), weight, bias)
            case 1:
                y = functional.rms_norm(x, (D,), weight)
            case _:
                y = functional.gelu(x, approximate="tanh") + x.mean(-1, keepdim=True) + x.sum((3,))[..., None]
        return functional.scaled_dot_product_attention(y, torch.tanh(y), x, mask, is_causal=kind == "causal")

    found = rewritten(written, "absorb", "spell_out")
    assert not {*found} & {*ONE - {"aten.softmax.int"}, "aten.mean.dim", "aten.sum.dim_IntList"}
    assert "aten.scaled_dot_product_attention.default" not in found


def test_fp16_is_lowered_from_what_was_written() -> None:
    x = np.ones((1, 2, N, D), np.float32)
    captured = capture("made", "made", Made(lambda _, x: normalise(x)[0]).eval(), {"x": x}, ("y",))
    for form in ("within_half", "half"):
        passes, _ = graph.Proofs(captured, {"x": x[None]}, PASS_ERROR).prove(form, PassChoice(graph.OPTIONAL))
        assert not {step.name for step in passes} & {"recognise", "rms_norm", "spell_out"}
