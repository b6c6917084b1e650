"""Raw ids from a catalogue to a ranking: what `rank` prints is torch's order, by the names that the data has."""

import csv
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_models
import tiny_ofa
import torch
from commands import cocorr_export, run_here

from exporter.artifact import store
from exporter.targets import TARGETS
from models import checkpoint
from models.zoo import load_spec
from safeio import catalogue

SHIPPED = Path(checkpoint.__file__).parent / "pretrained" / "scn"
STRANGE = ("01", "1", "001", "1_0", "a, b", 'say "x"', "Käse 🧀", " edge ", "tab\there", "\\t", "=1+1", "@file", "2\n3")


def names(vocabulary: int) -> tuple[str, ...]:
    """Return ids of which the first are strange, in an order in which no id is its own row."""
    return ("", *STRANGE, *(str(vocabulary - row + 100) for row in range(len(STRANGE) + 1, vocabulary)))


def add_items(artifact: Path, ids: Sequence[str]) -> Path:
    """Give an artifact the ids of a catalogue, as if its checkpoint had had them."""
    (artifact / "items.tsv").write_bytes(catalogue.to_bytes(ids, range(len(ids))))
    listed = [{"path": one.path, "bytes": one.bytes, "sha256": one.sha256} for one in store.list_files(artifact)]
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**manifest, "files": listed}))
    return artifact


def line(ids: Sequence[str]) -> str:
    """Return ids as a line of CSV."""
    text = io.StringIO()
    csv.writer(text).writerow(ids)
    return text.getvalue().removesuffix("\r\n")


@pytest.fixture(scope="module")
def torch_scores() -> np.ndarray:
    """Torch's scores of the rows 1 to 129 for the clicks 3, 4, ... 12 with the shipped SCN."""
    model = checkpoint.build(checkpoint.read(SHIPPED), load_spec("scn"))
    with torch.no_grad():
        return model(torch.arange(3, 13)[None], torch.arange(1, 130)[None])[0].numpy()


@pytest.fixture
def named(request: pytest.FixtureRequest, artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """The shipped artifact of a target with raw ids."""
    return add_items(shutil.copytree(artifacts[request.param], tmp_path / "named"), names(12102))


@pytest.mark.parametrize("named", TARGETS, indirect=True)
def test_raw_ids_come_out_in_the_order_of_torch(named: Path, torch_scores: np.ndarray, tmp_path: Path) -> None:
    ids = names(12102)
    candidates = ids[1:130]
    words = ["--history", line(ids[1:13]), "--candidates", line(candidates), "--top", "200", "--json"]
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "torch.py").write_text("import os\nos._exit(77)\n")
    target = TARGETS[store.read_manifest(named).target]
    places = [str(tmp_path / "trap")] if "torch" not in target.runtime.modules else []
    env = {"PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")])}
    ended = cocorr_export("rank", named, *words, env=env)
    assert ended.code == 0, ended.err
    document = ended.document
    order = np.argsort(-torch_scores, kind="stable")
    assert [item["id"] for item in document["ranking"]] == [candidates[at] for at in order]
    assert [item["row"] for item in document["ranking"]] == [at + 1 for at in order]
    np.testing.assert_allclose([item["score"] for item in document["ranking"]], torch_scores[order], atol=1e-4)
    assert (document["ids"], document["candidates"], document["left_out"]) == ("raw", 129, 2)
    assert document["history"] == list(ids[3:13])


