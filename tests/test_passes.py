"""Passes as a user meets them: in the manifest, left out, in a list of their own, and where a target refuses one."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from commands import run_here

from exporter.core.errors import LoweringError
from exporter.core.types import Captured
from exporter.parity.verdict import PASS_ERROR
from exporter.targets import TARGETS

NAMES = [
    *("recognise", "rms_norm", "simplify", "absorb", "reorder", "fold_rows", "select_early", "tabulate", "cut", "gemm"),
]
"""Those of ONNX, in their order; ExecuTorch has three more."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.write("scn", tmp_path_factory.mktemp("passes") / "scn")


def test_a_pass_can_be_left_out(checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path]
    with_all = run_here(capfd, *arguments, "--json").document
    assert [(one["name"], one["applied"], one["reason"]) for one in with_all["passes"]] == [
        (name, name not in ("fold_rows", "cut"), None)
        for name in NAMES  # one table is read by both, history and candidates, and so there is nothing to cut
    ]
    applied = [one for one in with_all["passes"] if one["applied"]]
    assert all(0 <= one["max_error"] <= 1e-5 and one["nodes_before"] > 0 for one in applied)
    refused = run_here(capfd, *arguments, "--without-pass", "select_early")
    assert (refused.code, "passes left out [] and not ['select_early']" in refused.error_line()) == (2, True)
    without = run_here(capfd, *arguments, "--without-pass", "select_early", "--force", "--json").document
    (left,) = (one for one in without["passes"] if one["name"] == "select_early")
    assert not left["applied"] and "--without-pass" in left["reason"]
    assert with_all["flops"]["macs"] < without["flops"]["macs"]
    shown = run_here(capfd, "parity", without["artifact"])
    assert "without the pass select_early: left out by --without-pass" in shown.out
    unknown = run_here(capfd, *arguments, "--without-pass", "nosuch")
    assert (
        unknown.code,
        "known: absorb, cut, fold_rows, gemm, recognise, reorder" in unknown.error_line(),
    ) == (2, True)


def test_what_a_target_refuses_of_a_rewritten_graph_is_lowered_as_it_was(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lower = TARGETS["onnx"].lower

    def refusing(captured: Captured, precision: str, options: Mapping[str, Any], folder: Path) -> Path:
        if any(effect.applied for effect in captured.passes):
            (folder / "half-written").write_bytes(b"")
            raise LoweringError("it has met its match")
        return lower(captured, precision, options, folder)

    monkeypatch.setattr(type(TARGETS["onnx"]), "lower", staticmethod(refusing))
    ended = run_here(capfd, "scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path, "--json")
    assert ended.code == 0, ended.err
    assert ended.document["parity"]["verdict"] == "pass"
    assert "without passes" in ended.err
    effects = ended.document["passes"]
    told = [(one["applied"], "it has met its match" in one["reason"]) for one in effects]
    assert told == [(False, True)] * len(NAMES)
    assert ended.document["fold"] == {"asked": "same_size", "used": "same_size"}
    assert not [file for file in ended.document["files"] if file["path"] == "half-written"]
    words = ("--checkpoint", checkpoint, "--iterations", "5", "--json")
    profiled = run_here(capfd, "profile", ended.document["artifact"], *words)
    assert profiled.code == 0, profiled.err
    assert len(profiled.document["growth"]["points"]) > 2  # other lengths, which are lowered as they were, too


def test_rows_are_folded_as_far_as_asked_for_and_budgets_allow(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["scn", "--checkpoint", checkpoint, "--target", "onnx", "--output", tmp_path]
    wide = run_here(capfd, *arguments, "--fold", "all", "--json").document
    assert (wide["fold"], wide["parity"]["verdict"]) == ({"asked": "all", "used": "all"}, "pass")
    refused = run_here(capfd, *arguments)
    assert (refused.code, "fold all and not same_size" in refused.error_line()) == (2, True)
    profile = tmp_path / "small.yaml"
    limit = wide["size_bytes"] - 1
    profile.write_text(f"name: small\nfold: all\ntargets:\n  onnx:\nbudgets:\n  size_bytes: {limit}\n")
    fitting = run_here(capfd, *arguments, "--profile", profile, "--json")
    assert "folding rows with double" in fitting.err
    document = fitting.document
    assert (document["fold"]["asked"], document["budgets"][0]["within"]) == ("all", True)
    assert document["fold"]["used"] != "all" and document["size_bytes"] <= limit
    again = run_here(capfd, *arguments, "--profile", profile)  # the same artifact: it replaces its own
    assert again.code == 0, again.err


def test_another_artifact_that_came_in_between_stays(
    checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["scn", "--checkpoint", checkpoint, "--target", "onnx", "--output"]
    made = run_here(capfd, *arguments, tmp_path / "quick", "--without-pass", "absorb", "--json").document
    place = tmp_path / "slow" / Path(made["artifact"]).relative_to(tmp_path / "quick")
    lower = TARGETS["onnx"].lower

    def overtaken(captured: Captured, precision: str, options: Mapping[str, Any], folder: Path) -> Path:
        shutil.copytree(made["artifact"], place)
        return lower(captured, precision, options, folder)

    monkeypatch.setattr(type(TARGETS["onnx"]), "lower", staticmethod(overtaken))
    ended = run_here(capfd, *arguments, tmp_path / "slow")
    assert (ended.code, "holds another artifact" in ended.error_line()) == (2, True), ended.err
    assert (place / "manifest.json").read_bytes() == (Path(made["artifact"]) / "manifest.json").read_bytes()
    assert [path.name for path in place.parent.iterdir()] == [place.name]


def test_the_passes_are_listed_with_what_they_do(checkpoint: Path, capfd: pytest.CaptureFixture[str]) -> None:
    listed = run_here(capfd, "passes", "--json").document["passes"]
    assert [row["pass"] for row in listed] == [*NAMES[:2], "unroll", *NAMES[2:], "shuffle", "spell_out"]
    assert all(row["description"] and set(row["targets"].split(", ")) <= set(TARGETS) for row in listed)
    rows = run_here(capfd, "passes", "scn", "--checkpoint", checkpoint, "--fold", "all", "--json").document["passes"]
    by_name = {row["pass"]: row for row in rows}
    early, simple, absorbed, folded = (by_name[name] for name in ("select_early", "simplify", "absorb", "fold_rows"))
    assert folded["constant_bytes"][1] > folded["constant_bytes"][0]
    assert folded["product_macs"][1] < folded["product_macs"][0]
    before, after = early["product_macs"]
    assert after < before and early["applied"]
    row_of_the_table = 4 * 16
    assert simple["constant_bytes"][1] - simple["constant_bytes"][0] == row_of_the_table
    assert absorbed["nodes"][1] < absorbed["nodes"][0] and absorbed["max_error"] <= PASS_ERROR
    shown = run_here(capfd, "passes", "scn", "--checkpoint", checkpoint)
    assert "select_early" in shown.out and f"{before:,} ->" in shown.out
