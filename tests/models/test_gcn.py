"""GCN and SCN against the scores of the published implementation, and the correction's own contract."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from models.gcn import GCN, CorrectedSCN
from models.layers import GRU
from models.scn import SCN

ORACLES = Path(__file__).parent / "oracles"
OWN_NAMES = {
    "item_embedding": "items.weight",
    "fusion_attention": "gcn.attention_weight",
    "fusion_bias": "gcn.bias_weight",
    "inner_lr_weight": "inner_lr.weight",
    "inner_lr_bias": "inner_lr.bias",
}
PLAIN = ("token_scale_offset", "inner_norm_weight", "inner_norm_bias", "initial_weight", "initial_bias")


def small(seed: int) -> CorrectedSCN:
    torch.manual_seed(seed)
    scn = SCN(vocabulary=30, dimension=16, heads=2, mini_batch=5)
    scn.reset(0.3)
    return CorrectedSCN(scn, GCN(dimension=16, heads=2, mini_batch=5))


def own_name(role: str) -> str:
    if role in OWN_NAMES:
        return OWN_NAMES[role]
    if role.startswith("gcn_"):
        return role.replace("gcn_", "gcn.")
    return role if role in PLAIN else ".".join(role.rsplit("_", 1))


@pytest.mark.parametrize("oracle", ["scn_b10_n10", "scn_gcn_b10_n10"])
def test_scores_are_those_of_the_published_implementation(oracle):
    arrays = np.load(ORACLES / f"{oracle}.npz", allow_pickle=False)
    scn = SCN(vocabulary=200, dimension=64, heads=4, mini_batch=int(arrays["mini_batch_size"]))
    model: nn.Module = CorrectedSCN(scn, GCN(dimension=64, heads=4, mini_batch=10)) if "gcn" in oracle else scn
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    state = {}
    for key in arrays.files:
        if key.startswith("param."):
            name = own_name(key.removeprefix("param."))
            name = name if name in shapes else f"scn.{name}"
            state[name] = torch.from_numpy(arrays[key]).reshape(shapes[name])
    model.load_state_dict(state, strict=True)
    item_ids, candidate_ids = (torch.from_numpy(arrays[name]).int() for name in ("item_ids", "candidate_ids"))
    with torch.no_grad():
        scores = model(item_ids, candidate_ids[:, None])[:, 0]
    np.testing.assert_allclose(scores, arrays["scores"], rtol=1e-5, atol=1e-5)


def test_without_weight_the_correction_leaves_the_device_model_as_it_is():
    model = small(0)
    nn.init.zeros_(model.gcn.bias_weight)
    item_ids, candidates = torch.randint(0, 30, (4, 5)), torch.randint(0, 30, (4, 7))
    with torch.no_grad():
        torch.testing.assert_close(model(item_ids, candidates), model.scn(item_ids, candidates))
        model.gcn.attention_weight.fill_(1.0)
        assert not torch.allclose(model(item_ids, candidates), model.scn(item_ids, candidates))


def test_training_through_padding_gives_finite_gradients():
    model = small(1)
    nn.init.ones_(model.gcn.attention_weight)
    model(torch.tensor([[3, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), torch.tensor([[1, 0], [99, 2]])).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_correction_for_another_length_is_refused():
    with pytest.raises(ValueError, match="5 tokens, this history has 6"):
        small(2)(torch.ones(1, 6, dtype=torch.int32), torch.ones(1, 1, dtype=torch.int32))


def test_parameter_count_is_the_published_one():
    scn = SCN(vocabulary=30_000, dimension=64, heads=4, mini_batch=10)
    model = CorrectedSCN(scn, GCN(dimension=64, heads=4, mini_batch=10))
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == "2.08"


def test_gru_takes_torchs_weights_and_gives_its_states():
    torch.manual_seed(3)
    reference, own = nn.GRU(6, 8, batch_first=True), GRU(6, 8)
    own.load_state_dict(reference.state_dict(), strict=True)
    x = torch.randn(3, 11, 6)
    torch.testing.assert_close(own(x), reference(x)[0])


def test_corrected_model_exports():
    model = small(4).eval()
    inputs = torch.tensor([[3, 9, 4, 0, 0]], dtype=torch.int32), torch.tensor([[1, 2, 3]], dtype=torch.int32)
    exported = torch.export.export(model, inputs).run_decompositions({})
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*inputs), model(*inputs))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not any("gru" in target for target in targets)
