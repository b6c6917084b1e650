"""`cocorr-export import`: from a state dict to artifacts that pass, or one line and nothing written."""

import json
from pathlib import Path

import published
import pytest
import torch
from commands import run_here

from models.importing import ORIGINS


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The state dicts of RecBole's models, as torch saves them."""
    folder = tmp_path_factory.mktemp("weights")
    names = ("recbole-sasrec", "recbole-gru4rec")
    for name in names:
        torch.save(published.build(name).state_dict(), folder / f"{name}.pt")
    return {name: folder / f"{name}.pt" for name in names}


@pytest.mark.parametrize(
    ("name", "program", "target", "options"),
    [
        ("recbole-sasrec", "rerank", "onnx", ["--heads", "2"]),
        ("recbole-gru4rec", "rerank", "coreml", ["--history", "3"]),
        ("recbole-gru4rec", "step", "onnx", ["--history", "3"]),
    ],
)
def test_what_is_imported_is_exported_and_passes(
    name: str,
    program: str,
    target: str,
    options: list[str],
    files: dict[str, Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place = tmp_path / "checkpoint"
    imported = run_here(capfd, "import", files[name], "--as", name, *options, "--output", place, "--json")
    assert (imported.code, imported.noise()) == (0, []), imported.err
    document = imported.document
    assert (document["checkpoint"], document["model"], document["origin"]) == (str(place), name, name)
    assert document["architecture"]["vocabulary"] == published.V
    words = ("--program", program, "--target", target, "--checkpoint", place, "--output", tmp_path / "out", "--json")
    exported = run_here(capfd, name, *words)
    parity = exported.document["parity"]
    assert (exported.code, parity["verdict"], parity["cases"], parity["top10_overlap"]) == (0, "pass", 64, 1.0)
    assert exported.document["flops"]["uncounted"] == []


def test_a_person_reads_what_was_taken_for_granted(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    name = "recbole-gru4rec"
    place = tmp_path / "checkpoint"
    told = run_here(capfd, "import", files[name], "--as", name, "--output", place)
    assert told.out.splitlines() == [
        f"{name} -> {name}: {place}",
        "  vocabulary 40, dimension 16, hidden 24, layers 2; histories of 50 clicks",
        "  golden cases: 64 drawn at random",
        "  histories of 50 clicks are what is usual there; --history says otherwise",
        "  row 0 of the items, padding, was not zero and is now; no score of a history with a click reads it",
        f"export it: cocorr-export {name} --checkpoint {place} --target all",
    ]
    listed = run_here(capfd, "list", "origins", "--json")
    assert [row["origin"] for row in listed.document["origins"]] == list(ORIGINS)


def test_a_checkpoint_of_another_model_or_other_weights_is_replaced_only_by_force(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place, first, second = tmp_path / "place", *files
    assert [run_here(capfd, "import", files[first], "--as", first, "--output", place).code for _ in range(2)] == [0, 0]
    other = ("import", files[second], "--as", second, "--output", place)
    line = run_here(capfd, *other).error_line()
    assert f"{place} holds another checkpoint: model {first} and not {second}, made from" in line
    assert json.loads((place / "config.json").read_text())["model"] == first
    assert run_here(capfd, *other, "--force").code == 0
    assert json.loads((place / "config.json").read_text())["model"] == second


def test_bad_input_is_one_line_and_leaves_all_as_it_was(
    files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file, own = files["recbole-gru4rec"], tmp_path / "own"
    own.mkdir()
    (own / "letter.txt").write_text("mine")
    cases = {
        (
            file,
            "--as",
            "recbole",
            "--output",
            tmp_path / "new",
        ): "(did you mean 'recbole-sasrec'?); known: cocorrrec-bert4rec,",
        (file, "--as", "recbole-sasrec", "--output", tmp_path / "new"): "missing: position_embedding.weight,",
        (tmp_path / "none.pt", "--as", "recbole-sasrec", "--output", tmp_path / "new"): "none.pt does not exist; give",
        (tmp_path, "--as", "recbole-sasrec", "--output", tmp_path / "new"): "is no regular file; give a state dict",
        (file, "--as", "recbole-gru4rec", "--output", own): "holds 'letter.txt', which would be lost",
        (
            file,
            "--as",
            "recbole-gru4rec",
            "--output",
            tmp_path / "new",
            "--data",
            tmp_path / "no.csv",
        ): "no.csv does not",
        (
            file,
            "--as",
            "recbole-gru4rec",
            "--output",
            tmp_path / "new",
            "--items",
            tmp_path / "no.tsv",
        ): "no.tsv does not",
    }
    for arguments, words in cases.items():
        ended = run_here(capfd, "import", *arguments)
        assert (ended.code, words in ended.error_line()) == (2, True), ended.err
        assert not (tmp_path / "new").exists()
    assert (own / "letter.txt").read_text() == "mine"
