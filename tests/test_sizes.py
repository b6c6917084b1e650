"""Sizes that a profile asks for and that the golden cases of a checkpoint have not."""

from pathlib import Path

import numpy as np
import pytest
from commands import run_here

from exporter.artifact import store
from exporter.core.errors import ProfileError
from exporter.pipeline import cases
from models.checkpoint import Checkpoint, read

SHIPPED = Path(cases.__file__).parents[2] / "models" / "pretrained" / "scn"


def small(vocabulary: int = 30, **architecture: int) -> Checkpoint:
    """Three cases of 1, 2 and 4 of at most 4 clicks, with three candidates each."""
    golden = {
        "item_ids": np.array([[5, 0, 0, 0], [6, 7, 0, 0], [8, 9, 10, 11]], np.int32),
        "candidate_ids": np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.int32),
    }
    known = {"vocabulary": vocabulary, **architecture}
    return Checkpoint(Path("small"), "mine", known, {"history_length": 4}, {}, golden, "0" * 64)


def test_golden_cases_come_first_and_real_clicks_before_them() -> None:
    resized, drawn = cases.sized(small(), 6, 29)
    histories, lists = resized.golden["item_ids"].tolist(), resized.golden["candidate_ids"]
    assert histories == [[5, 0, 0, 0, 0, 0], [9, 10, 11, 5, 6, 7], [8, 9, 10, 11, 0, 0]]
    assert (lists[:, :3] == small().golden["candidate_ids"]).all()
    assert [sorted(row) for row in lists.tolist()] == [[*range(1, 30)]] * 3  # all of a catalogue, each item once
    assert drawn is not None and (drawn.cases, drawn.as_they_were) == (3, 0)
    assert "1 of 3 histories" in drawn.method and "26 of the 29 candidates" in drawn.method
    assert resized.history_length == 6
    again = cases.sized(small(), 6, 29)[0].golden
    assert all((again[name] == resized.golden[name]).all() for name in ("item_ids", "candidate_ids"))
    _, only_longer = cases.sized(small(), 6, None)
    assert only_longer is not None and only_longer.as_they_were == 2


def test_shorter_histories_are_the_latest_clicks() -> None:
    resized, drawn = cases.sized(small(), 2, 2)
    assert resized.golden["item_ids"].tolist() == [[5, 0], [6, 7], [10, 11]]
    assert (resized.golden["candidate_ids"].shape, drawn) == ((3, 2), None)


def test_long_lists_take_fewer_cases() -> None:
    cases.check_sizes(read(SHIPPED), None, 5000)
    resized, drawn = cases.sized(read(SHIPPED), None, 5000)
    lists = resized.golden["candidate_ids"]
    assert drawn is not None and lists.shape == (drawn.cases, 5000) == (64, 5000)
    assert len(resized.golden["item_ids"]) == 64
    assert all(len(set(row)) == 5000 for row in lists.tolist())


@pytest.mark.parametrize(
    ("checkpoint", "history", "candidates", "words"),
    [
        (small(), None, 30, "candidates: the profile asks for 30, and small has 29 items; ask for 29 or fewer"),
        (small(9999), None, 5001, "asks for 5001, and lists are drawn of up to 5000; ask for 5000 or fewer"),
        (small(history_length=4), 5, None, "this mine takes 4 at most: it has learned nothing of the positions"),
    ],
)
def test_what_cannot_be_says_why(checkpoint: Checkpoint, history: int, candidates: int, words: str) -> None:
    with pytest.raises(ProfileError, match=words):
        cases.check_sizes(checkpoint, history, candidates)


def test_a_longer_history_and_more_candidates_are_proved(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text("name: mine\nextends: generic\nhistory_length: 25\ncandidates: 400\n")
    chosen = ("--target", "onnx", "--profile", profile, "--output", tmp_path / "out")
    ended = run_here(capfd, "scn", *chosen, "--json")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"], document["parity"]["cases"]) == (0, "pass", 256), ended.err
    assert [entry["shape"] for entry in document["inputs"]] == [[1, 25], [1, 400]]
    assert (document["history_length"], document["candidates"]) == (25, 400)
    assert (document["drawn"]["cases"], document["drawn"]["as_they_were"]) == (256, 0)
    folder = Path(document["artifact"])
    assert "300 of the 400 candidates of each case are drawn" in (folder / "README.md").read_text()
    inputs, *_ = store.read_golden(folder)
    golden = read(SHIPPED).golden
    assert (inputs["candidate_ids"][:, 0, :100] == golden["candidate_ids"]).all()
    assert (inputs["item_ids"][::2, 0, :10] == golden["item_ids"][::2]).all()
    refused = run_here(capfd, "scn", *chosen, "--program", "rerank_corrected")
    assert refused.code == 2
    assert "these histories have 25; ask for a history_length of 20, 30 or another" in refused.error_line()
    profile.write_text("name: mine\nextends: generic\nhistory_length: 401\n")
    refused = run_here(capfd, "scn", *chosen, "--force")
    assert refused.code == 2
    assert "ask for a history_length of 400 or fewer, or export the programs chunk" in refused.error_line()