@pytest.mark.parametrize("named", ["onnx"], indirect=True)
def test_lists_files_and_what_neither_is(
    named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clicks.txt").write_bytes('\ufeff01\r\n\r\na, b\nsay "x"\n edge \n1_0'.encode())
    (tmp_path / "1").write_text("001\n")
    (tmp_path / "quoted.txt").write_text('"a, b"\n')

    def rank(history: str, *more: str):
        return run_here(capfd, "rank", named, "--history", history, "--candidates", "1,001", *more)

    assert rank("clicks.txt", "--json").document["history"] == ["01", "a, b", 'say "x"', " edge ", "1_0"]
    quoted = rank(' 01, "a, b"," edge "\n"say ""x""","2\n3"', "--json")
    assert quoted.document["history"] == ["01", "a, b", " edge ", 'say "x"', "2\n3"]
    assert rank("./1", "--json").document["history"] == ["001"]
    assert rank('"1"', "--json").document["history"] == ["1"]
    shown = rank("=1+1,tab\there").out.splitlines()
    assert shown[1].startswith("2 clicks; 2 candidates; ran on ONNX Runtime")
    assert sorted(row.split()[-1] for row in shown[3:]) == ["001", "1"]
    for history, part in {
        "1": "'1' is an id and a file",
        "0001,1.0,+1,1e0,01": "'0001', '1.0', '+1' and 1 more are not in the catalogue",
        "Ka\u0308se": "is not in the catalogue",
        "99": "is not in the catalogue",
        "quoted.txt": "file quoted.txt: '\"a, b\"' is not in the catalogue",
        "nowhere.txt": "'nowhere.txt' is not in the catalogue",
        "named": "is no regular file",
        "": "--history is empty",
        "01,,1_0": "an id is empty",
        '"01': "write ids as a line of CSV",
        "\udcff": "is not in the catalogue",
    }.items():
        ended = rank(history)
        assert (ended.code, part in ended.error_line()) == (2, True), ended.err


def test_an_artifact_without_ids_takes_rows_and_says_so(
    artifacts: dict[str, Path], torch_scores: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    def rank(*words: str):
        return run_here(capfd, "rank", artifacts["onnx"], *words)

    ended = rank("--history", "3,4,5,6,7,8,9,10,11,12", "--candidates", line([*map(str, range(1, 130))]), "--json")
    best = np.argsort(-torch_scores)[:10] + 1
    assert [item["id"] for item in ended.document["ranking"]] == [*map(str, best)]
    assert ended.document["ids"] == "rows"
    assert "has no items.tsv: ids are rows of its item table, 1 to 12101" in ended.err
    everything = rank("--history", "3")  # all items, in 122 calls of 100
    assert (everything.code, "; 12101 candidates;" in everything.out) == (0, True)
    for row in ("0", "-1", "12102", "99999999999999999"):
        ended = rank("--history", f"3,{row}")
        assert (ended.code, f"unknown item ids, {row}; those of" in ended.error_line()) == (2, True)


def test_what_is_no_catalogue_or_does_not_rank_is_refused(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    twice = [*names(12102)[:-1], "01"]
    for number, (ids, part) in enumerate([(names(12101), "lists 12100 items"), (twice, "'01' to two items")]):
        folder = add_items(shutil.copytree(artifacts["onnx"], tmp_path / str(number)), ids)
        ended = run_here(capfd, "rank", folder, "--history", "01")
        assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    told = json.loads((folder / "manifest.json").read_text())
    item_ids, candidates = told["inputs"]
    for changes, part in (
        ({"inputs": [{**item_ids, "shape": [10]}, candidates]}, "has item_ids as int32 [10]; rank is for"),
        ({"inputs": [item_ids, {**candidates, "dtype": "float32"}]}, "has candidate_ids as float32 [1, 100]"),
        ({"outputs": [{**told["outputs"][0], "shape": [1, 31]}]}, "scores as [1, 31] and candidate_ids as [1, 100]"),
        ({"ranking": None}, "scn/rerank names no output as its ranking"),
    ):
        (folder / "manifest.json").write_text(json.dumps({**told, **changes}))
        ended = run_here(capfd, "rank", folder, "--history", "01")
        assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    (folder / "manifest.json").write_text(json.dumps(told))
    (folder / "items.tsv").write_bytes(catalogue.to_bytes(names(12102), range(12102)))
    ended = run_here(capfd, "rank", folder, "--history", "01")
    assert (ended.code, "items.tsv is not the file that was exported" in ended.error_line()) == (2, True)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["program"], manifest["inputs"][0] = "step", {**manifest["inputs"][0], "name": "item_id"}
    manifest["interface"]["inputs"][0]["name"] = "item_id"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    ended = run_here(capfd, "rank", folder, "--history", "01")
    assert (ended.code, "scn/step takes item_id, candidate_ids; rank is for" in ended.error_line()) == (2, True)


def test_another_file_as_the_model_is_bad_input_for_every_command(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = add_items(shutil.copytree(artifacts["onnx"], tmp_path / "other"), names(12102))
    manifest = json.loads((folder / "manifest.json").read_text())
    unlisted = {"files": [file for file in manifest["files"] if file["path"] != "model.onnx"]}
    changes = [{"model_file": name} for name in ("golden.npz", "items.tsv", "manifest.json", "other.onnx")]
    for change in (*changes, unlisted):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **change}))
        for words in (("rank", folder, "--history", "01"), ("parity", folder), ("profile", folder)):
            ended = run_here(capfd, *words)
            assert (ended.code, "the model file is" in ended.error_line()) == (2, True), ended.err


def test_ids_go_from_the_checkpoint_into_the_artifact(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The sub-network of a user who is named by raw ids, and what it ranks."""
    folder = tiny_ofa.write(tmp_path / "ofa")
    model, golden = tiny_ofa.read(folder)
    ids = names(300)
    (folder / "items.tsv").write_bytes(catalogue.to_bytes(ids, range(300)))
    clicks = golden["item_ids"][-1]
    where = ("ofa", "--target", "onnx", "--checkpoint", folder, "--output", tmp_path / "out", "--json")
    ended = run_here(capfd, *where, "--history", line([ids[row] for row in clicks]))
    assert (ended.code, ended.document["selection"]["history"]) == (0, clicks.tolist()), ended.err
    assert [line for line in ended.err.splitlines() if "items.tsv" in line] == []
    artifact = Path(ended.document["artifact"])
    assert (artifact / "items.tsv").read_bytes() == (folder / "items.tsv").read_bytes()
    assert "items.tsv" in {file["path"] for file in ended.document["files"]}
    assert ended.document["size_bytes"] == (artifact / "model.onnx").stat().st_size
    row = golden["candidate_ids"][-1]
    words = ("--history", line([ids[one] for one in clicks]), "--candidates", line([ids[one] for one in row]))
    ranked = run_here(capfd, "rank", artifact, *words, "--json").document["ranking"]
    expected = tiny_ofa.scores(model, clicks[None], row[None])[0, 0]
    assert [item["row"] for item in ranked] == row[np.argsort(-expected)[:10]].tolist()
    refused = run_here(capfd, *where, "--history", "01,7x")
    assert (refused.code, "'7x' is not in the catalogue of checkpoint" in refused.error_line()) == (2, True)


def test_another_artifact_is_not_replaced_by_accident(
    artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "scn" / "rerank" / "generic" / "onnx"
    place.parent.mkdir(parents=True)
    shutil.copytree(artifacts["onnx"], place)
    before = {path: path.read_bytes() for path in place.iterdir()}
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "torch.py").write_text("import os\nos._exit(77)\n")
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "trap"), os.environ.get("PYTHONPATH", "")])}
    words = ("scn", "--output", tmp_path, "--precision", "fp16", "--target", "all")
    ended = cocorr_export(*words, env=env)  # before torch is imported, and before any other target is lowered
    assert (ended.code, "holds another artifact: precision fp32 and not fp16" in ended.error_line()) == (2, True)
    other = tiny_models.write("scn", tmp_path / "checkpoint")
    words = ("scn", "--output", tmp_path, "--target", "onnx", "--checkpoint", other)
    line = run_here(capfd, *words).error_line()
    assert "checkpoint " in line, line
    assert "history length 10 and not 6, candidates 100 and not 16" in line
    assert line.endswith("choose another --output, or replace it with --force")
    assert {path: path.read_bytes() for path in place.iterdir()} == before
    for again in (["--force"], []):  # its own place is taken again without a word
        assert run_here(capfd, *words, *again).code == 0
    ended = run_here(capfd, *words[:-2], "--untrained")
    assert (ended.code, "weights trained and not untrained" in ended.error_line()) == (2, True)
