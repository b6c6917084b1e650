"""The papers' figures and tables: pictures of kept numbers, counts that are published, and no script left out."""

import json
import re
from xml.etree import ElementTree

import figures_cocorrrec
import figures_ofa
import ofa_tables
import paper_figures
import pytest
from commands import BENCHMARKS
from figure_plot import Axis, Curve, Panel, drawn

from exporter.pipeline.source import PRETRAINED


def numbers(name):
    return json.loads((paper_figures.NUMBERS / f"{name}.json").read_text())


@pytest.mark.parametrize("name", paper_figures.FIGURES)
def test_a_committed_picture_is_what_the_committed_numbers_give(name):
    assert (paper_figures.PICTURES / f"figure_{name}.svg").read_text() == paper_figures.picture(name)


def test_places_and_bars_are_where_their_numbers_say():
    curve, bars = Curve("c", [(0, 0), (5, 10), (10, 20)]), Curve("b", [(0, 5), (1, 10)])
    axis = Axis("x", ticks=[(0, "0"), (10, "10")])
    panels = [
        Panel(axis, Axis("y", ticks=[(0, "0"), (20, "20")]), [curve]),
        Panel(Axis("k", ticks=[(0, "p"), (1, "q")]), Axis("y", ticks=[(0, "0"), (10, "10")]), [bars], bars=True),
    ]
    root = ElementTree.fromstring(drawn("n", "A < B", panels))
    elements = {element.get("class"): element for element in root.iter()}
    # from 66 to 388 across, and from 238 up to 28: the middle is at (227, 133)
    (line,) = (e for e in root.iter() if e.get("class") == "line a" and e.tag.endswith("path"))
    assert line.get("d") == "M66 238L227 133L388 28"
    heights = [float(e.get("height")) for e in root.iter() if e.get("class") == "bar b"]
    assert heights == [105, 210]
    assert float(elements["bar b"].get("width")) == pytest.approx(0.8 * 161, abs=0.5)
    with pytest.raises(ValueError, match="7 curves, and 6 colours"):
        drawn("n", "t", [Panel(axis, axis, [Curve(str(index), [(0, 0)]) for index in range(7)])])


def test_module_hooks_give_the_published_flops():
    kept = numbers("cocorrrec_4")
    counted = {
        name: (round(kept["batch"] * model["hook_macs_per_token"] / 1e6, 1), model["published_millions_per_token"])
        for name, model in kept["models"].items()
    }
    assert counted.pop("bert4rec") == (100.7, 101.0)
    assert counted["scn"] == (17.0, 17.0)
    assert all(ours == published for ours, published in counted.values())


def test_a_mini_batch_is_timed_on_the_artifact_of_its_checkpoint(monkeypatch):
    for name, value in {"MINI_BATCH_TARGETS": ("onnx",), "ROUNDS": 1, "CALLS": 5}.items():
        monkeypatch.setattr(figures_cocorrrec, name, value)
    kept = figures_cocorrrec.measure_mini_batches([PRETRAINED / "scn"])
    (row,) = kept["checkpoints"]
    assert (row["mini_batch"], row["history"]) == (10, 10)
    assert row["macs"]["onnx"] > 100 * 64  # no less than the candidates' products
    _, times, _ = figures_cocorrrec.show_mini_batches(kept)
    assert [curve.places for curve in times.curves] == [[(10, row["p50_us"]["onnx"])]]


def test_the_shipped_checkpoint_has_the_structures_that_are_drawn():
    (shipped,) = (row for row in numbers("ofa")["checkpoints"] if row["name"] == "shipped")
    assert figures_ofa.describe(PRETRAINED / "ofa") == shipped


def test_sizes_are_the_published_ones_but_for_those_that_are_known_not_to_be():
    differing = {
        (backbone, size.words)
        for (backbone, blocks), published in ofa_tables.PUBLISHED_SIZES.items()
        for size, digits in zip(ofa_tables.sizes(backbone, blocks), published, strict=True)
        if size.cells(digits)[-1] != "yes"
    }
    assert differing == {
        ("sasrec", "millions of MACs for 5 clicks"),
        ("sasrec", "millions of MACs of STTD, which rebuilds"),
        ("nextitnet", "Mbit of STTD's factors and biases"),
    }


def test_the_table_of_benchmarks_has_every_script_and_no_other():
    text = (BENCHMARKS / "README.md").read_text()
    assert set(re.findall(r"`([a-z_0-9]+\.py)`", text)) == {path.name for path in BENCHMARKS.glob("*.py")}
    rows = set(re.findall(r"^\| `([a-z_0-9]+\.py)` ", text, re.MULTILINE))
    assert rows == {path.name for path in BENCHMARKS.glob("*.py") if "__main__" in path.read_text()}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        assert (BENCHMARKS / link).exists(), link
