"""SCN against its definition: published scores, and updates made token by token with autograd's gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from models.scn.network import SCN
from models.scn.programs import SPEC, build

ARCHITECTURE = {"vocabulary": 20, "dimension": 8, "heads": 2, "mini_batch": 4}


def random_scn(seed: int, mini_batch: int = 4, gcn: int = 0) -> SCN:
    model = SCN(vocabulary=20, dimension=8, heads=2, mini_batch=mini_batch, gcn=gcn)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
        model.items.weight[0] = 0
    return model.eval()


def rms_norm(x, weight):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + 1e-6) * weight


def rope(x, position):
    """Rotate (even, odd) neighbours of one vector [d] as complex numbers."""
    angle = position * 10000.0 ** (-torch.arange(0, len(x), 2, dtype=torch.float64) / len(x))
    return torch.view_as_real(torch.view_as_complex(x.reshape(-1, 2)) * torch.exp(1j * angle)).reshape(-1)


def score_token_by_token(model: SCN, history: list[int], candidates: list[int]) -> list[float]:
    """Score one history without its padding, one head and one token at a time, from MODELS' update rule."""
    p = {name: tensor.double() for name, tensor in model.state_dict().items()}
    d, b = model.width, model.mini_batch
    hidden = rms_norm(p["items.weight"][history], p["input_norm.weight"])
    heads = []
    for head in range(model.heads):
        part = slice(head * d, (head + 1) * d)
        gamma, beta = p["inner_norm_weight"][head, 0], p["inner_norm_bias"][head, 0]
        weight, bias = p["initial_weight"][head], p["initial_bias"][head, 0]
        for token, h in enumerate(hidden):
            place = token % b
            if place == 0:
                base_weight, base_bias = weight, bias
                weight_sum, bias_sum = torch.zeros_like(weight), torch.zeros_like(bias)
            q, k = (rope((p[f"{name}.weight"] @ h)[part], place) for name in ("query", "key"))
            v = (p["value.weight"] @ h)[part]
            z = (k @ base_weight + base_bias).requires_grad_()
            loss = 0.5 * ((functional.layer_norm(z, (d,), gamma, beta, 1e-6) - (v - k)) ** 2).sum()
            (gradient,) = torch.autograd.grad(loss, z)
            rate = torch.sigmoid(h @ p["inner_lr.weight"][head] + p["inner_lr.bias"][head]) / d
            scale = max(1 / (place + 1) + p["token_scale_offset"][place].item(), 0)
            weight_sum, bias_sum = weight_sum + rate * torch.outer(k, gradient), bias_sum + rate * gradient
            weight, bias = base_weight - scale * weight_sum, base_bias - scale * bias_sum
            out = q + functional.layer_norm(q @ weight + bias, (d,), gamma, beta, 1e-6)
        heads.append(out)
    normal = functional.layer_norm(
        torch.cat(heads), (d * model.heads,), p["post_norm.weight"], p["post_norm.bias"], 1e-6
    )
    user = rms_norm(p["output.weight"] @ normal, p["output_norm.weight"])
    scores = []
    for candidate in candidates:
        inner = torch.tanh(p["candidate_hidden.weight"] @ p["items.weight"][candidate] + p["candidate_hidden.bias"])
        scores.append((user @ (p["candidate_output.weight"] @ inner + p["candidate_output.bias"])).item())
    return scores


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_dual_form_equals_updates_token_by_token(data):
    model = random_scn(data.draw(st.integers(0, 10_000)), data.draw(st.integers(1, 12)))
    length = data.draw(st.integers(1, 25))
    history = st.lists(st.integers(1, 19), max_size=length)
    histories = data.draw(st.lists(history, min_size=1, max_size=3))
    candidates = data.draw(st.lists(st.integers(0, 19), min_size=2, max_size=2))
    item_ids = torch.tensor([ids + [0] * (length - len(ids)) for ids in histories], dtype=torch.int32)
    with torch.no_grad():
        scores = model.double()(item_ids, torch.tensor([candidates] * len(histories), dtype=torch.int32))
    # An empty history is one padding token: its last valid position is 0.
    expected = [score_token_by_token(model, ids or [0], candidates) for ids in histories]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("unknown", [20, -1, 2**31 - 1, -(2**31)])
