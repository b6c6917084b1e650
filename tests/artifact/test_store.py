"""Artifacts on disk: whole or not at all, and read as untrusted."""

import contextlib
import copy
import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.artifact import store
from exporter.artifact.manifest import Manifest, ManifestError, from_json
from exporter.artifact.results import Result
from exporter.core.errors import ArtifactError, OutputError
from exporter.core.sections import Latency
from exporter.report.console import print_artifacts
from safeio import locks


def manifest(**changes: Any) -> Manifest:
    return from_json(json.dumps({**GOOD, **changes}).encode())


def write(place: Path, text: str) -> None:
    with store.staging(place) as folder:
        (folder / "model").write_text(text)
        good = manifest(model_file="model", external=None, files=[{"path": "model", "bytes": 1, "sha256": "0"}])
        store.write_manifest(folder, replace(good, files=store.list_files(folder)))


def test_an_artifact_replaces_an_earlier_one(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    write(place, "old")
    write(place, "new")
    assert (place / "model").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == ["b"]


def _thesis(place: Path) -> None:
    (place / "thesis.tex").write_text("mine")


def _web_application(place: Path) -> None:
    (place / "model").unlink()
    (place / "manifest.json").write_text('{"name": "My app", "icons": []}')


def _no_manifest(place: Path) -> None:
    (place / "manifest.json").unlink()


def _folders_only(place: Path) -> None:
    for path in place.iterdir():
        path.unlink()
    (place / "photos" / "2026").mkdir(parents=True)


@pytest.mark.parametrize("change", [_thesis, _web_application, _no_manifest, _folders_only])
def test_what_is_no_artifact_is_not_replaced(change: Callable[[Path], None], tmp_path: Path) -> None:
    place = tmp_path / "b"
    write(place, "old")
    change(place)
    before = sorted(place.rglob("*"))
    with pytest.raises(OutputError, match="choose another --output"):
        write(place, "new")
    assert sorted(place.rglob("*")) == before


def test_no_artifact_is_put_inside_another(tmp_path: Path) -> None:
    write(tmp_path / "b", "old")
    for place in (tmp_path / "b" / "inner", tmp_path / "b" / "deep" / "inner"):
        for act in (store.check_place, lambda inner: write(inner, "new")):
            with pytest.raises(OutputError, match="inside the artifact"):
                act(place)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["manifest.json", "model"]


def test_no_manifest_is_written_that_would_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="larger than"):
        store.write_manifest(tmp_path, manifest(more="x" * (17 << 20)))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_clear_message(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="choose another --output"):
        store.write_manifest(tmp_path / "missing", manifest())


def test_a_link_in_the_place_of_a_file_is_called_one(tmp_path: Path) -> None:
    write(tmp_path / "b", "old")
    model = next(path for path in (tmp_path / "b").rglob("*") if path.is_file() and path.name != "manifest.json")
    model.rename(tmp_path / "elsewhere")
    model.symlink_to(tmp_path / "elsewhere")
    assert "is a link" in str(store.changed_file(tmp_path / "b", store.read_manifest(tmp_path / "b")))


def test_a_manifest_is_written_only_into_what_was_read(tmp_path: Path) -> None:
    place = tmp_path / "b"
    write(place, "old")
    opened = store.open_artifact(place)
    store.update_manifest(opened, replace(opened.manifest, latency=Latency(p50_us=1.0)))
    with pytest.raises(ArtifactError, match="changed by another command"):  # it is not as it was read any more
        store.update_manifest(opened, opened.manifest)
    opened = store.open_artifact(place)
    write(place, "new")
    content = (place / "manifest.json").read_bytes()
    with pytest.raises(ArtifactError, match="changed by another command"):
        store.update_manifest(opened, opened.manifest)
    assert (place / "manifest.json").read_bytes() == content
    assert sorted(path.name for path in place.iterdir()) == ["manifest.json", "model"]
    with pytest.raises(ArtifactError, match="start this one again"):
        store.require_same(opened)


def test_an_unfinished_manifest_is_no_part_of_an_artifact_and_goes_with_the_next(tmp_path: Path) -> None:
    place = tmp_path / "b"
    write(place, "old")
    left = locks.new_name(place / "manifest.json")
    left.write_text("{")  # as a kill leaves it
    opened = store.open_artifact(place)
    assert store.changed_file(place, opened.manifest) is None
    store.update_manifest(opened, opened.manifest)
    assert not left.exists()
    link = locks.new_name(place / "manifest.json")
    link.symlink_to("/etc/passwd")
    assert store.added_files(place, opened.manifest) == (link.name,)


