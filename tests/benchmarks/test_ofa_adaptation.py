"""The benchmark of adaptation counts what is counted by hand, and reads the counters of energy that Linux has."""

import numpy as np
import pytest
import torch
from commands import load_benchmark

from models.forward_ofa.supernet import Supernet


def test_multiply_accumulates_are_those_by_hand(monkeypatch: pytest.MonkeyPatch):
    benchmark = load_benchmark("ofa_adaptation")
    monkeypatch.setattr(benchmark, "STEPS", (1, 3))
    torch.manual_seed(0)
    items, width, blocks, length = 50, 16, 2, 5
    model = Supernet(items + 1, width, blocks, length, "sasrec").eval()
    histories = [torch.tensor([[3, 4, 5, 0, 0]]), torch.tensor([[3, 4, 5, 6, 7]])]
    energy = benchmark.Energy(powercap=benchmark.Path("/nowhere"))
    with torch.no_grad():
        every = benchmark.ways(model, histories)
        costs = {name.split(" |")[0]: benchmark.measure(calls, energy) for name, calls in every.items()}
    grus = 2 * length * 3 * width * 2 * width
    assert costs["Forward-OFA: controller"].macs == grus + width * blocks
    assert costs["Forward-OFA: mapper and package"].macs == width * blocks * (5 * width**2 + 5 * width)
    # Backwards twice the forward pass, without the gradient of what enters the first block's query, key and value; of
    # the logits, after 2 and 4 of the clicks, without that of the item table.
    forward = blocks * length * (5 * width**2 + 2 * length * width)
    step = 3 * forward - 3 * length * width**2 + 2 * np.mean([2, 4]) * width * items
    for steps in (1, 3):
        assert costs[f"fine-tuning, {steps} step{'s' if steps > 1 else ''}"].macs == steps * step
    assert all(len(cost.ms) == 2 and cost.joules is None for cost in costs.values())
    assert "/nowhere has no counter" in energy.reason


def test_joules_are_those_of_all_packages_and_of_a_counter_that_turned_over(tmp_path):
    for name, used in (("intel-rapl:0", 900_000), ("intel-rapl:1", 5), ("intel-rapl:0:0", 7)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{used}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("1000000\n")
    energy = load_benchmark("ofa_adaptation").Energy(tmp_path)
    before = energy.read()
    (tmp_path / "intel-rapl:0/energy_uj").write_text("100000\n")  # turned over at a million
    (tmp_path / "intel-rapl:1/energy_uj").write_text("500005\n")
    assert energy.joules_since(before) == (200_000 + 500_000) / 1e6