def test_an_unknown_id_is_a_zero_embedding_that_keeps_its_position(unknown, dtype):
    model = random_scn(0)
    with torch.no_grad():
        model.items.weight[5] = 0  # an item whose embedding is zero, and that is no padding
        histories = torch.tensor([[3, 5, 7, 0, 0], [3, 7, 5, 0, 0], [5, 5, 5, 5, 5]], dtype=dtype)
        candidates = torch.tensor([[1, 5], [0, 2], [5, 5]], dtype=dtype)
        strange = [torch.where(ids == 5, unknown, ids).to(dtype) for ids in (histories, candidates)]
        assert torch.equal(model(*strange), model(histories, candidates))
        without = torch.tensor([[3, 7, 0, 0, 0]], dtype=dtype)
        assert not torch.allclose(model(histories[:1], candidates[:1]), model(without, candidates[:1]))


def test_parameter_count_is_the_published_one():
    count = sum(p.numel() for p in SCN(vocabulary=30_000, dimension=64, heads=4, mini_batch=10).parameters())
    assert f"{count / 1e6:.2f}" == "1.95"


CORRECTED = ("correct", "rerank_corrected")  # these are for whole mini-batches, of two tokens or more


@pytest.mark.parametrize(
    ("name", "length", "mini_batch"),
    [(name, length, 4) for name in SPEC.programs if name not in CORRECTED for length in (1, 4, 7)]
    + [(name, count * size, size) for name in CORRECTED for count, size in ((1, 2), (1, 4), (3, 2))],
)
def test_programs_export_with_their_declared_inputs_and_keep_their_answer(name, length, mini_batch):
    program, model = SPEC.programs[name], random_scn(1, mini_batch, gcn=1)
    architecture = {**ARCHITECTURE, "mini_batch": mini_batch}
    module = program.build(model).eval()
    rng = np.random.default_rng(2)
    sizes = {"item_ids": length, "candidate_ids": 6}
    golden = {ids: rng.integers(-2, 25, (2, size), dtype=np.int32) for ids, size in sizes.items()}
    cases = program.cases(model, golden)
    declared = [(spec.name, spec.shape(architecture, length, 6), spec.dtype) for spec in program.inputs]
    assert [(key, array.shape[1:], array.dtype.name) for key, array in cases.items()] == declared
    inputs = tuple(torch.from_numpy(array[0].copy()) for array in cases.values())
    exported = torch.export.export(module, inputs).run_decompositions({})
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*inputs), module(*inputs))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not targets & {"aten.alias.default", "aten.__and__.Tensor"}  # Core ML refuses these


def test_half_precision_stays_finite_on_padding():
    model = random_scn(3).half()
    item_ids = torch.tensor([[3, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 2, 3, 99, 5, 6]], dtype=torch.int32)
    candidates = torch.tensor([[1, 0, 99]] * 3, dtype=torch.int32)
    with torch.no_grad():
        scores, exact = model(item_ids, candidates), model.float()(item_ids, candidates)
    assert scores.dtype == torch.float16
    torch.testing.assert_close(scores.float(), exact, rtol=0.02, atol=0.05)


def test_training_keeps_the_padding_row_zero_and_all_gradients_finite():
    model = random_scn(4).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        loss = model(torch.tensor([[3, 0, 0, 0, 0], [0, 0, 0, 0, 0]]), torch.tensor([[1, 0], [99, 2]])).square().mean()
        optimiser.zero_grad()
        loss.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters())
        optimiser.step()
    assert not model.items.weight[0].any()


@pytest.mark.parametrize(
    "wrong",
    [{"heads": 3}, {"dimension": 12, "heads": 4}, {"layers": 2}, {"mini_batch": 1, "gcn": 1}, {"gcn": 2}],
    ids=["heads", "odd head width", "unknown", "a GCN for single clicks", "two GCNs"],
)
def test_an_impossible_architecture_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        build({**ARCHITECTURE, **wrong})
