"""Schemes of precision end to end: files, verdicts of two parts, damaged tables, and the mildest that fits."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_models
import torch
from commands import run_here
from onnx import numpy_helper
from torch import nn

from exporter import pipeline
from exporter.artifact import store
from exporter.pipeline.parity import judge_golden
from exporter.report.units import needed
from exporter.targets import TARGETS

Capfd = pytest.CaptureFixture[str]
MOST_BYTES = {"int8": 985_000, "int4": 600_000}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("scn", tmp_path_factory.mktemp("schemes") / "scn")


def profile(folder: Path, **keys: object) -> Path:
    path = folder / "mine.yaml"
    path.write_text(json.dumps({"name": "mine", "extends": "generic", **keys}))
    return path


@pytest.mark.parametrize(("scheme", "targets"), [("int8", ["tflite"]), ("int4", [*TARGETS])])
def test_the_shipped_catalogue(scheme: str, targets: list[str], tmp_path: Path, capfd: Capfd) -> None:
    chosen = "all" if len(targets) > 1 else targets[0]
    ended = run_here(capfd, "scn", "--target", chosen, "--precision", scheme, "--output", tmp_path, "--json")
    documents = ended.document["artifacts"] if len(targets) > 1 else [ended.document]
    artifacts = {document["target"]: document for document in documents}
    assert (ended.code, set(artifacts)) == (0, set(targets))
    for target, document in artifacts.items():
        parity, cost = document["parity"], document["parity"]["scheme"]
        assert (parity["verdict"], parity["lowering"], cost["verdict"]) == ("pass", "pass", "pass"), target
        assert document["size_bytes"] <= MOST_BYTES[scheme]
        assert parity["top10_overlap"] == 1.0 > cost["top10_overlap"] >= cost["top10_asked"]
        (table,) = document["scheme"]["stored"]
        assert (table["rows"], table["width"], table["lookups"]) == (12_103, 64, 2)
        assert cost["allowed"] == pytest.approx(2**0.5 * table["relative_rmse"])
        assert 0.3 < cost["error_to_spread"]["scores"] / cost["allowed"] < 0.7
        memory = document["memory"]
        assert table["bytes"] <= memory["embedding_bytes"] < table["bytes"] + 10_000
        assert (memory["expanded"], document["flops"]["uncounted"]) == ([], [])
        casts = [row for row in document["flops"]["by_operation"] if row["operation"] == "XNNConvert"]
        assert len(casts) == (2 if target == "executorch" else 0)  # rows of clicks and candidates, in XNNPACK
        golden = store.read_golden(Path(document["artifact"]))
        spread = golden.fp32["scores"].std(-1, keepdims=True)
        moved = np.sqrt(((golden.fp32["scores"] - golden.outputs["scores"]) ** 2).mean() / (spread**2).mean())
        assert cost["error_to_spread"]["scores"] == pytest.approx(float(moved), rel=1e-4)


def test_tables_and_body_by_their_own_names(checkpoint: Path, tmp_path: Path, capfd: Capfd) -> None:
    words = ["scn", "--checkpoint", checkpoint, "--output", tmp_path]
    mixed = profile(tmp_path, precision={"tables": "int8", "body": "fp16"})
    for target in ("onnx", "coreml", "executorch"):
        document = run_here(capfd, *words, "--target", target, "--profile", mixed, "--json").document
        assert (document["precision"], document["parity"]["lowering"]) == ("int8+fp16", "pass"), target
        assert document["parity"]["max_abs_error"] > 1e-5  # its body is fp16 indeed
    refused = run_here(capfd, *words, "--target", "tflite", "--profile", mixed)
    assert (refused.code, "tflite has no int8+fp16, it has fp32, fp16, int8, int4" in refused.error_line()) == (2, True)
    none = run_here(
        capfd, *words, "--target", "onnx", "--profile", profile(tmp_path, precision={"tables": "fp32", "body": "fp16"})
    )
    assert (none.code, "tables in fp32 beside a body in fp16 are no scheme" in none.error_line()) == (2, True)


def test_what_cannot_be_stored_so_is_refused_before_anything_is_written(
    checkpoint: Path, tmp_path: Path, capfd: Capfd
) -> None:
    words = ["scn", "--checkpoint", checkpoint, "--output", tmp_path / "out", "--precision", "int8"]
    without = run_here(capfd, *words, "--target", "onnx", "--program", "correct")
    assert (without.code, "no table that only lookups read" in without.error_line()) == (2, True)
    old = run_here(
        capfd,
        *words,
        "--target",
        "coreml",
        "--profile",
        profile(tmp_path, targets={"coreml": {"deployment_target": "iOS16"}}),
    )
    assert (old.code, "coreml has no int8 here: it needs deployment_target iOS17" in old.error_line()) == (2, True)
    assert not list(tmp_path.rglob("manifest.json"))


def scaled(scales: np.ndarray, rows: np.ndarray) -> None:
    scales *= 1.01


def swapped(scales: np.ndarray, rows: np.ndarray) -> None:
    high, low = np.divmod(rows.astype(int), 16)
    rows[:] = 16 * (low - 8) + high + 8


def zeroed(scales: np.ndarray, rows: np.ndarray) -> None:
    rows[7] = 8  # 0 in both halves


@pytest.mark.parametrize("damage", [scaled, swapped, zeroed])
def test_a_damaged_table_fails(
    damage: Callable[[np.ndarray, np.ndarray], None], checkpoint: Path, tmp_path: Path
) -> None:
    choice = pipeline.ProgramChoice("scn", checkpoint=checkpoint)
    (result,) = pipeline.export(pipeline.ExportRequest(choice, "onnx", tmp_path, precision="int4"), lambda _: None)
    folder = Path(result.place)
    assert judge_golden(folder, result.manifest, lambda _: None).lowering == "pass"
    model = onnx.load(folder / "model.onnx")
    stored = {entry.name: numpy_helper.to_array(entry).copy() for entry in model.graph.initializer}
    (rows,) = (name for name, array in stored.items() if array.dtype == np.int8)
    (scales,) = (name for name, array in stored.items() if array.shape == (len(stored[rows]), 1))
    damage(stored[scales], stored[rows])
    for entry in model.graph.initializer:
        if entry.name in (rows, scales):
            entry.CopyFrom(numpy_helper.from_array(stored[entry.name], entry.name))
    onnx.save(model, folder / "model.onnx")
    judged = judge_golden(folder, result.manifest, lambda _: None)
    assert (judged.verdict, judged.lowering) == ("fail", "fail")
    assert judged.reason is not None
    assert judged.reason.startswith("lowering: output 'scores' is off by")


class Rows(nn.Module):
    """Rows of a table as they are, which no delegate computes with."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.items = nn.Embedding(40, 8)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.items(ids)


