"""A program of torch that takes one user at a time, taken for many at once: the same, or one by one."""

import numpy as np
import pytest
import torch
from torch import nn

from exporter.artifact.store import Golden
from exporter.pipeline import fleet_torch

ITEMS, WIDTH, HISTORY, CANDIDATES, USERS = 40, 8, 5, 12, 70


class Recurrent(nn.Module):
    """Scores by a GRU, which torch takes for many users at once only where it is taken apart."""

    def __init__(self):
        super().__init__()
        self.items, self.gru = nn.Embedding(ITEMS, WIDTH), nn.GRU(WIDTH, WIDTH, batch_first=True)

    def forward(self, item_ids, candidate_ids):
        state = self.gru(self.items(item_ids))[0][:, -1]
        return {"scores": (self.items(candidate_ids) @ state[:, :, None])[..., 0]}


class Mean(Recurrent):
    """Scores by a mean, which any batch can have."""

    def forward(self, item_ids, candidate_ids):
        state = self.items(item_ids).mean(1)
        return {"scores": (self.items(candidate_ids) @ state[:, :, None])[..., 0]}


class Stepwise(Recurrent):
    """Scores by what no batch can have: how far it looks depends on the number in a tensor."""

    def forward(self, item_ids, candidate_ids):
        known = (item_ids > 0).sum().item()
        torch._check(known >= 0)
        state = (self.items(item_ids).sum(1) / (known + 1))[:, :, None]
        return {"scores": (self.items(candidate_ids) @ state)[..., 0]}


@pytest.mark.filterwarnings("ignore:The tensor attributes self.gru")
@pytest.mark.parametrize(("network", "alone"), [(Mean, 0), (Recurrent, 0), (Stepwise, USERS)])
def test_many_at_once_are_scored_as_one_by_one(network, alone, tmp_path, monkeypatch):
    torch.manual_seed(0)
    model = network().eval()
    rng = np.random.default_rng(0)
    item_ids, candidate_ids = (
        rng.integers(0, ITEMS, (USERS, count), dtype=np.int32) for count in (HISTORY, CANDIDATES)
    )
    one = {"item_ids": torch.from_numpy(item_ids[:1]), "candidate_ids": torch.from_numpy(candidate_ids[:1])}
    torch.export.save(torch.export.export(model, (), one), tmp_path / "program.pt2")
    golden = Golden({"item_ids": item_ids[:9, None], "candidate_ids": candidate_ids[:9, None]}, {})
    taken, one_by_one = [], fleet_torch.one_by_one
    monkeypatch.setattr(
        fleet_torch, "one_by_one", lambda score: one_by_one(lambda *user: (taken.append(1), score(*user))[1])
    )
    scores = fleet_torch.scores_of_program(tmp_path / "program.pt2", golden)
    taken.clear()
    found = scores(item_ids, candidate_ids)
    assert len(taken) == alone
    with torch.no_grad():
        expected = [
            model(*(torch.from_numpy(ids[None]) for ids in user))["scores"][0].numpy()
            for user in zip(item_ids, candidate_ids, strict=True)
        ]
    assert np.allclose(found, np.stack(expected), atol=1e-5)


@pytest.mark.parametrize(("off", "same"), [(1e-6, True), (2e-5, False)])
def test_more_than_rounding_is_noticed(off, same):
    inputs = {name: np.ones((3, 1, 4), np.int32) for name in ("item_ids", "candidate_ids")}

    def scores(item_ids, candidate_ids):
        return torch.arange(4.0).repeat(len(item_ids), 1) + 0 * candidate_ids

    assert fleet_torch.are_equal(lambda *users: scores(*users) + off, scores, Golden(inputs, {})) is same
