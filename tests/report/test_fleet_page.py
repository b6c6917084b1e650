"""The page of a fleet in a real browser: ids of strangers are words, and a person can read it at any width."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Page
from test_page import HOSTILE, LONG, LOOKS, serious

from exporter.fleet.distributions import Decades, Labelled
from exporter.report.fleet_ofa_page import fleet_ofa_page
from exporter.report.fleet_page import fleet_page
from exporter.report.units import MISSING

PAIRED = {"torch": 0.2762, "artifact": 0.2761, "change": -0.0006, "low": -0.0031, "high": None}


def document(name: str) -> dict[str, Any]:
    """Return the summary of a run in which every text of a stranger is `name`."""
    errors, moves = Decades("e", "Errors", "absolute error"), Labelled("m", "Moves", "ranks", ("-1", "0", name, "+9"))
    errors.add(np.array([0.0, 3e-7, 4e-6, 4e-6, 2e-3, np.inf]))
    moves.add(np.array([0] * 3 + [1] * 20_000 + [2]))
    return {
        "model": name,
        "program": "rerank",
        "target": "onnx",
        "precision": "int8",
        "verdict": "fail",
        "reason": name,
        "verdict_of_users": "fail",
        "golden_cases": {"verdict": "unverified", "reason": name},
        "ids": "rows",
        "drawn_of": 22_363,
        "users": {"all": 20_030, "ranked": 20_004, "one_click": 26},
        "users_named": {"one_click": [name] * 10, "fail": [name]},
        "clicks": {"unknown": 5, "users_with_unknown": 3, "most": {"clicks": 10_000, "user": name}},
        "verdicts": {"pass": 20_003, "fail": 1, "unverified": 0},
        "max_abs_error": {"value": None, "user": name},
        "top10": {
            "overlap": 0.9999,
            "flipped": 3,
            "could_flip": 9,
            "overlap_with_torch": 0.98,
            "flipped_from_torch": 800,
            "torch": "fp32 tables; above, tables as they are stored",
        },
        "clicked_next": {
            "users": 20_004,
            "candidates": 100,
            "ndcg10": PAIRED,
            "hit10": {**PAIRED, "low": None},
            "rank": {"same": 1, "better": 1, "worse": 1},
            "method": "paired bootstrap",
            "by_known_clicks": [{"clicks": "5 to 9", "users": 9, "ndcg10": PAIRED}],
        },
        "distributions": [errors.document([("allowed", 1e-4), ("far", 3.0)]), moves.document()],
        "run": {
            "users": 0,
            "seconds": 0.0,
            "workers": 0,
            "users_per_second": None,
            "pace_of": "this command",
            "parts": 21,
            "bytes": 9_000,
        },
    }


def opened(page: Page, folder: Path, name: str, width: int, scheme: str) -> str:
    """Open the page of such a run; return its URL."""
    file = folder / "summary.html"
    plan = {"schema_version": 1, "data": name, "seed": 0, "versions": {"onnxruntime": name}, "passes_left_out": []}
    file.write_text(fleet_page(document(name), plan))
    page.look(width, scheme=scheme)
    page.open(file.as_uri())
    return file.as_uri()


def document_ofa(name: str) -> dict[str, Any]:
    """Return the summary of such a run with a network for each user."""
    shared = document(name)
    clicked = shared["clicked_next"]
    named = {key: value for key, value in PAIRED.items() if key != "artifact"} | {"stored": PAIRED["artifact"]}
    groups = [{**group, "ndcg10": named} for group in clicked["by_known_clicks"]]
    line = {"structure": "0110", "users": 20_003, "blocks": 2, "bytes_down": 72_872, "flops": None}
    return {
        **shared,
        "golden_cases": {"verdict": "pass", "reason": name, "by_structure": {"0110": "pass"}},
        "verdicts": {"pass": 3, "fail": 1, "unverified": 0, "not_drawn": 20_000},
        "stored": {
            "as": "int4",
            "max_abs_error": 0.1,
            "clicked_next": {**clicked, "ndcg10": named, "hit10": named, "by_known_clicks": groups},
        },
        "structures": [line, {**line, "structure": "1111", "users": 1}],
        "run": {**shared["run"], "packages": {"place": name, "bytes": 1_667_361_280}},
    }


@pytest.mark.parametrize("name", [HOSTILE, LONG], ids=["hostile", "long"])
@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_is_all_in_the_page(page: Page, tmp_path: Path, axe: str, name: str, width: int, scheme: str) -> None:
    url = opened(page, tmp_path, name, width, scheme)
    assert page.complaints() == []
    assert page.requests() == [url]
    assert page.evaluate("window.hit") is None
    assert page.evaluate("document.querySelectorAll('script, main img, main a[href^=javascript]').length") == 0
    assert page.evaluate("document.querySelectorAll('svg').length") == 2
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert name.removesuffix("\u202e") in page.evaluate("document.body.textContent")
    assert serious(page, axe) == []


@pytest.mark.parametrize("name", [HOSTILE, LONG], ids=["hostile", "long"])
def test_structures_and_packages_are_in_the_page_too(page: Page, tmp_path: Path, axe: str, name: str) -> None:
    file = tmp_path / "summary.html"
    file.write_text(fleet_ofa_page(document_ofa(name), {"data": name, "artifacts": {"0110": {"artifact": name}}}))
    page.look(390)
    page.open(file.as_uri())
    assert (page.complaints(), page.requests(), page.evaluate("window.hit")) == ([], [file.as_uri()], None)
    texts = (
        "[...document.querySelectorAll('tbody tr')].map(one => [...one.children].map(cell => cell.textContent.trim()))"
    )
    rows = page.evaluate(texts)
    assert ["0110", "20,003", "100.00 %", "2", "72,872", MISSING, "pass"] in rows
    assert ["1111", "1", "0.00 %", "2", "72,872", MISSING, "none made"] in rows
    assert any((row[0], row[2]) == ("not drawn", "20,000") for row in rows)
    assert "1,667.36 MB" in page.evaluate("document.body.textContent")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert serious(page, axe) == []


def test_each_class_has_its_number_and_what_is_no_number_is_told(page: Page, tmp_path: Path) -> None:
    opened(page, tmp_path, "scn", 1280, "light")
    texts = (
        "[...document.querySelectorAll('svg')].map(one => [...one.querySelectorAll('text')].map(t => t.textContent))"
    )
    errors, moves = page.evaluate(texts)
    assert moves[1:4] == ["-1", "3", "<0.1 %"] and moves[4:7] == ["0", "20,000", ">99.9 %"]
    assert {"allowed 1e-4", "far 3 →"} <= set(errors)
    sizes = "[...document.querySelectorAll('svg .bar')].map(one => one.getBBox()).map(box => [box.width, box.height])"
    assert all(width > 0 and height > 0 for width, height in page.evaluate(sizes))
    assert "not counted, since the figure is no number: 1" in page.evaluate("document.body.textContent")
