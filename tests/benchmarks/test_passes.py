"""The benchmark of the passes still runs."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_models
from commands import BENCHMARKS, load_benchmark

from exporter import graph
from exporter.core.errors import LoweringError

SCRIPT = BENCHMARKS / "passes.py"


def test_a_row_for_each_set_of_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_models.write("scn", tmp_path / "scn")
    words = ["--models", "scn", "--targets", "onnx", "--calls", "20", "--checkpoints", str(tmp_path)]
    monkeypatch.setattr(graph, "OPTIONAL", ("select_early",))
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| scn")]
    rows = {cells[2]: cells for cells in (line.strip("| ").split(" | ") for line in printed)}
    assert list(rows) == ["none", "select_early alone", "all but select_early", "all"]
    macs = {name: int(cells[5].replace(",", "")) for name, cells in rows.items()}
    assert macs["select_early alone"] == macs["all"] < macs["all but select_early"] == macs["none"]


def test_what_a_converter_refuses_has_a_row_that_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = load_benchmark("passes")

    def lowered(source: object, target: str, passes: tuple[str, ...], folder: Path) -> int:
        if passes == ("a",):
            raise LoweringError("it has a rank of five")
        return 1 + len(passes)

    compared = SimpleNamespace(ratio=0.5)
    figures = {name: lambda *_: "x" for name in ("interval", "macs")} | {"size": lambda program: program}
    monkeypatch.setattr(benchmark, "measuring", SimpleNamespace(compared=lambda *_: compared, **figures))
    monkeypatch.setattr(benchmark, "variants", lambda: iter([("none", ()), ("a alone", ("a",)), ("all", ("a", "b"))]))
    monkeypatch.setattr(benchmark, "lowered", lowered)
    monkeypatch.setattr(benchmark.sources, "load", lambda choice: None)
    request, arguments = SimpleNamespace(choice=None, target="onnx"), SimpleNamespace(calls=1, emulator=False)
    found = [row[:2] for row in benchmark.rows(request, arguments, tmp_path)]
    assert found == [["none", "0.500"], ["a alone", "refused by the converter"], ["all", "0.500"]]