def test_rows_that_nothing_computes_with(tmp_path: Path) -> None:
    cases = {"ids": np.arange(40, dtype=np.int32).reshape(10, 1, 4)}
    for target in TARGETS:
        choice = pipeline.GivenModule("rows", Rows(), cases)
        (result,) = pipeline.export(pipeline.ExportRequest(choice, target, tmp_path, precision="int8"), lambda _: None)
        assert (target, result.manifest.parity.verdict) == (target, "pass"), result.manifest.parity.reason


def test_the_mildest_scheme_that_fits(checkpoint: Path, tmp_path: Path, capfd: Capfd) -> None:
    words = ["scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path]
    plain = run_here(capfd, *words, "--json").document
    words += ["--precision", "auto"]
    fits = run_here(
        capfd, *words, "--profile", profile(tmp_path, budgets={"size_bytes": plain["size_bytes"]}), "--json"
    )
    assert (fits.document["precision"], fits.document["passed_over"]) == ("fp32", [])
    limit = plain["size_bytes"] - 1
    tight = profile(tmp_path, budgets={"size_bytes": limit})
    refused = run_here(capfd, *words[:-2], "--profile", tight)
    assert (refused.code, "precision auto and not fp32" in refused.error_line()) == (2, True)
    document = run_here(capfd, *words, "--profile", tight, "--json").document
    assert (document["precision"], document["size_bytes"] <= limit) == ("fp16", True)
    assert document["passed_over"] == [
        {"precision": "fp32", "reason": f"over budget: size_bytes {needed('size_bytes', plain['size_bytes'], limit)}"},
        {"precision": "fp16+fp32", "reason": "failing its parity"},  # random weights make its tables' errors larger
    ]
    shown = run_here(capfd, "parity", document["artifact"])
    over = needed("size_bytes", plain["size_bytes"], limit)
    assert f"precision auto: fp16, as fp32 is over budget: size_bytes {over}" in shown.out


def test_a_manifest_whose_scheme_is_not_that_of_its_precision_is_not_read(
    checkpoint: Path, tmp_path: Path, capfd: Capfd
) -> None:
    words = ("scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path, "--precision", "int8")
    place = Path(run_here(capfd, *words, "--json").document["artifact"])
    document = json.loads((place / "manifest.json").read_text())
    scheme = document["scheme"]
    (table,) = scheme["stored"]
    for wrong, words_told in (
        ({"precision": "fp32"}, "'scheme' is there at the precision fp32"),
        ({"precision": "int8+fp16"}, "'scheme' has tables in int8 and a body in fp32"),
        ({"scheme": {**scheme, "tables": "fp32"}}, "scheme.tables"),
        ({"scheme": {**scheme, "stored": []}}, "scheme.stored"),
        ({"scheme": {**scheme, "stored": [{**table, "relative_rmse": 1e200}]}}, "impossible"),
        ({"scheme": {**scheme, "stored": [{**table, "relative_rmse": -1.0}]}}, "impossible"),
        ({"scheme": {**scheme, "stored": [{**table, "lookups": 10**400}]}}, "impossible"),
        ({"scheme": {**scheme, "stored": [{**table, "lookups": 0}]}}, "impossible"),
        ({"source": {**document["source"], "untrained": True}}, "'source' has a checkpoint and drawn weights"),
    ):
        (place / "manifest.json").write_text(json.dumps({**document, **wrong}))
        refused = run_here(capfd, "parity", place)
        assert (refused.code, words_told in refused.error_line()) == (2, True), (wrong, refused.err)
    without = {key: value for key, value in document.items() if key != "scheme"}
    (place / "manifest.json").write_text(json.dumps(without))
    refused = run_here(capfd, "parity", place)
    assert (refused.code, "'scheme' is missing at the precision int8" in refused.error_line()) == (2, True)


class Large(Rows):
    """A ranking by rows with numbers that 16 bits cannot hold."""

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return super().forward(ids).sum(-1)


def test_a_scheme_that_cannot_hold_a_table_is_passed_over_by_auto(tmp_path: Path) -> None:
    module = Large()
    with torch.no_grad():
        module.items.weight *= 1e6
    choice = pipeline.GivenModule("large", module, {"ids": np.arange(40, dtype=np.int32).reshape(10, 1, 4)})
    tight = str(profile(tmp_path, fold="none", budgets={"size_bytes": 1_500}))
    request = pipeline.ExportRequest(choice, "onnx", tmp_path, tight, "auto")
    (result,) = pipeline.export(request, lambda _: None)
    tried = {row.precision: row.reason for row in result.manifest.passed_over}
    assert "over budget" in tried["fp32"]
    assert tried["fp16"] == "failing its parity"  # its numbers are infinite, and it would fit
    assert "fp16+fp32" not in tried
    assert (result.manifest.precision, result.manifest.parity.verdict) == ("int8", "pass")


def test_artifacts_of_one_program_side_by_side(checkpoint: Path, tmp_path: Path, capfd: Capfd) -> None:
    places = {}
    for scheme in ("fp32", "int8"):
        words = ("scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path / scheme, "--json")
        places[scheme] = run_here(capfd, *words, "--precision", scheme).document["artifact"]
    compared = run_here(capfd, "compare", *places.values(), "--json")
    assert (compared.code, [row["precision"] for row in compared.document["artifacts"]]) == (0, ["fp32", "int8"])
    verdicts = [row["parity"]["verdict"] for row in compared.document["artifacts"]]
    # A network of random weights makes its table's error larger, which its verdict says.
    assert (verdicts, compared.document["recommended"]) == (["pass", "fail"], places["fp32"])
    manifest = Path(places["int8"]) / "manifest.json"
    document = json.loads(manifest.read_text())
    document["parity"]["verdict"] = document["parity"]["scheme"]["verdict"] = "pass"
    for overlap, best in ((0.99, "int8"), (0.98, "fp32")):
        document["parity"]["scheme"]["top10_overlap"] = overlap
        manifest.write_text(json.dumps(document))
        shown = run_here(capfd, "compare", *places.values())
        assert f"recommended: {places[best]}: the smallest of those that pass" in shown.out
    alone = run_here(capfd, "compare", places["fp32"])
    assert (alone.code, alone.error_line()) == (2, "error: compare takes two different artifacts or more")
    words = ("scn", "--checkpoint", checkpoint, "--target", "onnx", "--program", "hidden_state", "--output", tmp_path)
    other = run_here(capfd, *words, "--json").document["artifact"]
    refused = run_here(capfd, "compare", places["fp32"], other)
    assert (refused.code, "is of another program or checkpoint than" in refused.error_line()) == (2, True)
