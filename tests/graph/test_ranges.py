"""The rewrites for 16-bit floats: what they compute is the same, and fits where it did not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporter import graph, pipeline
from exporter.core.types import Captured, PassChoice
from exporter.graph import half, ranges
from exporter.graph.capture import capture
from exporter.graph.ranges import widest
from exporter.parity.verdict import PASS_ERROR
from exporter.pipeline import source as sources
from models.layers import LayerNorm, RMSNorm

WIDTH = 64


class Wide(nn.Module):
    """Two normalisations of large values, and products of attention that only fit after they are divided."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm, self.rms_norm = LayerNorm(WIDTH), RMSNorm(WIDTH)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        normal = self.layer_norm(x) + self.rms_norm(x)
        return normal, torch.bmm(x, x.transpose(1, 2)) * WIDTH**-0.5


def captured_of(module: nn.Module, outputs: tuple[str, ...]) -> Captured:
    return capture("wide", "wide", module.eval(), {"x": np.zeros((1, 3, WIDTH), np.float32)}, outputs)


@pytest.fixture(scope="module")
def forms() -> dict[str, nn.Module]:
    plain = captured_of(Wide(), ("normal", "product"))
    forms = {
        "captured": plain,
        "within_half": graph.rewritten(plain, (ranges.PASS,)),
        "half": graph.rewritten(plain, (ranges.PASS, half.PASS)),
    }
    return {name: form.exported.module() for name, form in forms.items()}


def drawn(seed: int, size: float) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, size, (1, 3, WIDTH)).astype(np.float32))


@settings(deadline=None)  # two cores are shared with others
@given(st.integers(0, 9999), st.floats(-3, 2.8))
def test_what_fits_into_16_bits_is_what_was_there(forms: dict[str, nn.Module], seed: int, magnitude: float) -> None:
    x = drawn(seed, 10**magnitude)
    with torch.no_grad():
        expected, fitting, halved = (forms[name](x=x) for name in ("captured", "within_half", "half"))
    for name, wanted in expected.items():
        scale = wanted.abs().max().item()
        torch.testing.assert_close(fitting[name], wanted, rtol=1e-5, atol=1e-5 * scale)
        if scale < 60_000:  # fp16 ends at 65,504
            torch.testing.assert_close(halved[name], wanted, rtol=0, atol=0.01 * scale)


def test_values_whose_squares_leave_16_bits(forms: dict[str, nn.Module]) -> None:
    x = drawn(0, 600.0)
    assert x.square().mean().item() > torch.finfo(torch.float16).max
    with torch.no_grad():
        expected, halved = forms["captured"](x=x), forms["half"](x=x)
    torch.testing.assert_close(halved["normal"], expected["normal"], rtol=0, atol=0.01 * expected["normal"].abs().max())
    x = torch.full((1, 3, WIDTH), 60.0)
    assert (x * x).sum(-1).max().item() > torch.finfo(torch.float16).max
    assert forms["half"](x=x)["product"].max().item() == pytest.approx(60 * 60 * WIDTH**0.5, rel=1e-3)


def test_the_widest_value_is_found_in_any_case(forms: dict[str, nn.Module]) -> None:
    cases = np.stack([np.full((1, 3, WIDTH), size, np.float32) for size in (1.0, 60.0, 2.0)])
    assert widest(forms["captured"], {"x": cases}) == 64 * 60 * 60  # of RMSNorm's sum, and of the product
    assert widest(forms["captured"], {"x": cases[:1]}) == 64


@pytest.mark.parametrize(("wider", "outgrows"), [(1, False), (100, True)])
def test_only_what_outgrows_16_bits_is_rewritten(wider: int, outgrows: bool) -> None:
    source = sources.load(pipeline.ProgramChoice("ofa", "subnet"))
    source.model.items.weight = nn.Parameter(source.model.items.weight * wider, requires_grad=False)
    plain = source.captured("inputs", "captured")
    passes, _ = graph.Proofs(plain, source.inputs, PASS_ERROR).prove("within_half", PassChoice())
    assert (ranges.PASS in passes) == outgrows


def test_padding_stays_zero(forms: dict[str, nn.Module]) -> None:
    assert not forms["half"](x=torch.zeros(1, 3, WIDTH))["normal"].any()


class Other(nn.Module):
    """Nearly the same, and none of it may be rewritten."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tiny = torch.rsqrt((x * x).mean(-1, keepdim=True) + 1e-12)  # fp16 has no root of this eps
        product = torch.rsqrt((x * (x + 1)).mean(-1, keepdim=True) + 1e-6)
        dropped = torch.rsqrt((x * x).mean(-1) + 1e-6)[..., None]
        return torch.bmm(x, x.transpose(1, 2)) * 2.0 + tiny + product + dropped


def test_other_forms_stay_as_they_are() -> None:
    plain = captured_of(Other(), ("y",))

    def operations(captured: Captured) -> list[str]:
        return [str(node.target) for node in captured.exported.graph.nodes if node.op == "call_function"]

    assert operations(graph.rewritten(plain, (ranges.PASS,))) == operations(plain)


def test_whole_numbers_come_out_of_a_16_bit_program_as_whole_numbers() -> None:
    class Best(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            best = torch.topk(x.flatten(1), 3)
            return best.indices.to(torch.int32) + 5_000, best.values  # fp16 has no odd numbers beyond 2,048

    halved = graph.rewritten(captured_of(Best(), ("ids", "scores")), (half.PASS,))
    given_back = halved.exported.module()(x=drawn(0, 1.0))
    assert given_back["ids"].dtype == torch.int32
    assert torch.equal(given_back["ids"], Best()(drawn(0, 1.0))[0])
    assert given_back["scores"].dtype == torch.float32
