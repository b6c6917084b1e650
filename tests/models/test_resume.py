"""Training as a user expects it: it goes on after a kill, ends early, says how it went; GCN and baselines included."""

import json
import os

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models import checkpoint
from models.training import resume as resumes
from models.training.cli import app
from models.training.data import Filters
from models.training.loop import Settings
from models.training.next_item import NextItem
from models.training.run import Request, run
from models.zoo import load_spec

SETTINGS = Settings(seed=3, epochs=4, learning_rate=1e-2, weight_decay=0.01, batch_size=256, history=10)
SMALL = {"ofa": {"dimension": 16, "blocks": 2}, "bert4rec": {"dimension": 16, "blocks": 1}}


def silent(done, total, note):
    pass


def request(model, clicks, output, settings=SETTINGS, **more):
    options = NextItem(5.0, 0.001, 0.0, 3) if model == "ofa" else None
    architecture = {"dimension": 16, **SMALL.get(model, {}), **more.pop("architecture", {})}
    return Request(model, architecture, clicks, output, settings, Filters(), options, **more)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.mark.parametrize("model", ["scn", "ofa", "bert4rec"])  # bert4rec draws its dropout from torch's generator
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(model, clicks, tmp_path):
    straight = run(request(model, clicks, tmp_path / "straight" / "it"), silent)

    def kill(done, total, note):
        if not note and done > total * 0.7:
            raise Killed

    interrupted = request(model, clicks, tmp_path / "killed" / "it")
    with pytest.raises(Killed):
        run(interrupted, kill)
    assert names(tmp_path / "killed") == ["it.resume"]
    notes = []
    resumed = run(interrupted, lambda done, total, note: notes.append(note))
    assert "going on after epoch 2" in notes
    assert resumed.sha256 == straight.sha256
    assert names(tmp_path / "killed") == ["it"]


def test_progress_of_another_run_or_damaged_progress_is_refused(clicks, tmp_path):
    def kill(done, total, note):
        if note.startswith("epoch 2"):
            raise Killed

    with pytest.raises(Killed):
        run(request("scn", clicks, tmp_path / "it"), kill)
    file = tmp_path / "it.resume"
    content = file.read_bytes()
    other = Settings(seed=4, epochs=4, learning_rate=1e-2, weight_decay=0.01, batch_size=256, history=10)
    with pytest.raises(
        checkpoint.CheckpointError, match="another run, with another command; repeat that one, or remove"
    ):
        run(request("scn", clicks, tmp_path / "it", other), silent)
    for damaged in (content[:500], b"", content[:200] + b"\xff" * 50 + content[250:]):
        file.write_bytes(damaged)
        with pytest.raises(checkpoint.CheckpointError, match=r"it\.resume is no progress of this run .* remove it"):
            run(request("scn", clicks, tmp_path / "it"), silent)
    assert not (tmp_path / "it").exists()


def test_a_full_disk_ends_the_run_and_loses_no_earlier_progress(clicks, tmp_path, monkeypatch):
    replace, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(resumes.os, "replace", full)
    with pytest.raises(checkpoint.CheckpointError, match=r"epoch 2 cannot be written to .*: No space left"):
        run(request("scn", clicks, tmp_path / "it"), silent)
    assert names(tmp_path) == ["it.resume"]
    notes = []
    run(request("scn", clicks, tmp_path / "it"), lambda done, total, note: notes.append(note))
    assert "going on after epoch 1" in notes


def test_training_ends_when_patience_does_and_says_how_it_went(clicks, tmp_path):
    impatient = Settings(0, 40, 0.5, 0.0, 256, 10, patience=2)  # a rate at which nothing is learnt for long
    trained = run(request("gru4rec", clicks, tmp_path / "it", impatient), silent)
    training = trained.config["training"]
    assert training["epochs_run"] == training["best_epoch"] + 2 < 40
    assert "--patience 2" in training["command"]
    log = json.loads((tmp_path / "it" / "metrics.json").read_text())
    assert [row["epoch"] for row in log["epochs"]] == list(range(1, training["epochs_run"] + 1))
    best = max(log["epochs"], key=lambda row: row["NDCG@10"])
    assert best["epoch"] == training["best_epoch"]
    assert log["validation"]["NDCG@10"] == pytest.approx(best["NDCG@10"], abs=1e-6)
    assert log["test"] == trained.config["metrics"]["test"]
    assert all(row["seconds"] > 0 and row["loss"] > 0 for row in log["epochs"])


