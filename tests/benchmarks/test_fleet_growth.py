"""The benchmark of the fleet's growth still runs: the real command at two sizes, its phases, a plot, an estimate."""

import sys
from xml.etree import ElementTree

import tiny_models
from commands import BENCHMARKS, load_benchmark


def test_growth_by_phases(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    growth = load_benchmark("fleet_growth")
    checkpoint = tiny_models.write("scn", tmp_path / "checkpoint")
    point = growth.measure(60, tmp_path, "scn", checkpoint, 1, items=tiny_models.VOCABULARY - 1)
    assert set(point["seconds"]) == set(point["peak_bytes"]) == set(growth.PHASES.values())
    assert min(point["seconds"].values()) > 0 and point["worker_peak_bytes"] > 10 << 20
    assert point["status"]["all"] == 60 and sum(point["status"].values()) == 120
    more = {**point, "users": 600, "seconds": {phase: 2 * took for phase, took in point["seconds"].items()}}
    estimated = growth.estimate([point, more], 1)
    assert estimated["hours"]["reading"] > 0 and estimated["command_bytes_per_user"] == 0
    root = ElementTree.fromstring(sys.modules["growth_plot"].drawn([point, more]))
    assert sum(element.get("class", "").startswith("dots") for element in root.iter()) == 4  # two are the legend's
