"""The best of a whole catalogue, from a checkpoint to `rank`, and what is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import card_code
import numpy as np
import pytest
import tiny_models
import torch
from commands import Ended, run_here

from exporter.artifact import store
from exporter.pipeline import explaining
from models import checkpoint
from models.zoo import load_spec
from safeio import catalogue

Capfd = pytest.CaptureFixture[str]


def export(folder: Path, capfd: Capfd, keys: str, *more: object) -> Ended:
    """Export the best of the catalogue of a small SCN in ONNX; `keys` are those of a profile."""
    profile = folder / "mine.yaml"
    profile.write_text(f"name: mine\nextends: generic\n{keys}\n")
    if not (folder / "checkpoint").exists():
        tiny_models.write("scn", folder / "checkpoint")
    chosen = ("--program", "topk", "--target", "onnx", "--checkpoint", folder / "checkpoint")
    return run_here(capfd, "scn", *chosen, "--profile", profile, "--output", folder / "out", "--json", *more)


def test_the_best_of_a_catalogue_are_those_of_torch(tmp_path: Path, capfd: Capfd) -> None:
    ended = export(tmp_path, capfd, "top: 30")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"], document["ranked"]) == (0, "pass", "ids"), ended.err
    assert document["outputs"] == [
        {"name": "ids", "shape": [1, 30], "dtype": "int32"},
        {"name": "scores", "shape": [1, 30], "dtype": "float32"},
    ]
    artifact = Path(document["artifact"])
    saved = checkpoint.read(tmp_path / "checkpoint")
    model = checkpoint.build(saved, load_spec("scn"))
    with torch.no_grad():
        scores = model(torch.tensor([[3, 4, 5, 0, 0, 0]]), torch.arange(1, tiny_models.VOCABULARY)[None])[0]
    best = scores.topk(5)
    ranked = run_here(capfd, "rank", artifact, "--history", "3,4,5", "--top", "5", "--json").document
    assert [item["row"] for item in ranked["ranking"]] == (best.indices + 1).tolist()
    np.testing.assert_allclose([item["score"] for item in ranked["ranking"]], best.values, rtol=0, atol=1e-4)
    assert ranked["candidates"] == tiny_models.VOCABULARY - 1
    for words, message in (
        (("--top", "31"), "gives the best 30 of the whole catalogue; give --top 30 or less"),
        (("--candidates", "1,2"), "leave out --candidates"),
    ):
        refused = run_here(capfd, "rank", artifact, "--history", "3,4,5", *words)
        assert (refused.code, message in refused.error_line()) == (2, True), refused.err
    for keys, words, message in (
        ("top: 29", (), "holds another artifact: top 30 and not 29"),
        ("top: 120", ("--force",), "top: 120 are asked for, and the catalogue has 119 items"),
        ("top: 5001", (), "top: "),
    ):
        refused = export(tmp_path, capfd, keys, *words)
        assert (refused.code, message in refused.error_line()) == (2, True), refused.err


def test_what_comes_out_has_the_ids_of_the_data(tmp_path: Path, capfd: Capfd, shared_folder: Path) -> None:
    """In the example and in what the code of the card prints, as in what goes in."""
    artifact = Path(export(tmp_path, capfd, "top: 30").document["artifact"])
    ids = ["", *(f"item {row}" for row in range(1, tiny_models.VOCABULARY))]
    (artifact / "items.tsv").write_bytes(catalogue.to_bytes(ids, [1] * tiny_models.VOCABULARY))
    listed = replace(store.read_manifest(artifact), files=store.list_files(artifact))
    assert listed.interface is not None and [port.holds_items for port in listed.interface.outputs] == [True, False]
    store.write_manifest(artifact, explaining.explain(artifact, listed))
    golden = store.read_golden(artifact)[1]["ids"]
    shown = [case["outputs"]["ids"][0] for case in card_code.example(artifact)["cases"]]
    assert shown == [[f"item {row}" for row in case[0]] for case in golden[:3]]
    card_code.assert_as_expected(card_code.run_python(artifact), artifact)
    card_code.assert_as_expected(card_code.run_javascript(artifact, card_code.packages(shared_folder)), artifact)


def test_half_precision_and_ids_that_are_not_those_of_torch(tmp_path: Path, capfd: Capfd) -> None:
    """A golden file in which two ids are exchanged, as if the artifact had exchanged them."""
    artifact = Path(export(tmp_path, capfd, "top: 30").document["artifact"])
    with np.load(artifact / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["outputs.ids"][2, 0, [14, 25]] = arrays["outputs.ids"][2, 0, [25, 14]]
    np.savez(artifact / "golden.npz", **arrays)
    manifest = json.loads((artifact / "manifest.json").read_text())
    manifest["files"] = [asdict(file) for file in store.list_files(artifact)]
    (artifact / "manifest.json").write_text(json.dumps(manifest))
    ended = run_here(capfd, "parity", artifact, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail")
    assert "output 'scores' is off by" in ended.document["parity"]["reason"]
    half = export(tmp_path, capfd, "top: 30", "--precision", "fp16", "--force").document["parity"]
    assert half["output_errors"]["scores"] <= half["tolerance"]["max_abs_error"]["scores"]
    assert half["max_abs_error"] > 1e-5  # it is fp16 indeed
    (artifact / "manifest.json").write_text(json.dumps({**manifest, "ranked": "scores"}))
    assert "'ranked' names 'scores'" in run_here(capfd, "parity", artifact).error_line()
