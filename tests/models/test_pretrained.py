"""The checkpoints that ship: small, whole, and as good as they say."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint
from models.forward_ofa.supernet import Supernet
from models.training.data import leave_one_out, read_interactions
from models.training.evaluation import ranking_cases, score_cases
from models.training.metrics import by_rank, summary
from models.training.next_item import full_ranks
from models.zoo import load_spec

FOLDERS = sorted((Path(checkpoint.__file__).parent / "pretrained").iterdir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_golden_scores_are_those_of_the_weights(folder):
    read = checkpoint.read(folder)
    model = checkpoint.build(read, load_spec(read.model))
    item_ids, candidate_ids, scores = (read.golden[name] for name in ("item_ids", "candidate_ids", "scores"))
    with torch.no_grad():
        again = model(torch.from_numpy(item_ids), torch.from_numpy(candidate_ids))
    np.testing.assert_allclose(again, scores, rtol=1e-5, atol=1e-5)
    assert (item_ids.shape, scores.shape) == ((256, read.history_length), (256, 100))
    assert set((item_ids != 0).sum(axis=1)) == set(range(1, read.history_length + 1))
    assert sum(file.stat().st_size for file in folder.iterdir()) <= (20_000_000 if read.model == "ofa" else 8 << 20)
    assert read.config["metrics"]["test"]["NDCG@10"] > 1.3 * read.config["metrics"]["test_by_popularity"]["NDCG@10"]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_metrics_are_measured_again_on_the_real_data(folder):
    data = os.environ.get("COCORR_DATA")
    if not data:
        pytest.skip("COCORR_DATA does not name the folder with the interaction files")
    read = checkpoint.read(folder)
    training = read.config["training"]
    interactions = read_interactions(Path(data) / training["data"], training["seed"])
    assert interactions.sha256 == training["data_sha256"]
    targets = leave_one_out(interactions).test
    model, claimed = checkpoint.build(read, load_spec(read.model)), read.config["metrics"]["test"]
    if isinstance(model, Supernet):
        measured = by_rank(full_ranks(model, interactions, targets))
    else:
        cases = ranking_cases(interactions, targets, read.history_length, [training["seed"], 2])
        measured = summary(score_cases(model, cases))
        corrected = summary(score_cases(model.corrected, cases))
        assert corrected == pytest.approx(read.config["metrics"]["test_corrected"], abs=1e-4)
    assert measured == pytest.approx(claimed, abs=1e-4)
