"""GCN and SCN against the scores of the published implementation, and the correction's own contract."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.layers import GRU
from models.scn.gcn import last_row
from models.scn.network import SCN
from models.scn.programs import SPEC

ORACLES = Path(__file__).parent / "oracles"
OWN_NAMES = {
    "item_embedding": "items.weight",
    "fusion_attention": "gcn.attention_weight",
    "fusion_bias": "gcn.bias_weight",
    "inner_lr_weight": "inner_lr.weight",
    "inner_lr_bias": "inner_lr.bias",
}
PLAIN = ("token_scale_offset", "inner_norm_weight", "inner_norm_bias", "initial_weight", "initial_bias")


def small(seed: int) -> SCN:
    torch.manual_seed(seed)
    scn = SCN(vocabulary=30, dimension=16, heads=2, mini_batch=5, gcn=1)
    scn.reset(0.3)
    return scn


def own_name(role: str) -> str:
    if role in OWN_NAMES:
        return OWN_NAMES[role]
    if role.startswith("gcn_"):
        return role.replace("gcn_", "gcn.")
    return role if role in PLAIN else ".".join(role.rsplit("_", 1))


@pytest.mark.parametrize("oracle", ["scn_b10_n10", "scn_gcn_b10_n10"])
def test_scores_are_those_of_the_published_implementation(oracle):
    arrays = np.load(ORACLES / f"{oracle}.npz", allow_pickle=False)
    model = SCN(200, 64, heads=4, mini_batch=int(arrays["mini_batch_size"]), gcn=int("gcn" in oracle))
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {}
    for key in arrays.files:
        if key.startswith("param."):
            name = own_name(key.removeprefix("param."))
            state[name] = torch.from_numpy(arrays[key]).reshape(shapes[name])
    model.load_state_dict(state, strict=True)
    item_ids, candidate_ids = (torch.from_numpy(arrays[name]).int() for name in ("item_ids", "candidate_ids"))
    with torch.no_grad():
        scores = (model.corrected if model.gcn else model)(item_ids, candidate_ids[:, None])[:, 0]
    np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-5, atol=1e-5)


def test_without_weight_the_correction_leaves_the_device_model_as_it_is():
    model = small(0)
    nn.init.zeros_(model.gcn.bias_weight)
    item_ids, candidates = torch.randint(0, 30, (4, 5)), torch.randint(0, 30, (4, 7))
    with torch.no_grad():
        torch.testing.assert_close(model.corrected(item_ids, candidates), model(item_ids, candidates))
        model.gcn.attention_weight.fill_(1.0)
        assert not torch.allclose(model.corrected(item_ids, candidates), model(item_ids, candidates))


def test_training_through_padding_gives_finite_gradients():
    model = small(1)
    nn.init.ones_(model.gcn.attention_weight)
    inputs = torch.tensor([[3, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), torch.tensor([[1, 0], [99, 2]])
    model.corrected(*inputs).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_correction_for_another_length_is_refused():
    with pytest.raises(ValueError, match="5 tokens, this history has 6"):
        small(2).corrected(torch.ones(1, 6, dtype=torch.int32), torch.ones(1, 1, dtype=torch.int32))


def test_parameter_count_is_the_published_one():
    model = SCN(vocabulary=30_000, dimension=64, heads=4, mini_batch=10, gcn=1)
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == "2.08"


def test_gru_takes_torchs_weights_and_gives_its_states():
    torch.manual_seed(3)
    reference, own = nn.GRU(6, 8, batch_first=True), GRU(6, 8)
    own.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(3, 11, 6)
    torch.testing.assert_close(own(x), reference(x)[0])


def test_the_cloud_finds_the_last_click_in_what_it_is_sent():
    hidden = torch.zeros(4, 5, 3)
    hidden[0, :3] = 1.0
    hidden[1, [0, 3]] = -1.0  # an unknown item between two clicks embeds as zero, too
    hidden[2] = 1.0
    assert last_row(hidden).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1], [1, 0, 0, 0, 0]]


def test_a_checkpoint_without_a_gcn_says_what_is_missing():
    model = SCN(vocabulary=30, dimension=16, heads=2, mini_batch=5)
    golden = {"item_ids": np.ones((1, 5), np.int32), "candidate_ids": np.ones((1, 1), np.int32)}
    for name in ("correct", "rerank_corrected"):
        with pytest.raises(ValueError, match="train one with cocorr-train scn --gcn"):
            SPEC.programs[name].build(model)
    with pytest.raises(ValueError, match="for histories of 5 clicks, these have 4"):
        SPEC.programs["correct"].cases(small(0), {**golden, "item_ids": golden["item_ids"][:, :4]})


def test_no_program_of_the_device_carries_the_cloud():
    counts = {
        name: sum(parameter.numel() for parameter in program.build(small(0)).parameters())
        for name, program in SPEC.programs.items()
    }
    without = sum(parameter.numel() for parameter in SCN(30, 16, heads=2, mini_batch=5).parameters())
    assert counts["rerank"] == counts["step"] == counts["rerank_corrected"] - 2 == without
    assert counts["rerank_cached"] == without - 30 * 16
    assert counts["correct"] == sum(p.numel() for p in small(0).gcn.parameters()) - 2