@pytest.mark.parametrize("model", ["din", "gru4rec", "sasrec", "bert4rec", "mamba4rec"])
def test_the_command_trains_every_baseline(model, clicks, tmp_path):
    arguments = [model, "--data", str(clicks), "--output", str(tmp_path / model), "--epochs", "1", "--history", "7"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    read = checkpoint.read(tmp_path / model)
    network = checkpoint.build(read, load_spec(model))
    with torch.no_grad():
        scores = network(torch.from_numpy(read.golden["item_ids"]), torch.from_numpy(read.golden["candidate_ids"]))
    np.testing.assert_allclose(scores, read.golden["scores"], rtol=1e-5, atol=1e-5)
    assert read.history_length == 7


def test_a_gcn_is_trained_on_top_of_an_scn_that_stays_as_it_is(clicks, tmp_path):
    plain = run(request("scn", clicks, tmp_path / "plain"), silent)
    both = run(
        request("scn", clicks, tmp_path / "both", architecture={"gcn": 1}, start_from=tmp_path / "plain"), silent
    )
    for name, tensor in plain.state.items():
        assert torch.equal(both.state[name], tensor), name
    assert np.array_equal(both.golden["scores"], plain.golden["scores"])
    assert both.config["metrics"]["test"] == plain.config["metrics"]["test"]
    assert both.config["metrics"]["test_corrected"] != both.config["metrics"]["test"]
    assert both.config["training"]["start_from"]["sha256"] == plain.sha256
    assert both.state["gcn.bias_weight"] != 0.25  # it has learnt
    model = checkpoint.build(both, load_spec("scn"))
    assert model.gcn is not None
    assert checkpoint.build(checkpoint.read(tmp_path / "plain"), load_spec("scn")).gcn is None


def test_a_gcn_is_trained_together_with_its_scn(clicks, tmp_path):
    trained = run(request("scn", clicks, tmp_path / "both", architecture={"gcn": 1}), silent)
    assert trained.config["training"]["command"].endswith(" --gcn")
    assert (trained.state["gcn.attention_weight"] != 0).all()
    best = max(json.loads((tmp_path / "both" / "metrics.json").read_text())["epochs"], key=lambda row: row["NDCG@10"])
    assert trained.config["metrics"]["validation_corrected"]["NDCG@10"] == pytest.approx(best["NDCG@10"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gru4rec", "--gcn"], "--gcn is for scn"),
        (["scn", "--start-from", "x"], "--start-from is for ofa, and for scn with --gcn"),
        (["scn", "--gcn", "--history", "12"], "a GCN corrects 10 clicks: leave --history at that"),
        (["scn", "--gcn", "--start-from", "nowhere"], "checkpoint folder nowhere does not exist"),
        (["sasrec", "--history", "2000"], "history_length 2000 is more than the"),
        (["scn", "--min-rating", "3"], "has no ratings to compare with"),
        (["gru4rec", "--learning-rate", "1e37", "--batch-size", "64"], "the loss of epoch 1 is"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, clicks, tmp_path):
    result = CliRunner().invoke(app, [*options, "--data", str(clicks), "--output", str(tmp_path / "out")])
    *notes, error = result.stderr.splitlines()
    assert (result.exit_code, message in error) == (2, True), result.output
    trained = "--learning-rate" in options  # what was left out is told once there is something to train
    assert [note.partition(" ")[2] for note in notes] == ["users with fewer than 3 clicks are not tested"] * trained
    assert names(tmp_path) == []
