"""Commands on artifacts that lie in a repository: several at once, and a profile that leaves them as they are."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import run_here

from exporter.artifact import store
from exporter.pipeline import finding

HOSTILE = "x\x1b[31m <script>"


@pytest.fixture
def held(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """A folder that holds two artifacts, one of which fails, and what is none."""
    shutil.copytree(artifacts["onnx"], tmp_path / "held" / "deep" / "onnx")
    tflite = shutil.copytree(artifacts["tflite"], tmp_path / "held" / "tflite")
    with (tflite / "model.tflite").open("ab") as file:
        file.write(b"\0")
    (tmp_path / "held" / "notes.txt").write_text("mine")
    (tmp_path / "held" / "loop").symlink_to(tmp_path / "held")
    shutil.copytree(artifacts["onnx"], tmp_path / "held" / ".onnx.1234")
    return tmp_path / "held"


def test_a_folder_stands_for_the_artifacts_in_it(
    held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(held.parent)
    ended = run_here(capfd, "parity", "held", "held/deep/onnx", "--json")
    assert (ended.code, ended.noise(), list(ended.document)) == (1, [], ["schema_version", "artifacts"])
    shown = [(row["artifact"], row["parity"]["verdict"]) for row in ended.document["artifacts"]]
    assert shown == [("held/deep/onnx", "pass"), ("held/tflite", "fail")]
    alone = run_here(capfd, "parity", "held/deep", "--json")
    assert (alone.code, alone.document) == (0, ended.document["artifacts"][0])
    printed = run_here(capfd, "parity", "held/deep/onnx", "held").out
    assert printed.count("profile generic") == 1
    assert [line for line in printed.splitlines() if ": held/" in line] == [
        "onnx: held/deep/onnx",
        "tflite: held/tflite",
    ]


def test_one_that_cannot_be_read_is_told_of_and_the_others_are_judged(
    held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(held)
    Path(HOSTILE).mkdir()
    Path(HOSTILE, "manifest.json").write_text("{")
    ended = run_here(capfd, "parity", "deep", HOSTILE, "nowhere")
    assert ended.code == 2
    assert [line.isprintable() for line in ended.noise()] == [True, True]
    assert "not readable as JSON" in ended.noise()[0] and "nowhere: no artifact here" in ended.noise()[1]
    assert "onnx: deep/onnx" in ended.out
    rows = run_here(capfd, "parity", "deep", HOSTILE, "--json").document["artifacts"]
    assert [("error" in row, row["artifact"]) for row in rows] == [(False, "deep/onnx"), (True, HOSTILE)]


def test_a_folder_with_too_much_in_it(
    held: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finding, "MOST_ENTRIES", 5)
    for command in ("parity", "compare"):
        ended = run_here(capfd, command, held)
        assert (ended.code, "more than 5 files and folders" in ended.error_line()) == (2, True)


def test_compare_takes_folders_that_hold_artifacts_and_counts_each_once(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for target in ("onnx", "tflite"):
        shutil.copytree(artifacts[target], tmp_path / target)
    compared = run_here(capfd, "compare", tmp_path, tmp_path / "onnx", "--json")
    assert [row["artifact"] for row in compared.document["artifacts"]] == [
        str(tmp_path / target) for target in ("onnx", "tflite")
    ]
    twice = run_here(capfd, "compare", tmp_path / "onnx", tmp_path / "tflite" / ".." / "onnx")
    assert (twice.code, twice.error_line()) == (2, "error: compare takes two different artifacts or more")


def _state(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = sorted([folder, *folder.rglob("*")])
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"") for path in paths}


def test_a_profile_without_writing(
    artifacts: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(artifacts["onnx"], tmp_path / "committed")
    for path in (*folder.rglob("*"), folder):
        path.chmod(0o555 if path.is_dir() else 0o444)

    def refuse(*_: Any) -> None:
        raise AssertionError("nothing is written")

    monkeypatch.setattr(store, "check_writable", refuse)  # whoever runs this as root may write anywhere
    monkeypatch.setattr(store, "update_manifest", refuse)
    before = _state(folder)
    words = ("profile", folder, "--iterations", "20", "--checkpoint", os.devnull, "--no-write")
    shown = run_here(capfd, *words)
    assert (shown.code, "latency" in shown.out, "written to" in shown.out) == (0, True, False), shown.err
    document = run_here(capfd, *words, "--json").document
    stored = json.loads((folder / "manifest.json").read_text())
    assert document["latency"]["iterations"] == 20 != (stored["latency"] or {}).get("iterations")
    assert _state(folder) == before
