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


def large(seed: int) -> SCN:
    """Return one whose corrections and state move the scores, and whose mini-batches leave something to the next."""
    model = small(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3 * (name != "items.weight"))
        model.token_scale_offset.abs_()
        model.gcn.attention_weight.fill_(0.8)
        model.gcn.bias_weight.fill_(0.6)
    return model.eval()


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


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def moved(correction, own):
    """Eq. 14, row by row: the unbiased deviation of both, the correction's with 1e-6."""
    rows = zip(correction.reshape(-1, own.shape[-1]), own.reshape(-1, own.shape[-1]), strict=True)
    fitted = [(k - k.mean()) / (k.std(ddof=1) + 1e-6) * row.std(ddof=1) + row.mean() for k, row in rows]
    return np.array(fitted).reshape(own.shape)


def answer(p, net, hidden):
    """What a net of the cloud gives for b rows of H: a GRU gate by gate, its state at the last click, three maps."""
    d, state = hidden.shape[1], np.zeros(hidden.shape[1])
    states = []
    for row in hidden:
        given = p[f"{net}.gru.weight_ih_l0"] @ row + p[f"{net}.gru.bias_ih_l0"]
        kept = p[f"{net}.gru.weight_hh_l0"] @ state + p[f"{net}.gru.bias_hh_l0"]
        reset, update = (sigmoid((given + kept)[part]) for part in (slice(d), slice(d, 2 * d)))
        state = (1 - update) * np.tanh(given[2 * d :] + reset * kept[2 * d :]) + update * state
        states.append(state)
    state = states[max(int(np.abs(hidden).sum(1).astype(bool).sum()) - 1, 0)]
    for layer in ("fc1", "fc2"):
        state = p[f"{net}.{layer}.weight"] @ state
        state = np.where(state > 0, state, 0.01 * state)
    return p[f"{net}.fc3.weight"] @ state


def corrected_by_hand(model: SCN, history: list[int], candidate: int) -> float:
    """One corrected score from MODELS' equations, a mini-batch after the other and in it head by head, in numpy."""
    p = {name: tensor.double().numpy() for name, tensor in model.state_dict().items()}
    h, d, b = model.heads, model.width, model.mini_batch
    pairs = np.arange(0, d, 2)
    hidden = np.where(np.array(history)[:, None] > 0, p["items.weight"][history], 0)
    hidden = hidden / np.sqrt((hidden**2).mean(1, keepdims=True) + 1e-6) * p["input_norm.weight"]
    scale = np.maximum(1 / np.arange(1, b + 1) + p["token_scale_offset"], 0)
    state = [(p["initial_weight"][head], p["initial_bias"][head, 0]) for head in range(h)]
    outputs = np.zeros((len(history), h * d))
    for start in range(0, len(history), b):
        rows = hidden[start : start + b]
        of_attention = answer(p, "gcn.attention", rows).reshape(h, b, b)
        of_bias = answer(p, "gcn.bias", rows).reshape(h, b, d)
        for head, (w0, c0) in enumerate(state):
            part, gamma, beta = (
                slice(head * d, (head + 1) * d),
                *(p[f"inner_norm_{x}"][head, 0] for x in ("weight", "bias")),
            )
            q, k, v = (rows @ p[f"{name}.weight"][part].T for name in ("query", "key", "value"))
            for place in range(b):
                turn = np.exp(1j * place * 10000.0 ** (-pairs / d))
                for x in (q, k):
                    pair = (x[place, pairs] + 1j * x[place, pairs + 1]) * turn
                    x[place, pairs], x[place, pairs + 1] = pair.real, pair.imag
            rate = sigmoid(rows @ p["inner_lr.weight"][head] + p["inner_lr.bias"][head]) / d
            gradient = np.zeros((b, d))
            for j in range(b):
                z = k[j] @ w0 + c0
                deviation = np.sqrt(z.var() + 1e-6)
                normal = (z - z.mean()) / deviation
                g = (gamma * normal + beta - (v[j] - k[j])) * gamma
                gradient[j] = (g - g.mean() - normal * (g * normal).mean()) / deviation
            a = np.array([[q[i] @ k[j] if j <= i else 0.0 for j in range(b)] for i in range(b)])
            c = np.array([c0 - sum(scale[i] * rate[j] * gradient[j] for j in range(i + 1)) for i in range(b)])
            a = a + p["gcn.attention_weight"] * moved(of_attention[head], a)
            c = c + p["gcn.bias_weight"] * moved(of_bias[head], c)
            for i in range(b):
                mixed = q[i] @ w0 + c[i] - sum(scale[i] * rate[j] * a[i, j] * gradient[j] for j in range(b))
                normal = (mixed - mixed.mean()) / np.sqrt(mixed.var() + 1e-6)
                outputs[start + i, part] = q[i] + gamma * normal + beta
            last = scale[-1] * rate[:, None]
            state[head] = (w0 - (last * k).T @ gradient, c0 - (last * gradient).sum(0))
    y = outputs[max(np.count_nonzero(history) - 1, 0)]
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-6) * p["post_norm.weight"] + p["post_norm.bias"]
    y = p["output.weight"] @ y
    user = y / np.sqrt((y**2).mean() + 1e-6) * p["output_norm.weight"]
    inner = np.tanh(p["candidate_hidden.weight"] @ p["items.weight"][candidate] + p["candidate_hidden.bias"])
    return float(user @ (p["candidate_output.weight"] @ inner + p["candidate_output.bias"]))


