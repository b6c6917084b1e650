"""Finetune: many users' steps at once are those of each alone, and a checkpoint's metrics are of what they give."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from models import checkpoint
from models.forward_ofa.assembler import assemble, block_weights
from models.forward_ofa.compared import finetune
from models.forward_ofa.programs import SPEC
from models.forward_ofa.supernet import Supernet
from models.training import metrics
from models.training.data import histories, leave_one_out, read_interactions

HISTORIES = torch.tensor([[3, 17, 5, 9, 1], [8, 2, 0, 0, 0], [11, 0, 0, 0, 0], [6, 4, 7, 0, 0]])


def alone(model: Supernet, clicks: list[int], steps: int) -> torch.Tensor:
    """Fine-tune one user's sub-network by torch.optim.Adam, prefix by prefix; return its packed weights [L, P]."""
    runs = [1] * len(model.backbone.blocks)
    network = assemble(
        model.items, model.backbone, runs, block_weights(model.backbone, model.own_weights.detach(), runs)
    )
    tuned = [network.get_parameter(name) for name in network.names]
    optimiser = torch.optim.Adam(tuned, lr=1e-3)
    everything = torch.arange(1, model.items.vocabulary)[None]
    for _ in range(steps if len(clicks) > 1 else 0):
        optimiser.zero_grad()
        losses = []
        for count in range(1, len(clicks)):
            before = torch.tensor([clicks[:count] + [0] * (5 - count)])
            scores = network(before, everything)
            losses.append(functional.cross_entropy(scores, torch.tensor([clicks[count] - 1])))
        torch.stack(losses).mean().backward()
        optimiser.step()
    return torch.cat([parameter.detach().flatten() for parameter in tuned]).reshape(len(runs), -1)


@pytest.mark.parametrize("backbone", ["sasrec", "nextitnet"])
def test_steps_of_many_users_at_once_are_those_of_each_alone(backbone, monkeypatch):
    """In float64: where a gradient is nothing but rounding, Adam makes a whole step of it."""
    torch.manual_seed(0)
    model = Supernet(20, 8, 2, 5, backbone, "finetune", steps=3).double().eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(0, 0.5)
    whole = torch.ones(4, 2, dtype=torch.float64)
    with torch.no_grad():
        together = model.generate(HISTORIES, whole)
    for row, tuned in zip(HISTORIES.tolist(), together, strict=True):
        clicks = [item for item in row if item]
        torch.testing.assert_close(tuned, alone(model, clicks, 3), rtol=0, atol=1e-9)
        assert (len(clicks) == 1) == torch.equal(tuned, model.own_weights)
    monkeypatch.setattr(finetune, "USERS_AT_ONCE", 1)
    torch.testing.assert_close(model.generate(HISTORIES, whole), together, rtol=0, atol=1e-9)


def test_the_first_step_is_what_adam_says_by_hand():
    torch.manual_seed(1)
    model = Supernet(20, 8, 2, 5, "nextitnet", "finetune", steps=1).double().eval()
    ids, whole = HISTORIES[:2], torch.ones(2, 2, dtype=torch.float64)
    start = model.own_weights.detach().expand(2, -1, -1).clone().requires_grad_()
    states = model.states(ids, whole, start)
    scores = torch.log_softmax(states @ model.items.weight.detach()[1:].T, -1)
    first = -(scores[0, 0, 16] + scores[0, 1, 4] + scores[0, 2, 8] + scores[0, 3, 0]) / 4
    (gradient,) = torch.autograd.grad(first - scores[1, 0, 1], start)
    by_hand = start - 1e-3 * gradient / (gradient.abs() + 1e-8)  # both averages are the gradient, their biases undone
    torch.testing.assert_close(model.generate(ids, whole), by_hand.detach(), rtol=0, atol=1e-12)


def test_only_a_devicerec_is_fine_tuned():
    model = Supernet(20, 8, 2, 5, "sasrec", "finetune", steps=1)
    for method in ("controller", "rare_gem"):
        with pytest.raises(ValueError, match="finetune can start only from a devicerec"):
            model.start_from(Supernet(20, 8, 2, 5, "sasrec", method))


@pytest.fixture
def few_clicks(tmp_path):
    """16 users who walk through 40 items in steps of one."""
    rows = ["user\titem\ttimestamp"]
    for user in range(16):
        rows += [f"{user}\t{(3 * user + step) % 40}\t{step}" for step in range(3 + user % 6)]
    path = tmp_path / "walks.tsv"
    path.write_text("\n".join(rows))
    return path


def test_metrics_are_of_each_users_own_weights(few_clicks, tmp_path, cocorr_train):
    options = ["--data", few_clicks, "--epochs", "1", "--history", "6"]
    fast = ["--learning-rate", "0.01"]
    ended = cocorr_train("ofa", *options, *fast, "--method", "devicerec", "--output", tmp_path / "devicerec")
    assert ended.code == 0, ended.err
    tuned = ["--method", "finetune", "--steps", "9"]
    start = ["--start-from", tmp_path / "devicerec"]
    ended = cocorr_train("ofa", *options, *tuned, *start, "--output", tmp_path / "given")
    assert ended.code == 0, ended.err
    lender, given = checkpoint.read(tmp_path / "devicerec"), checkpoint.read(tmp_path / "given")
    assert {name: tensor.tolist() for name, tensor in given.state.items()} == {
        name: tensor.tolist() for name, tensor in lender.state.items()
    }
    found, training = given.config["metrics"], given.config["training"]
    assert found["test_before"] == lender.config["metrics"]["test"] != found["test"]
    assert (training["epochs_run"], training["fine_tuning"]["steps"]) == (0, 9)
    assert (training["fine_tuning"]["learning_rate"], training["start_from"]["sha256"]) == (1e-3, lender.sha256)
    assert "--method finetune --steps 9" in training["command"]
    model = checkpoint.build(given, SPEC)
    assert found["test"] == pytest.approx(metrics.by_rank(_ranks(model, few_clicks)))
    with torch.no_grad():
        cases = (torch.from_numpy(given.golden[name]) for name in ("item_ids", "candidate_ids"))
        torch.testing.assert_close(model(*cases), torch.from_numpy(given.golden["scores"]), rtol=0, atol=1e-4)
    ended = cocorr_train("ofa", *options, *fast, *tuned, "--output", tmp_path / "trained")
    assert ended.code == 0, ended.err
    trained = checkpoint.read(tmp_path / "trained").config
    assert (trained["metrics"]["test"], trained["training"]["epochs_run"]) == (found["test"], 1)


def _ranks(model: Supernet, clicks: Path) -> np.ndarray:
    """Return the rank of each test click among all items, each user with a network of the user's own weights."""
    data = read_interactions(clicks, 0)
    test = leave_one_out(data).test
    everything, runs, ranks = torch.arange(1, data.vocabulary)[None], [1] * 6, []
    for target, row in zip(test, histories(data, test, 6), strict=True):
        with torch.no_grad():
            own = model.generate(torch.from_numpy(row[None]), torch.ones(1, 6))[0]
        network = assemble(model.items, model.backbone, runs, block_weights(model.backbone, own, runs))
        with torch.no_grad():
            scores = network(torch.from_numpy(row[None]), everything)[0]
        ranks.append(int((scores >= scores[data.items[target] - 1]).sum()) - 1)
    return np.array(ranks)
