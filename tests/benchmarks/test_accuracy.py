"""The benchmark of CoCorrRec's Table 1 on clicks made here: its search, its table, and that no run is made twice."""

import json
import shutil
import statistics
import subprocess
import sys

import numpy as np
import pytest
import torch
from commands import BENCHMARKS, load_benchmark

from models.baselines.mamba4rec import Mixer


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("accuracy")


@pytest.mark.parametrize(
    ("curve", "tried", "best"),
    [
        ({1e-3: 1, 2e-3: 2, 5e-3: 3, 1e-2: 2}, {2e-3, 5e-3, 1e-2}, 5e-3),
        ({1e-3: 1, 2e-3: 2, 5e-3: 3, 1e-2: 4}, {5e-3, 1e-2}, 1e-2),
        ({1e-3: 9, 2e-3: 8, 5e-3: 7, 1e-2: 6}, {1e-3, 2e-3, 5e-3, 1e-2}, 1e-3),
    ],
)
def test_the_search_goes_on_while_it_rises(benchmark, curve, tried, best):
    found = benchmark.search(curve.__getitem__)
    assert set(found) == tried
    assert max(found, key=found.get) == best


def metrics_of(value):
    """What a run measured, all metrics alike."""
    alike = dict.fromkeys(("UAUC", *(f"{m}@{k}" for m in ("NDCG", "HitRate") for k in (5, 10, 20))), value)
    epochs = [{"epoch": 1, "loss": 1.0, "NDCG@10": value, "seconds": 1.0}]
    return {"test": alike, "validation": alike, "test_by_popularity": alike, "epochs": epochs}


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("clicks") / "clicks.tsv"
    rows = [f"{user}\t{rng.integers(150)}\t{order}" for user in range(40) for order in range(12)]
    path.write_text("\n".join(["user\titem\torder", *rows]) + "\n")
    return path


def test_the_table_has_what_the_runs_measured_and_a_second_call_trains_nothing(benchmark, clicks, tmp_path):
    runs, report = tmp_path / "runs", tmp_path / "accuracy.md"
    words = ["--data", clicks, "--runs", runs, "--output", report, "--models", "DIN,SCN+GCN,SCN", "--seeds", "2"]
    command = [sys.executable, BENCHMARKS / "accuracy.py", *words, "--epochs", "1", "--batch-sizes", "128,256"]
    command += ["--min-user-clicks", "12"]
    first = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "clicks SCN+GCN 128 a step 0.005 seed 0: epoch 1" in first.stderr
    text, written = report.read_text(), {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    for row, part in (("DIN", "test"), ("SCN", "test"), ("SCN+GCN", "test_corrected")):
        found = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith(f"| {row} |")]
        small, _, large, _, both = found  # the test and the search under each budget, then both budgets
        for size, cells, side in ((128, small, both[1]), (256, large, both[2])):
            folders = [runs / "clicks" / f"{row.lower()}-{size}-{cells[1]}-{seed}" for seed in range(2)]
            values = [json.loads((folder / "metrics.json").read_text())[part]["NDCG@10"] for folder in folders]
            assert cells[6] == side == f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"
    assert "- SCN+GCN less SCN, NDCG@10, seed by seed: " in text and "Only users with 12 clicks or more." in text
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (again.stderr, report.read_text()) == ("", text)
    assert written == {path: path.stat().st_mtime_ns for path in runs.rglob("*.json")}
    assert "first weights as each model draws them." in text
    for option in (["--history", "5"], ["--initial-std", "0.03"], ["--min-user-clicks", "2"]):
        other = subprocess.run([*command, *option], capture_output=True, text=True, check=False)
        assert other.returncode == 1
        assert "is of another budget" in other.stderr


def test_the_report_names_the_first_weights(benchmark):
    row = benchmark.Row("DIN", "clicks", 1024, {5e-3: 0.3}, [metrics_of(0.2), metrics_of(0.3)])
    text = benchmark.render([row], benchmark.Budget(6, 1, 0.01, 1024, 10, 0.03), benchmark.Filters(), 2, "command")
    assert "all first weights from N(0, 0.03). The learning rate" in text


@pytest.mark.skipif(not shutil.which("g++"), reason="a compiled block needs g++")
def test_a_compiled_block_learns_the_same(benchmark, monkeypatch, tmp_path):
    monkeypatch.setattr(Mixer, "forward", Mixer.forward)  # put back afterwards
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # put back afterwards
    mixer, x = Mixer(8, 3), torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(0))
    plain = torch.autograd.grad(mixer(x).square().sum(), list(mixer.parameters()))
    benchmark.compile_scan(tmp_path)
    compiled = torch.autograd.grad(mixer(x).square().sum(), list(mixer.parameters()))
    torch.testing.assert_close(compiled, plain)


def test_an_order_is_told_only_where_the_budgets_agree_beyond_the_spread(benchmark):
    def row(name, values):
        return benchmark.Row(name, "", 0, {}, [{"test": {"NDCG@10": value}} for value in values])

    others = row("GRU4Rec", [0.25, 0.26, 0.27])
    above, below, near = (row("SCN", [start, start + 0.01, start + 0.02]) for start in (0.30, 0.20, 0.26))
    both = benchmark.difference({205: (above, others), 1024: (above, others)})
    assert (
        "+0.0500 ± 0.0000 at 205" in both
        and "at 1,024" in both
        and both.endswith(": more in each budget, beyond the spread")
    )
    less = benchmark.difference({205: (below, others), 1024: (below, others)})
    assert less.endswith(": less in each budget, beyond the spread")
    for pairs in ({205: (above, others), 1024: (below, others)}, {205: (above, others), 1024: (near, others)}):
        assert "no order" in benchmark.difference(pairs)
    assert "says nothing of an order" in benchmark.difference({1024: (above, others)})
