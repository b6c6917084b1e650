"""The published Table 4, out of the code: what a counter on module hooks sees of each model."""

import pytest
import torch
from torch import nn

from exporter.measure import module_hooks
from models.zoo import MODELS, load_spec

# What the published Table 4 counts: MACs per token, and millions for a batch of 1,024.
PER_TOKEN = {
    "scn": (16_640, 17.0),
    "gru4rec": (29_504, 30.2),
    "sasrec": (37_376, 38.3),
    "din": (12_288, 12.6),
    "bert4rec": (98_304, 100.7),  # printed as 101.0
    "mamba4rec": (66_816, 68.4),
}


@pytest.mark.parametrize("name", PER_TOKEN)
def test_the_published_figures_come_out(name: str) -> None:
    spec = load_spec(name)
    model = spec.build(spec.sized(50, 10)).eval()
    assert spec.encode is not None
    seen = [
        module_hooks.count(model, lambda n=n: spec.encode(model, torch.ones(1, n, dtype=torch.int32))) for n in (5, 10)
    ]
    macs, published = PER_TOKEN[name]
    assert (seen[1].macs - seen[0].macs) / 5 == macs
    assert round(macs * 1024 / 1e6, 1) == published


def test_every_model_with_a_published_figure_is_here() -> None:
    assert set(PER_TOKEN) <= set(MODELS)


def test_rules_by_hand() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)
            self.plain = nn.LayerNorm(5, elementwise_affine=False)
            self.convolution = nn.Conv1d(4, 6, 3, groups=2)
            self.gru = nn.GRU(5, 7, batch_first=True)

        def forward(self) -> None:
            self.gru(self.plain(self.linear(torch.zeros(1, 2, 3))))
            self.convolution(torch.zeros(1, 4, 9))
            torch.tanh(torch.zeros(4)) @ torch.zeros(4)

    seen = module_hooks.count(model := Net(), model.forward)
    gate = (5 + 7) * 7 + 7 + 2 * 7
    expected = {"Linear": 2 * 5 * 3, "LayerNorm": 2 * 2 * 5, "Conv1d": 6 * 7 * 2 * 3, "GRU": 2 * (3 * gate + 4 * 7)}
    assert (dict(seen.by_module), seen.macs) == (expected, sum(expected.values()))
    assert not any(module._forward_hooks for module in model.modules())