@pytest.mark.parametrize("mini_batches", [1, 2, 3])
def test_each_mini_batch_is_corrected_by_the_answer_to_its_own_rows(mini_batches):
    model = large(4)
    rng, length = np.random.default_rng(5), mini_batches * 5
    histories = rng.integers(1, 30, (length + 1, length), dtype=np.int32)
    histories[np.arange(length) >= np.arange(length + 1)[:, None]] = 0  # of all lengths, none and all among them
    candidates = rng.integers(1, 30, (length + 1, 2), dtype=np.int32)
    with torch.no_grad():
        given = torch.from_numpy(histories), torch.from_numpy(candidates)
        alone, scores = model(*given), model.double().corrected(*given)
    expected = [
        [corrected_by_hand(model, [*history], one) for one in c]
        for history, c in zip(histories, candidates, strict=True)
    ]
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-5)
    assert (scores - alone).abs().amax(1).min() > 1e-2  # it matters wherever a history ends


def test_only_the_mini_batch_of_the_last_click_is_corrected_for_the_user():
    model = large(6)
    correct, rerank = (SPEC.programs[name].build(model) for name in ("correct", "rerank_corrected"))
    candidates, noise = torch.randint(1, 30, (1, 4)), torch.Generator().manual_seed(1)
    for clicks in (0, 3, 5, 6, 9, 10):  # five and fewer: the second mini-batch is padding, and its rows of H are zero
        ids = torch.where(torch.arange(10) < clicks, torch.randint(1, 30, (1, 10)), 0)
        with torch.no_grad():
            sent = correct(model.hidden_state(ids))
            scores = rerank(ids, candidates, *sent)
            assert torch.isfinite(torch.cat([part.flatten() for part in sent])).all()
            for mini_batch in (0, 1):
                heads = slice(2 * mini_batch, 2 * mini_batch + 2)  # h of them each, the oldest mini-batch's first
                other = [part.clone() for part in sent]
                for part in other:
                    part[:, heads] = torch.randn(part[:, heads].shape, generator=noise)
                assert torch.equal(rerank(ids, candidates, *other), scores) == (mini_batch != (clicks > 5))
            if clicks <= 5:  # so that nothing of a mini-batch of padding shows
                torch.testing.assert_close(scores, model.corrected(ids[:, :5], candidates), rtol=1e-5, atol=1e-5)


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
    with pytest.raises(ValueError, match=r"whole mini-batches of 5 clicks, and .* have 6; ask for .* of 5, 10 or"):
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
    for name in ("correct", "rerank_corrected"):
        with pytest.raises(ValueError, match=r"whole mini-batches of 5 clicks, and .* have 4; ask for .* of 5, 10 or"):
            SPEC.programs[name].cases(small(0), {**golden, "item_ids": golden["item_ids"][:, :4]})


def test_no_program_of_the_device_carries_the_cloud():
    counts = {
        name: sum(parameter.numel() for parameter in program.build(small(0)).parameters())
        for name, program in SPEC.programs.items()
    }
    without = sum(parameter.numel() for parameter in SCN(30, 16, heads=2, mini_batch=5).parameters())
    assert counts["rerank"] == counts["step"] == counts["rerank_corrected"] - 2 == without
    assert counts["rerank_cached"] == without - 30 * 16
    assert counts["correct"] == sum(p.numel() for p in small(0).gcn.parameters()) - 2
