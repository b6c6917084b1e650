"""ExecuTorch's passes that have nothing to do are left out, and the program is the same to the byte."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from lowering import lower
from torch import nn

from exporter.targets import executorch
from exporter.targets.executorch.needed_passes import NEEDED_FOR, is_needed


class Piece(nn.Module):
    """Something for most passes to do: linear layers, attention, an activation that fuses, a long concatenation."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weights = torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / 3, -1)
        mixed = torch.relu(weights @ x + 1.0)
        return torch.cat([mixed, x, x * 2, mixed - x, x.mean(1, keepdim=True), -x, mixed * x], 1)


def test_the_program_is_the_same_to_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = {"x": np.random.default_rng(0).standard_normal((1, 5, 8), dtype=np.float32)}
    fewer = lower("executorch", Piece(), examples, tmp_path).read_bytes()
    (tmp_path / "all").mkdir()
    monkeypatch.setattr(executorch, "needed_passes", nullcontext)
    assert lower("executorch", Piece(), examples, tmp_path / "all").read_bytes() == fewer


def test_every_pass_that_is_named_exists_and_unknown_ones_run() -> None:
    from executorch.backends.xnnpack._passes import XNNPACKPassManager

    names = {step.__name__ for step in XNNPACKPassManager(None).passes}
    assert names.issuperset(NEEDED_FOR)
    assert all(is_needed(name, {"aten.add.Tensor"}) == (name not in NEEDED_FOR) for name in names)
    assert is_needed("ConvertToSDPAPass", {"aten.add.Tensor", "aten._softmax.default"})