@pytest.mark.parametrize("link", ["model", "manifest.json", "golden.npz", "more"])
def test_links_in_an_artifact_are_not_followed(link: str, tmp_path: Path) -> None:
    place, outside = tmp_path / "b", tmp_path / "outside"
    write(place, "old")
    outside.write_bytes((place / link).read_bytes() if (place / link).exists() else b"")
    (place / link).unlink(missing_ok=True)
    (place / link).symlink_to(outside)
    if link == "manifest.json":
        with pytest.raises(ArtifactError, match="links are not followed"):
            store.open_artifact(place)
        return
    if link == "golden.npz":
        with pytest.raises(ArtifactError, match="links are not followed"):
            store.read_golden(place)
    opened = store.open_artifact(place)
    changed, added = store.changed_file(place, opened.manifest), store.added_files(place, opened.manifest)
    assert (changed is None, added) == ((True, ("more",)) if link == "more" else (False, added))
    (tmp_path / "copy").mkdir()
    if link == "model":
        with pytest.raises(ArtifactError, match="links are not followed"):
            store.copy_listed(opened, tmp_path / "copy")
    else:
        store.copy_listed(opened, tmp_path / "copy")
        assert [path.name for path in (tmp_path / "copy").iterdir()] == ["model"]


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
    "size_bytes": 9,
    "parameters": 2,
    "source": {},
    "parity": {"verdict": "pass"},
}


SCHEME = {
    **dict.fromkeys(("top10_overlap", "top10_asked", "top10_changed", "kendall_tau")),
    "verdict": "fail",
    "reason": "",
    "error_to_spread": {},
    "allowed": 0.1,
}
TOLERANCE = {"max_abs_error": {"y": 1e-4}, "top10_overlap": 1.0}


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
        {"files": [{"path": "w", "bytes": 8, "sha256": "0"}] * 2},
        {"files": [{"path": "w", "bytes": -8, "sha256": "0"}]},
        {"files": [{"path": ".manifest.json.0123456789abcdef.partial", "bytes": 8, "sha256": "0"}]},
        {"inputs": []},
        {"inputs": [{"name": "x", "shape": [1 << 40], "dtype": "int32"}]},
        {"outputs": [{"name": "x", "shape": [1], "dtype": "object"}]},
        {"options": None},
        {"parity": {}},
        {"parity": {"verdict": "passed"}},
        {"parity": {"verdict": "pass", "could_flip": 10**40}},
        {"parity": {"verdict": "pass", "lowering": "fail"}},
        {"parity": {"verdict": "pass", "scheme": SCHEME}},
        {
            "parity": {
                "verdict": "pass",
                "in_one_call": {"users": 2, "verdict": "fail", "reason": "", "max_abs_error": 9.0},
            }
        },
        {"parity": {"verdict": "pass", "cases": 0}},
        {"parity": {"verdict": "pass", "output_errors": {"y": 99.0}, "tolerance": TOLERANCE}},
        {"parity": {"verdict": "pass", "top10_overlap": 0.5, "tolerance": TOLERANCE}},
        {"parity": {"verdict": "pass", "reason": "\x1b[2J"}},
        {"ranking": "x"},
        {"exchange": {"up": ["z"], "down": []}},
        {"exchange": {"up": ["y", "y"], "down": []}},
        {"state": {"z": "x"}},
        {"state": {"y": "z"}},
        {"batch": 1},
        {"any_batch": False},
        {"any_batch": True, "inputs": [{"name": "x", "shape": [2], "dtype": "int32"}]},
        {"flops": {"total": 1}},
        {"memory": []},
        {"flops": None},
        {"latency": None},
        {"budgets": None},
        {"latency": {"p50_us": "fast"}},
        {"budgets": [{"budget": "joy", "limit": 1, "value": 1, "within": True}]},
        {"inputs": [{"name": "x", "shape": [1], "dtype": "int32"}] * 2},
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
    assert store.read_manifest(tmp_path) == manifest()
    (tmp_path / "manifest.json").write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ArtifactError, match="export the artifact again"):
        store.read_manifest(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b'{"note": 1e999}', b"[" * 100_000, b"\xff", b"[]"])
def test_no_json(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ArtifactError):
        store.read_manifest(tmp_path)


def test_golden_cases_come_back(tmp_path: Path) -> None:
    inputs = {"x": np.arange(6, dtype=np.int32).reshape(2, 1, 3)}
    outputs = {"y": np.ones((2, 1, 4), np.float32)}
    store.write_golden(tmp_path, store.Golden(inputs, outputs))
    read = store.read_golden(tmp_path)
    np.testing.assert_equal(read, (inputs, outputs, {}, None, {}, {}))
    more = ({"y": np.zeros((5, 1, 4), np.float32)}, {"y": np.full((5, 1, 4), 2, np.float32)})
    store.write_golden(tmp_path, store.Golden(inputs, outputs, outputs, None, *more))
    read = store.read_golden(tmp_path)
    np.testing.assert_equal(read, (inputs, outputs, outputs, None, *more))
    fp32, stored = read.beside_fp32
    assert (fp32["y"].shape, fp32["y"][2:].mean(), stored["y"][2:].mean()) == ((7, 1, 4), 2, 0)


