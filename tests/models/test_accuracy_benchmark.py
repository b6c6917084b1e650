"""The MovieLens-1M benchmark on clicks made here: what it keeps, what it refuses, what it writes."""

import numpy as np
import pytest
from commands import load_benchmark

from models.training.data import Interactions
from models.training.loop import Settings
from models.training.next_item import NextItem


@pytest.fixture(scope="module")
def benchmark():
    return load_benchmark("accuracy_ml1m")


def test_rare_items_go_and_the_order_of_the_others_stays(benchmark):
    users = [[5, 1, 5, 2], [1, 5, 3], [3]]
    starts = np.cumsum([0, *map(len, users)])
    kept = benchmark.frequent_items(Interactions(np.concatenate(users), starts, 8, ""), least=1)
    assert kept.items.tolist() == [3, 1, 3, 1, 3, 2, 2]  # 1, 3, 5 occur more than once and become 1, 2, 3
    assert (kept.starts.tolist(), kept.vocabulary) == ([0, 3, 6, 7], 4)
    with pytest.raises(ValueError, match="other data"):
        benchmark.check_published_counts(kept)


def test_all_methods_are_trained_and_set_beside_the_published_figures(benchmark):
    rng = np.random.default_rng(0)
    clicks = Interactions(rng.integers(1, 121, 600).astype(np.int32), np.arange(0, 601, 15), 121, "")
    settings, options = Settings(0, 1, 1e-3, 0.01, 64, 5), NextItem(5.0, 0.005, 0.0, 2)
    rows = list(benchmark.measure(["devicerec", "forward_ofa"], "sasrec", clicks, settings, options))
    text = benchmark.render(rows, "sasrec", clicks, settings, options, "python benchmarks/accuracy_ml1m.py")
    table = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert [row[0] for row in table] == ["method", "devicerec", "forward_ofa"]
    assert table[1][3] == "3.99"
    assert table[2][7:] == ["0.1182", "0.2081", "3.64"]
    assert "1 epochs of 2 targets per user" in text
