"""What of ExecuTorch's lowering has nothing to do is left out, and the program is the same to the byte."""

import importlib
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from exporter.graph.capture import capture
from exporter.targets import TARGETS, executorch
from exporter.targets.executorch import needed_traces
from exporter.targets.executorch.needed_passes import NEEDED_FOR, is_needed
from safeio import process


class Piece(nn.Module):
    """Something for most passes to do: linear layers, attention, an activation that fuses, a long concatenation."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.in_place = in_place
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 3, -1)
        mixed = torch.relu(weights @ x + 1.0)
        if self.in_place:
            mixed += torch.einsum("bij,bkj->bik", mixed, x) @ x
        return torch.cat([mixed, x, x * 2, mixed - x, x.mean(1, keepdim=True), -x, mixed * x], 1)


@pytest.mark.parametrize("in_place", [False, True])
def test_the_program_is_the_same_to_the_byte(in_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"x": np.random.default_rng(0).standard_normal((1, 5, 8), dtype=np.float32)}
    decompose, tables = torch.export.ExportedProgram.run_decompositions, []

    def counted(program: object, table: dict, **settings: object) -> object:
        tables.append(len(table))
        return decompose(program, table, **settings)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", counted)

    def lowered(name: str) -> bytes:
        """What the target writes of a program; of one with the same name and graph the session has kept the file."""
        (tmp_path / name).mkdir()
        captured = capture(name, "piece", Piece(in_place).eval(), examples, ("y",))
        return TARGETS["executorch"].lower(captured, "fp32", {"delegate": "xnnpack"}, tmp_path / name).read_bytes()

    fewer = lowered("needed")
    assert all(table > 0 for table in tables) != in_place
    had = len(tables)
    monkeypatch.setattr(executorch, "_needed", nullcontext)
    assert lowered("all") == fewer
    assert 0 in tables[had:] and len(tables) - had > had


def test_the_compiler_comes_in_when_something_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    name, asked = "torch._inductor.fx_passes.post_grad", []
    real = SimpleNamespace(decompose_auto_functionalized=asked.append, other="other")
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(process, "_alone", True)
    with needed_traces.without_compiler():
        from torch._inductor.fx_passes.post_grad import decompose_auto_functionalized

        with monkeypatch.context() as patched:
            patched.setattr(importlib, "import_module", {name: real}.__getitem__)
            assert sys.modules[name].other == "other"
    assert name not in sys.modules
    graph = torch.fx.Graph()
    decompose_auto_functionalized(graph)
    assert not asked
    graph.call_function(torch.ops.higher_order.auto_functionalized)
    monkeypatch.setattr(importlib, "import_module", {name: real}.__getitem__)
    decompose_auto_functionalized(graph)
    assert asked == [graph]


def test_every_pass_that_is_named_exists_and_unknown_ones_run() -> None:
    from executorch.backends.xnnpack._passes import XNNPACKPassManager

    names = {step.__name__ for step in XNNPACKPassManager(None).passes}
    assert names.issuperset(NEEDED_FOR)
    assert all(is_needed(name, {"aten.add.Tensor"}) == (name not in NEEDED_FOR) for name in names)
    assert is_needed("ConvertToSDPAPass", {"aten.add.Tensor", "aten._softmax.default"})
