"""GRUs step by step are the GRUs that torch computes, of whatever layers, directions and beginnings."""

import numpy as np
import pytest
import torch
from torch import nn

from exporter import graph
from exporter.core.types import PassChoice
from exporter.graph.capture import capture
from exporter.graph.editing import Editor
from exporter.graph.unroll import unroll
from exporter.parity.verdict import PASS_ERROR

N, WIDTH, UNITS = 4, 3, 5


class Recurrent(nn.Module):
    def __init__(self, how: dict[str, object], starts: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gru, self.starts = nn.GRU(WIDTH, UNITS, **how), starts

    def forward(self, x: torch.Tensor, start: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        states, last = self.gru(x, start) if self.starts else self.gru(x)
        return states, last + start  # which are of one shape


@pytest.mark.parametrize(
    ("how", "users", "starts"),
    [
        ({"batch_first": True}, 1, False),
        ({"batch_first": True, "bias": False}, 1, False),
        ({"num_layers": 2, "bidirectional": True, "dropout": 0.5}, 2, True),
        ({"num_layers": 2, "bidirectional": True, "batch_first": True, "bias": False}, 3, False),
    ],
)
def test_a_gru_is_its_steps(how: dict[str, object], users: int, starts: bool) -> None:
    module = Recurrent(how, starts).eval()
    rng = np.random.default_rng(1)
    shape = (users, N, WIDTH) if how.get("batch_first") else (N, users, WIDTH)
    layers = int(how.get("num_layers", 1)) * (2 if how.get("bidirectional") else 1)
    x, start = (rng.normal(size=size).astype(np.float32) for size in ((6, *shape), (6, layers, users, UNITS)))
    captured = capture("gru", "gru", module, {"x": x[0], "start": start[0]}, ("states", "last"))
    assert "aten.gru.input" in {str(node.target) for node in captured.exported.graph.nodes}
    choice = PassChoice(("unroll", "simplify", "absorb", "select_early"))
    proofs = graph.Proofs(captured, {"x": x, "start": start}, PASS_ERROR)
    proven = proofs.prove("captured", choice)
    assert proven.effects[0].applied and all(effect.reason is None for effect in proven.effects)
    after = proofs.rewritten(proven.passes).exported
    assert not {str(node.target) for node in after.graph.nodes} & {"aten.gru.input", "aten.split.Tensor"}
    for case in zip(torch.from_numpy(x), torch.from_numpy(start), strict=True):
        found = after.module()(x=case[0], start=case[1])
        for name, expected in zip(("states", "last"), module(*case), strict=True):
            torch.testing.assert_close(found[name], expected)
    if users == 1:  # the first step has no product with a state of zero
        products = [node for node in after.graph.nodes if str(node.target) == "aten.linear.default"]
        assert len(products) == 2 + 2 * (N - 1)


def test_a_gru_with_dropout_stays() -> None:
    module = Recurrent({"num_layers": 2, "dropout": 0.5}, True).train()
    example = torch.zeros(N, 1, WIDTH), torch.zeros(2, 1, UNITS)
    made = torch.export.export(module, example)
    editor = Editor(made.module(check_guards=False))
    assert unroll(editor) == 0