def test_golden_cases_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "golden.npz", **{"inputs.x": np.array([{}], dtype=object), "outputs.y": np.ones(1)})
    with pytest.raises(ArtifactError):
        store.read_golden(tmp_path)


def test_every_difference_from_the_manifest_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a", "x")
    folder = tmp_path / "a"
    (folder / "model").write_text("reads data.bin")
    (folder / "part").mkdir()
    (folder / "part" / "one").write_text("")
    written = replace(store.read_manifest(folder), files=store.list_files(folder))
    assert store.changed_file(folder, written) is None
    (folder / "more").write_text("")
    (folder / "others").mkdir()
    (folder / "others" / "golden.npz").write_text("")
    assert store.changed_file(folder, written, ("layout.json",)) is None
    assert store.added_files(folder, written) == ("more", "others/golden.npz")
    for name in (
        "golden.npz",
        "weights.safetensors",
        "items.tsv",
        "part/two",
        "data.bin",
        "layout.json",
        "others/data.bin",
    ):
        (folder / name).write_text("")
        assert f"{name} is not in the manifest" in str(store.changed_file(folder, written, ("layout.json",))), name
        (folder / name).unlink()
    (folder / "model").write_text("y")
    assert "SHA-256" in str(store.changed_file(folder, written))
    (folder / "model").unlink()
    assert "missing" in str(store.changed_file(folder, written))


@settings(max_examples=500)
@given(st.data())
def test_a_manifest_with_anything_in_it_is_refused_or_can_be_shown(data: st.DataObject) -> None:
    """Whatever is read can be shown, and is the same when it is written and read again."""
    document = copy.deepcopy(WHOLE)
    place: Any = document
    while isinstance(place, dict | list) and len(place):
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(place[key], dict | list) or data.draw(st.integers(0, 3)) == 0:
            break
        place = place[key]
    if len(place) and data.draw(st.booleans()):
        place[key] = data.draw(ANYTHING)
    elif len(place):
        del place[key]
    with contextlib.suppress(ManifestError):
        shown = from_json(json.dumps(document).encode())
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            print_artifacts([Result(shown, "a")])
        assert document["target"] in printed.getvalue()
        assert from_json(json.dumps(shown.to_json()).encode()) == shown


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["", "pass", "unverified", "[/x]", "\x1b[2J", "../x", "scores", "x" * 5000, "\ud800"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "reason", "x"]), inner),
    max_leaves=4,
)
WHOLE: dict[str, Any] = {
    **GOOD,
    "ranking": "y",
    "parity": {
        "verdict": "fail",
        "reason": "off",
        "executed_on": "here",
        "cases": 2,
        "max_abs_error": 1e-6,
        "top10_overlap": 1.0,
        "kendall_tau": 1.0,
        "flip_margin": 0.1,
        "could_flip": 0,
        "unsettled": ["mod"],
    },
    "flops": {
        "unit": "",
        "total": 10,
        "macs": 4,
        "moved_bytes": 1,
        "uncounted": [{"operation": "X", "count": 1}],
        "by_kind": {"add": 2},
        "delegates": [{"delegate": None, "operations": {"Add": 1}, "flops": 2}],
        "by_operation": [],
        "per_token": 1.0,
        "per_token_method": "",
        "per_token_reason": None,
    },
    "memory": {"constant_bytes": 4, "planned_activation_bytes": 8, "peak_rss_bytes": None, "reason": "none"},
    "latency": {"load_ms": 1.0, "p50_us": 2.0, "conditions": {"cores": "0"}, "instructions": 5, "reason": None},
    "budgets": [{"budget": "size_bytes", "limit": 1, "value": 2, "within": False, "reason": None}],
    "selection": {
        "structure": "101",
        "chosen": "111",
        "logits": [0.1],
        "left_out": [1],
        "agreement_with_chosen": {"top10_overlap": 0.5, "kendall_tau": None},
    },
}


def test_the_whole_example_is_one() -> None:
    whole = manifest(**WHOLE, of_a_later_version={"x": [1]})
    written = json.loads(json.dumps(whole.to_json()))
    assert {key: written[key] for key in ("ranking", "budgets")} == {key: WHOLE[key] for key in ("ranking", "budgets")}
    assert written["parity"].items() >= WHOLE["parity"].items()
    assert written["of_a_later_version"] == {"x": [1]}
