"""Passes for small numbers, orders, slices, sums and roots, and axes moved late: what becomes of which operations."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from exporter import graph
from exporter.core.types import Captured
from exporter.graph.capture import capture

N, D, H = 6, 8, 2
EVERYTHING = {step.name: step for step in graph.PASSES}
CASES = np.array([[0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [3, -2, 7, 1, 0, 0], [9, 9, 9, 9, 9, 9]])


class Session(nn.Module):
    """A table, weights, and constants by place; `compute` gets the looked up rows [1, N, D] and the ids [1, N]."""

    def __init__(self, compute: "Callable[[Session, Tensor, Tensor], Tensor]") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.compute = compute
        self.items, self.one = nn.Embedding(12, D), nn.Linear(D, D)
        for name in ("cosine", "sine"):
            self.register_buffer(name, torch.randn(N, D // H))
        self.register_buffer("neighbour", torch.arange(D // H) ^ 1)
        self.register_buffer("places", torch.arange(N, dtype=torch.float32))
        self.register_buffer("table", torch.randn(N, 3))

    def forward(self, ids: Tensor) -> Tensor:
        return self.compute(self, self.items(ids.clamp(0, 11)), ids)

    def last(self, ids: Tensor) -> Tensor:
        """Return the mark [1, N] of the last id that is none of padding."""
        count = (ids != 0).to(torch.float32).sum(-1, keepdim=True)
        return (self.places == torch.relu(count - 1)).to(torch.float32)

    def rotated(self, x: Tensor) -> Tensor:
        """Return a projection [1, H, N, D / H] with pairs of numbers rotated by place."""
        heads = self.one(x).reshape(1, N, H, D // H).transpose(1, 2)
        return heads * self.cosine + heads.index_select(-1, self.neighbour) * self.sine


def rewritten(compute: Callable[[Session, Tensor, Tensor], Tensor], *names: str) -> tuple[Captured, Counter[str]]:
    """Return a program after passes, of which every one that computes differently for any case fails here."""
    captured = capture("random", "random", Session(compute).eval(), {"ids": CASES[:1]}, ("y",))
    result = graph.rewritten(captured, tuple(EVERYTHING[name] for name in names))
    before, after = captured.exported.module(), result.exported.module()
    for case in CASES[:, None]:
        with torch.no_grad():
            expected, found = (module(ids=torch.from_numpy(case))["y"] for module in (before, after))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    nodes = result.exported.graph.nodes
    return result, Counter(str(node.target).split(".")[1] for node in nodes if "aten" in str(node.target))


def test_what_is_computed_of_the_number_of_clicks_is_one_row() -> None:
    def compute(s: Session, x: Tensor, ids: Tensor) -> Tensor:
        mark = s.last(ids)
        return torch.cat([mark @ s.table, (mark @ x[0]).sin()], -1)

    result, found = rewritten(compute, "simplify", "absorb", "tabulate")
    assert found["embedding"] == 2 and not {"eq", "relu", "ne"} & {*found}
    (table,) = [value for name, value in result.exported.named_buffers() if value.shape == (N + 1, N + 3)]
    marks = torch.eye(N)[[0, *range(N)]]
    assert any(torch.equal(table[:, start : start + N], marks) for start in (0, 3))


@pytest.mark.parametrize(
    "compute",
    [
        lambda s, x, _: x[:, 0, :1].round().abs().sqrt().sin().cos().exp(),  # of floats, whose range is unknown
        lambda s, x, ids: ids.sum(-1, keepdim=True).to(torch.float32).sin().cos().exp().tanh(),  # of any whole number
        lambda s, x, ids: (ids != 0).to(torch.float32).sum(-1, keepdim=True) + 1,  # of nothing that a row would save
    ],
)
def test_what_may_be_any_number_is_computed(compute: Callable[[Session, Tensor, Tensor], Tensor]) -> None:
    _, found = rewritten(compute, "simplify", "absorb", "tabulate")
    assert found["embedding"] <= 1


def test_a_rotation_moves_axes_once_and_reads_its_partner_from_a_projection() -> None:
    def compute(s: Session, x: Tensor, _: Tensor) -> Tensor:
        return s.rotated(x)

    _, late = rewritten(compute, "simplify", "absorb")
    assert (late["transpose"], late["index_select"], late["linear"]) == (1, 1, 1)
    _, found = rewritten(compute, "simplify", "absorb", "reorder")
    assert (found["transpose"], found["index_select"], found["linear"]) == (1, 0, 2)


def test_every_spelling_of_a_rotation_and_of_the_last_click_is_one_form() -> None:
    def compute(s: Session, x: Tensor, ids: Tensor) -> Tensor:
        angle = torch.arange(N)[:, None] * 0.1 ** torch.arange(D // H // 2)
        heads = s.one(x).reshape(1, N, H, D // H).transpose(1, 2)
        even, odd = heads[..., 0::2], heads[..., 1::2]
        turned = even * angle.cos() - odd * angle.sin(), even * angle.sin() + odd * angle.cos()
        last = ((ids != 0).sum(1) - 1).clamp(min=0)
        rotated = torch.stack(turned, -1).flatten(-2).transpose(1, 2)
        return torch.cat([s.table[last] + s.places[last, None], rotated.reshape(N, D)[last]], -1)

    _, found = rewritten(compute, "simplify", "absorb")
    assert (found["index_select"], found["slice"], found["cat"]) == (1, 0, 1)


def test_other_turns_stay_as_they_are() -> None:
    def compute(s: Session, x: Tensor, _: Tensor) -> Tensor:
        even, odd = x[..., 0::2], x[..., 1::2]
        return torch.stack((even * s.sine - odd * s.cosine, even * s.sine + even * s.cosine), -1).flatten(-2)

    _, found = rewritten(compute, "simplify", "absorb")
    assert (found["index_select"], found["slice"]) == (0, 2)


def test_a_variance_beside_its_centre_and_quotients_by_a_root_share_both() -> None:
    def compute(s: Session, x: Tensor, _: Tensor) -> Tensor:
        root = torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + 1e-6)
        normalised = (x - x.mean(-1, keepdim=True)) / root
        return (normalised.sin() - normalised) / root

    _, found = rewritten(compute, "simplify", "absorb")
    assert (found["var"], found["mean"], found["div"], found["rsqrt"]) == (0, 2, 0, 1)
    _, one = rewritten(compute, "recognise", "rms_norm")
    assert (one["native_layer_norm"], one["rsqrt"], one["sqrt"]) == (1, 0, 0)


def test_a_rotation_reads_its_partner_by_a_product_with_zeros_and_ones() -> None:
    _, found = rewritten(lambda s, x, _: s.rotated(x), "simplify", "absorb", "shuffle")
    assert (found["index_select"], found["linear"]) == (0, 2)
    _, kept = rewritten(lambda s, x, _: x.index_select(1, s.neighbour), "simplify", "absorb", "shuffle")
    assert (kept["index_select"], kept["linear"]) == (1, 0)


def test_a_rotation_of_looked_up_rows_has_its_partner_in_the_table() -> None:
    result, found = rewritten(lambda s, x, _: s.rotated(x), "simplify", "absorb")
    assert found["index_select"] == 1
    step = EVERYTHING["fold_rows"]
    folded = graph.rewritten(result, (replace(step, growth=float("inf")),))
    assert not [node for node in folded.exported.graph.nodes if "index_select" in str(node.target)]


@pytest.mark.parametrize(
    "compute",
    [
        lambda s, x, _: s.one(x).index_select(1, torch.arange(N).flip(0) + 0 * s.neighbour[0]),
        lambda s, x, _: s.one(x).transpose(1, 2).index_select(-1, s.neighbour),
        lambda s, x, _: s.one(x).index_select(-1, torch.cat([s.neighbour, s.neighbour])),
    ],
)
def test_a_selection_of_rows_or_of_numbers_twice_is_no_projection(
    compute: Callable[[Session, Tensor, Tensor], Tensor],
) -> None:
    _, found = rewritten(compute, "simplify", "absorb", "reorder")
    assert (found["linear"], found["index_select"]) == (1, 1)


def test_a_score_of_each_candidate_is_one_product_with_its_bias() -> None:
    def compute(s: Session, x: Tensor, _: Tensor) -> Tensor:
        row = x[:, 0].sin()
        return (x[0].tanh() @ row.reshape(D, 1)).reshape(1, N) + row.sum(-1, keepdim=True)

    _, found = rewritten(compute, "simplify", "gemm")
    assert (found["addmm"], found["add"], found["mm"]) == (1, 0, 0)
    _, kept = rewritten(lambda s, x, _: (y := x[0] @ x[0].T) + y.sin(), "simplify", "gemm")
    assert (kept["addmm"], kept["mm"]) == (0, 1)


def test_a_norm_whose_root_is_read_gives_both() -> None:
    def compute(s: Session, x: Tensor, _: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        root = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-6)
        normalised = centred * root
        return torch.cat([normalised.sin(), (x - normalised) * root], -1)

    _, found = rewritten(compute, "rms_norm")
    assert (found["native_layer_norm"], found["rsqrt"], found["mean"]) == (1, 0, 0)


def test_slices_of_one_value_are_one_cut() -> None:
    _, found = rewritten(lambda s, x, _: x[..., :2].sin() * x[..., 2:3] + x[..., 4:6], "cut")
    assert (found["slice"], found["split_with_sizes"]) == (0, 1)
    _, kept = rewritten(lambda s, x, _: functional.pad(x[..., :3] * x[..., 2:5], (1, 1)), "cut")
    assert (kept["slice"], kept["split_with_sizes"]) == (2, 0)
