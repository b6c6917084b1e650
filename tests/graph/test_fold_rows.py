"""The pass fold_rows: tables of computed rows, within the bytes that they may take."""

import operator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from exporter import graph
from exporter.core.precision import Fold
from exporter.core.types import Captured, PassChoice
from exporter.graph.capture import capture
from exporter.parity.verdict import PASS_ERROR
from models.layers import ItemEmbedding, RMSNorm

N, C, D, V = 3, 4, 8, 200
IDS = np.array([[[0, 1, V - 1]], [[V, -1, 2**31 - 1]], [[5, -(2**31), 7]]], np.int32)
CANDIDATES = np.array([[[0, V - 1, 3, V]], [[-1, 4, 4, 9]], [[1, 2, 3, 4]]], np.int32)


class Two(nn.Module):
    """Drawn operations on the rows of a history's items, and on candidates' where one table has both."""

    def __init__(self, steps: list[int], seed: int, ties: bool) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.steps, self.ties = steps, ties
        self.items, self.norm = ItemEmbedding(V, D), RMSNorm(D)
        self.items.reset(0.5)
        self.maps = nn.ModuleList(nn.Linear(D, D) for _ in steps)
        self.positions, self.matrix = nn.Parameter(torch.randn(N, D)), nn.Parameter(torch.randn(D, D))

    def forward(self, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
        x = self.items(ids)
        for kind, linear in zip(self.steps, self.maps, strict=True):
            x = self.step(kind, x, linear)
        user = (x + self.positions).mean(1)
        others = torch.tanh(self.maps[0](self.items(candidates))) if self.ties else self.positions[None]
        return (others @ user[:, :, None]).squeeze(-1)

    def step(self, kind: int, x: torch.Tensor, linear: nn.Linear) -> torch.Tensor:
        match kind:
            case 0:
                return self.norm(x)
            case 1:
                return torch.tanh(linear(x)) * 2
            case 2:
                return x @ self.matrix + x
            case 3:
                return torch.softmax(x.reshape(1, N, 2, D // 2), -2).flatten(2)
            case 4:
                return x * self.positions  # each place has its own: no table has this
            case _:
                return x - x.amax(-1, keepdim=True)


def captured_of(module: nn.Module) -> Captured:
    return capture("random", "random", module.eval(), {"ids": IDS[0], "candidates": CANDIDATES[0]}, ("y",))


def folded(captured: Captured, fold: Fold) -> tuple[Captured, bool]:
    wanted = PassChoice(("simplify", "absorb", "fold_rows"), fold=fold)
    passes, effects = graph.Proofs(captured, {"ids": IDS, "candidates": CANDIDATES}, PASS_ERROR).prove(
        "captured", wanted
    )
    assert all(effect.reason is None for effect in effects)
    return graph.rewritten(captured, passes), effects[-1].applied


def size(captured: Captured) -> int:
    """Return the bytes of the constants that a program reads."""
    module = captured.exported.module(check_guards=False)
    read = {str(node.target) for node in module.graph.find_nodes(op="get_attr") if node.users}
    return sum(operator.attrgetter(name)(module).nbytes for name in read)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 99), st.booleans())
def test_tables_of_computed_rows_say_the_same(steps: list[int], seed: int, ties: bool) -> None:
    captured = captured_of(Two(steps, seed, ties))
    result, _ = folded(captured, "all")
    before, after = captured.exported.module(), result.exported.module()
    with torch.no_grad():
        for ids, candidates in zip(torch.from_numpy(IDS), torch.from_numpy(CANDIDATES), strict=True):
            expected = before(ids=ids, candidates=candidates)["y"]
            torch.testing.assert_close(after(ids=ids, candidates=candidates)["y"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("ties", "fold", "applied", "most"),
    [
        (False, "none", False, 1.02),
        (False, "same_size", True, 1.02),  # one lookup alone reads the table: another takes its place
        (True, "same_size", False, 1.02),
        (True, "double", True, 2.02),
        (True, "all", True, 2.02),
    ],
)
def test_a_policy_says_how_large_tables_may_get(ties: bool, fold: Fold, applied: bool, most: float) -> None:
    captured = captured_of(Two([0, 1], 0, ties))
    result, found = folded(captured, fold)
    assert found == applied
    assert size(result) <= most * size(captured)
    linear = [node for node in result.exported.graph.nodes if str(node.target) == "aten.linear.default"]
    assert bool(linear) != applied


def test_what_is_read_as_it_is_stays_beside_what_is_computed() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.items, self.map = ItemEmbedding(V, D), nn.Linear(D, D)

        def forward(self, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
            x = self.items(ids)
            return (x * x.mean(1, keepdim=True)).sum(1) + self.map(x).sum(1) + candidates.sum()

    captured = captured_of(Residual())
    assert not folded(captured, "same_size")[1]
    wide, applied = folded(captured, "double")
    assert applied
    (lookup,) = (node for node in wide.exported.graph.nodes if str(node.target) == "aten.embedding.default")
    assert lookup.meta["val"].shape[-1] == 2 * D
