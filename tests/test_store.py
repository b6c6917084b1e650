"""Artifacts on disk: whole or not at all, and read as untrusted."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter import store
from exporter.core.errors import ArtifactError, OutputError


def write(place: Path, text: str) -> None:
    with store.staging(place) as folder:
        (folder / "model").write_text(text)
        store.write_manifest(folder, {"text": text})


def test_a_new_artifact_replaces_the_old_one_in_one_step(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    write(place, "old")
    write(place, "new")
    assert (place / "model").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == ["b"]


def test_a_file_system_without_an_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "b"
    write(place, "old")
    monkeypatch.setattr(store, "_swap", lambda new, old: False)
    write(place, "new")
    assert (place / "model").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    # a kill between the two renames: the next export brings the artifact back before it does anything else
    place.rename(tmp_path / ".b.partial-999999999.old")
    with pytest.raises(RuntimeError), store.staging(place):
        raise RuntimeError
    assert (place / "model").read_text() == "new"


def test_a_failure_leaves_the_old_artifact(tmp_path: Path) -> None:
    place = tmp_path / "b"
    write(place, "old")
    with pytest.raises(KeyboardInterrupt), store.staging(place) as folder:
        (folder / "model").write_text("half")
        raise KeyboardInterrupt
    assert (place / "model").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["b"]


def test_what_a_living_process_writes_is_left_alone(tmp_path: Path) -> None:
    theirs = tmp_path / f".b.partial-{os.getppid()}"
    dead = tmp_path / ".b.partial-999999999"
    theirs.mkdir()
    dead.mkdir()
    write(tmp_path / "b", "new")
    assert theirs.exists()
    assert not dead.exists()


def test_a_folder_that_cannot_be_written_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another --output"):
        store.write_manifest(tmp_path / "missing", {})


EXTERNAL = {
    "metadata": {},
    "tensors": [{"name": "w", "shape": [2], "dtype": "float32"}],
    "data_file": {"name": "w", "tensors": {"w": [0, "float32"]}},
}
GOOD: dict[str, Any] = {
    "schema_version": 1,
    "model": "scn",
    "program": "rerank",
    "target": "onnx",
    "profile": "generic",
    "precision": "fp32",
    "options": {},
    "threads": 1,
    "model_file": "model.onnx",
    "files": [{"path": "model.onnx", "bytes": 1, "sha256": "0"}, {"path": "w", "bytes": 8, "sha256": "0"}],
    "external": EXTERNAL,
    "inputs": [{"name": "x", "shape": [1, 2], "dtype": "int32"}],
    "outputs": [{"name": "y", "shape": [1, 2], "dtype": "float32"}],
    "ranking": None,
    "source": {},
    "parity": {},
}


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 2},
        {"model": 3},
        {"threads": "many"},
        {"threads": True},
        {"precision": "fp64"},
        {"ranking": 1},
        {"model_file": "../../etc/passwd"},
        {"model_file": "/etc/passwd"},
        {"model_file": ""},
        {"files": [{"path": "../x", "bytes": 1, "sha256": "0"}]},
        {"files": [{"path": "x"}]},
        {"files": {}},
        {"inputs": []},
        {"inputs": [{"name": "x", "shape": [1 << 40], "dtype": "int32"}]},
        {"outputs": [{"name": "x", "shape": [1], "dtype": "object"}]},
        {"options": None},
        {"external": []},
        {"external": {**EXTERNAL, "tensors": None}},
        {"external": {**EXTERNAL, "data_file": {"name": "../w", "tensors": {"w": [0, "float32"]}}}},
        {"external": {**EXTERNAL, "data_file": {"name": "w", "tensors": {}}}},
        {"external": {**EXTERNAL, "data_file": {"name": "w", "tensors": {"w": [4, "float32"]}}}},
        {"external": {**EXTERNAL, "data_file": {"name": "w", "tensors": {"w": [-1, "float32"]}}}},
        {"external": {**EXTERNAL, "data_file": {"name": "w", "tensors": {"w": [0, "object"]}}}},
    ],
    ids=str,
)
def test_a_manifest_is_read_with_distrust(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(GOOD))
    assert store.read_manifest(tmp_path) == GOOD
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ArtifactError, match="export the artifact again"):
        store.read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff", b"[]"])
def test_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        store.read_manifest(tmp_path)


def test_golden_cases_come_back(tmp_path: Path) -> None:
    inputs = {"x": np.arange(6, dtype=np.int32).reshape(2, 1, 3)}
    outputs = {"y": np.ones((2, 1, 4), np.float32)}
    store.write_golden(tmp_path, inputs, outputs)
    read = store.read_golden(tmp_path)
    np.testing.assert_equal(read, (inputs, outputs))


def test_golden_cases_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", **{"inputs.x": np.array([{}], dtype=object), "outputs.y": np.ones(1)})
    with pytest.raises(ArtifactError):
        store.read_golden(tmp_path)


def test_every_difference_from_the_manifest_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "x")
    folder = tmp_path / "a"
    manifest = {"files": store.list_files(folder)}
    assert store.changed_file(folder, manifest) is None
    (folder / "more").write_text("")
    assert "more is not in the manifest" in str(store.changed_file(folder, manifest))
    (folder / "more").unlink()
    (folder / "model").write_text("y")
    assert "SHA-256" in str(store.changed_file(folder, manifest))
    (folder / "model").unlink()
    assert "missing" in str(store.changed_file(folder, manifest))
