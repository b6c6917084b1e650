"""Architectures without weights: costs and parity, and a manifest that says what was not there."""

from pathlib import Path

import numpy as np
import pytest
from commands import run_here

from exporter.artifact import store
from models import untrained
from models.checkpoint import MAX_SIZE
from models.zoo import load_spec


def test_an_architecture_without_weights_has_costs_and_parity(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run_here(capfd, "gru4rec", "--untrained", "--target", "onnx", "--output", tmp_path, "--json")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"], document["parity"]["cases"]) == (0, "pass", 64), ended.err
    source = document["source"]
    assert (source["checkpoint_sha256"], source["untrained"]) == (None, True)
    assert source["architecture"] == {"vocabulary": 30_000, "dimension": 64}
    assert document["parameters"] == 1_965_760  # Table 4: 1.97 M
    scores = store.read_golden(Path(document["artifact"]))[1]["scores"]
    assert scores.std() > 0.1  # a thousand times the error that fp32 allows
    again = run_here(capfd, "parity", document["artifact"])
    assert (again.code, "untrained: weights and histories are drawn" in again.out) == (0, True), again.err


def test_profiles_choose_the_lengths_of_an_untrained_model(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "long.yaml").write_text("name: long\nhistory_length: 25\ncandidates: 7\ntargets:\n  onnx:\n")
    where = ("--output", tmp_path / "out", "--profile", tmp_path / "long.yaml")
    ended = run_here(capfd, "bert4rec", "--untrained", "--target", "onnx", "--json", *where)
    assert ended.code == 0, ended.err
    assert [one["shape"] for one in ended.document["inputs"]] == [[1, 25], [1, 7]]
    assert ended.document["source"]["architecture"]["history_length"] == 25


@pytest.mark.parametrize("candidates", [30_000, 9_999_999])
def test_more_candidates_than_items_are_refused(
    candidates: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wide.yaml").write_text(f"name: wide\ncandidates: {candidates}\ntargets: {{onnx: }}")
    where = ("--output", tmp_path / "out", "--profile", tmp_path / "wide.yaml")
    ended = run_here(capfd, "din", "--untrained", "--target", "onnx", *where)
    assert (ended.code, f"candidates: {candidates} are asked for" in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


def test_all_items_can_be_candidates() -> None:
    """Every item once, in each case: more could not be distinct."""
    _, checkpoint = untrained.untrained(load_spec("din"), 3, untrained.VOCABULARY - 1)
    candidates = checkpoint.golden["candidate_ids"]
    assert candidates.shape == checkpoint.golden["scores"].shape == (untrained.CASES, untrained.VOCABULARY - 1)
    assert (np.sort(candidates[-1]) == np.arange(1, untrained.VOCABULARY)).all()
    for length in (MAX_SIZE + 1, 10**9):
        with pytest.raises(ValueError, match="the longest history of a model is 4096"):
            untrained.untrained(load_spec("din"), length, 1)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "no trained gru4rec ships: give --checkpoint DIR, which cocorr-train gru4rec writes, or --untrained"),
        (["--untrained", "--checkpoint", "x"], "leave one of the two out"),
    ],
)
def test_weights_come_from_one_place(
    arguments: list[str], part: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run_here(capfd, "gru4rec", "--target", "onnx", "--output", tmp_path, *arguments)
    assert (ended.code, part in ended.error_line()) == (2, True), ended.err
    assert list(tmp_path.iterdir()) == []
