"""Training with few items, on other devices, on a full disk; what is told while it goes on and when it ends badly."""

import io
import json
import shutil

import numpy as np
import pytest
import torch

from models import checkpoint
from models.training import cli, run
from models.training.data import Interactions
from models.training.evaluation import split_to_train_on
from models.training.progress import Passing
from models.training.readers import DataError
from models.training.sampling import clicked, sample_negatives
from models.zoo import MODELS, load_spec


def shop(path, items, users, seed=0):
    """Write clicks of a small shop, one of whose users clicks all."""
    draw = np.random.default_rng(seed)
    clicks = [draw.permutation(items)[: draw.integers(3, 9)] for _ in range(users)] + [draw.permutation(items)]
    lines = [f"u{user},sku-{item},{time}" for user, row in enumerate(clicks) for time, item in enumerate(row)]
    path.write_text("\n".join(["customer_id,sku,created_at", *lines]))
    return path


@pytest.mark.parametrize(("model", "options"), [("din", []), ("ofa", ["--targets-per-user", 1])])
def test_a_small_catalogue_is_trained_with_as_many_negatives_as_there_are(model, options, tmp_path, cocorr_train):
    data = shop(tmp_path / "clicks.csv", items=30, users=40)
    ended = cocorr_train(model, "--data", data, "--output", tmp_path / "it", "--epochs", 1, "--history", 6, *options)
    assert ended.code == 0, ended.err
    saved = checkpoint.read(tmp_path / "it")
    notes = saved.config["training"]["left_out"]
    count = next(int(note.split()[0]) for note in notes if "in the test in place of 100" in note)
    assert 20 < count < 30
    assert f"{count} negatives per positive in the test in place of 100: there are 30 items" in ended.err
    assert "1 users who have clicked all but fewer than" in ended.err
    candidates = saved.golden["candidate_ids"]
    assert candidates.shape == (40, count + 1)
    assert model == "ofa" or saved.config["training"]["test_negatives"] == count
    metrics = json.loads((tmp_path / "it" / "metrics.json").read_text())
    assert metrics["test_negatives"] == count


def interactions(*users, vocabulary) -> Interactions:
    starts = np.concatenate([[0], np.cumsum([len(user) for user in users])])
    return Interactions(np.concatenate(users).astype(np.int32), starts, vocabulary, "")


def test_who_is_tested_in_a_small_catalogue():
    usual = [[1, 2, 3, 4], [2, 3, 4, 5], [1, 3, 5, 6]] * 4
    data = interactions(*usual, [1, 2, 3, 4, 5, 6, 7, 8, 9], vocabulary=10)
    split, negatives = split_to_train_on(data)
    assert (negatives.train, negatives.test, len(split.test)) == (4, 5, 12)
    assert "not trained on" in negatives.notes[-1]
    with pytest.raises(DataError, match="of 3 items one user has clicked 3"):
        split_to_train_on(interactions([1, 2, 3, 1], [3, 2, 1, 2], vocabulary=4))
    excluded = clicked(data, np.arange(len(data.items)))
    for count in (1, 5):
        drawn = sample_negatives(np.random.default_rng(0), excluded, np.arange(12).repeat(200), count)
        assert not excluded.among(np.arange(12).repeat(200), drawn).any()
        assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
        assert np.bincount(drawn.ravel(), minlength=10)[6:].min() > 0


def test_a_model_that_ends_below_popularity_is_warned_of(clicks, tmp_path, cocorr_train):
    # Everybody ends with one item, which a model that does not learn cannot know.
    rows = [f"u{user},i{(user * 7 + step) % 150},{step}" for user in range(60) for step in range(4)]
    rows += [f"u{user},hit,{step}" for user in range(60) for step in (2.5, 9)]
    (tmp_path / "hit.csv").write_text("\n".join(["user,item,time", *rows]))
    ended = cocorr_train(
        "din", "--data", tmp_path / "hit.csv", "--output", tmp_path / "it", "--learning-rate", 0, "--epochs", 1
    )
    assert ended.code == 0, ended.err
    assert "warning: in the test the model ranks worse than the number of clicks of each item" in ended.err
    config = checkpoint.read(tmp_path / "it").config
    assert config["training"]["below_popularity"] is True
    assert config["metrics"]["test"]["NDCG@10"] < config["metrics"]["test_by_popularity"]["NDCG@10"]


def test_a_device_that_is_not_there_is_refused_first(tmp_path, cocorr_train):
    for device, message in (
        ("tpu", "unknown device 'tpu' (did you mean 'cpu'?); known: cpu, cuda, mps, auto"),
        ("mps", "finds no such device"),
    ):
        refusal = cocorr_train("din", "--data", tmp_path, "--output", tmp_path / "it", "--device", device)
        assert device == "mps" or message in refusal.refusal()
    if not torch.backends.mps.is_available():
        data = shop(tmp_path / "clicks.csv", 30, 10)
        assert message in cocorr_train("din", "--data", data, "--output", tmp_path / "it", "--device", "mps").refusal()


@pytest.mark.parametrize("model", MODELS)
def test_models_make_no_tensors_beside_the_device_that_they_are_on(model):
    spec = load_spec(model)
    variants = [{}]
    if model == "ofa":
        ways = ({"method": "forward_ofa"}, {"method": "random", "kept_blocks": 2})
        variants = [{"blocks": 4, "backbone": name, **way} for name in ("sasrec", "nextitnet") for way in ways]
    for sizes in variants:
        built = spec.build({**spec.sized(20, 10), **sizes}).to("meta")  # which refuses what is on the CPU
        ids = torch.ones(3, 10, dtype=torch.int32, device="meta")
        assert built(ids, ids).device.type == "meta"


def test_a_disk_without_room_is_told_before_the_first_epoch(clicks, tmp_path, monkeypatch, cocorr_train):
    full = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(run.shutil, "disk_usage", lambda place: full)
    refusal = cocorr_train("din", "--data", clicks, "--output", tmp_path / "a" / "it").refusal()
    assert f"{tmp_path} has room for 1000 bytes, and the progress of this training takes" in refusal
    monkeypatch.undo()
    monkeypatch.setitem(checkpoint.MAX_BYTES, checkpoint.WEIGHTS, (1 << 20) + 200_000)
    refusal = cocorr_train("gru4rec", "--data", clicks, "--output", tmp_path / "it").refusal()
    assert "its weights would take" in refusal or "more than a checkpoint of gru4rec holds" in refusal


def test_evaluations_are_told_on_a_terminal_and_not_in_a_pipe(monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return self.terminal

    for terminal in (True, False):
        screen = Screen()
        screen.terminal = terminal
        monkeypatch.setattr("sys.stderr", screen)
        progress = cli.Progress()
        progress.shown -= 1
        progress(3, 6, Passing("validating epoch 1, 1024 of 9000 users"))
        progress(3, 6, "epoch 1: loss 1.0")
        progress(0, 0, "warning")
        shown = screen.getvalue()
        assert ("validating epoch 1, 1024 of 9000 users" in shown) is terminal
        assert shown.count("\n") == 2
        assert shown.endswith("\n... warning\n")
