"""The five baselines against torch's own layers, an independent Mamba and plain loops; padding, ids and sizes."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from models.baselines.mamba4rec import CHUNK, Mixer
from models.zoo import load_spec

SMALL = {
    "din": {"dimension": 16},
    "gru4rec": {"dimension": 16},
    "sasrec": {"dimension": 16, "heads": 2, "history_length": 8},
    "bert4rec": {"dimension": 16, "heads": 2, "blocks": 2, "history_length": 8},
    "mamba4rec": {"dimension": 16, "blocks": 2, "state": 6},
}
PUBLISHED = {
    "din": ({"dimension": 64}, "1.97"),
    "gru4rec": ({"dimension": 64}, "1.97"),
    "sasrec": ({"dimension": 64, "heads": 4, "history_length": 10}, "3.91"),
    "bert4rec": ({"dimension": 64, "heads": 4, "blocks": 2, "history_length": 10}, "2.02"),
    "mamba4rec": ({"dimension": 64, "blocks": 2, "state": 32}, "2.06"),
}
NAMES = list(SMALL)
HISTORIES = [[3, 9, 4, 7, 1, 5, 2, 8], [6, 2, 9], [4], [], [19, 3, 99, 3, 3]]


def small(name: str) -> nn.Module:
    """Return a model whose every parameter is random, norms and biases among them, in double precision."""
    model = load_spec(name).build({"vocabulary": 20, **SMALL[name]})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            keeps = "norm" in parameter_name or parameter_name.endswith(("A_log", ".D"))
            parameter.copy_(parameter + noise if keeps else noise)
        model.items.weight[0] = 0
    return model.double().eval()


def padded(histories: list[list[int]], length: int = 8) -> torch.Tensor:
    return torch.tensor([ids + [0] * (length - len(ids)) for ids in histories], dtype=torch.int32)


def embedded(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return model.items.weight[torch.where((ids >= 0) & (ids < 20), ids, 0).long()]


def linear(x: torch.Tensor, model: nn.Module, name: str) -> torch.Tensor:
    """Apply a linear map of a model by its weights alone."""
    layer = model.get_submodule(name)
    result = torch.einsum("...i,oi->...o", x, layer.weight)
    return result if layer.bias is None else result + layer.bias


def tower(model: nn.Module, user: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    user = linear(torch.tanh(linear(user, model, "user_hidden")), model, "user_output")
    item = linear(torch.tanh(linear(candidates, model, "candidate_hidden")), model, "candidate_output")
    return torch.einsum("d,cd->c", user, item)


def gru4rec(model: nn.Module, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    reference = nn.GRU(16, 16, batch_first=True).double()
    reference.load_state_dict(model.gru.state_dict())
    clicks = ids[ids != 0] if (ids != 0).any() else ids[:1]
    _, state = reference(torch.tanh(linear(embedded(model, clicks), model, "input"))[None])
    return tower(model, state[0, 0], embedded(model, candidates))


def din(model: nn.Module, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    clicks = ids[ids != 0] if (ids != 0).any() else ids[:1]  # padding looks alike: attending to any of it is the same
    clicks = torch.tanh(linear(embedded(model, clicks), model, "click"))
    scores = []
    for candidate in candidates:
        target = torch.tanh(linear(embedded(model, candidate), model, "target"))
        logits = linear(clicks, model, "key") @ linear(target, model, "query") / math.sqrt(16)
        pooled = torch.softmax(logits, 0) @ linear(clicks, model, "value")
        x = torch.cat([target, pooled])
        for name in ("first", "second"):
            x = torch.tanh(linear(x, model, name))
        scores.append(linear(x, model, "logit")[0])
    return torch.stack(scores)


def sasrec(model: nn.Module, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    layer = nn.TransformerEncoderLayer(16, 2, 64, dropout=0.0, batch_first=True).double().eval()
    layer.load_state_dict(model.layer.state_dict(), strict=True)
    x = torch.tanh(linear(embedded(model, ids) + model.positions[: len(ids)], model, "input"))
    last = max(int((ids != 0).sum()) - 1, 0)
    return tower(model, layer(x[None])[0, last], embedded(model, candidates))


def std_norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    return norm.weight * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + norm.bias


def bert4rec(model: nn.Module, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    x = embedded(model, ids) + model.positions[: len(ids)]
    empty = not (ids != 0).any()
    for block in model.blocks:
        attention = nn.MultiheadAttention(16, 2, batch_first=True).double().eval()
        parts = [block.query, block.key, block.value]
        with torch.no_grad():
            attention.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
            attention.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
            if empty:  # where all is masked, all is attended to alike, whatever the queries are
                attention.in_proj_weight[:16], attention.in_proj_bias[:16] = 0, 0
        attention.out_proj.load_state_dict(block.output.state_dict())
        normal = std_norm(x, block.attention_norm)[None]
        x = x + attention(normal, normal, normal, key_padding_mask=None if empty else (ids == 0)[None])[0][0]
        inner = nn.GELU("tanh")(linear(std_norm(x, block.feed_forward_norm), block, "inner"))
        x = x + linear(inner, block, "outer")
    last = max(int((ids != 0).sum()) - 1, 0)
    return embedded(model, candidates) @ x[last]


def mamba_mixer(mixer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Run a Mamba block over tokens [N, D], one token and one channel at a time."""
    inner = mixer.D.shape[0]
    u, gate = (x @ mixer.in_proj.weight.T).split(inner, -1)
    u = functional.conv1d(functional.pad(u.T[None], (3, 0)), mixer.conv1d.weight, mixer.conv1d.bias, groups=inner)
    u = functional.silu(u[0].T)
    dt, into, out = (u @ mixer.x_proj.weight.T).split([mixer.rank, mixer.state, mixer.state], -1)
    dt = functional.softplus(dt @ mixer.dt_proj.weight.T + mixer.dt_proj.bias)
    y = torch.empty_like(u)
    for channel in range(inner):
        state = torch.zeros(mixer.state, dtype=x.dtype)
        for token in range(len(x)):
            step = dt[token, channel]
            state = torch.exp(-step * mixer.A_log[channel].exp()) * state + step * into[token] * u[token, channel]
            y[token, channel] = out[token] @ state + mixer.D[channel] * u[token, channel]
    return (y * functional.silu(gate)) @ mixer.out_proj.weight.T


def mamba4rec(model: nn.Module, ids: torch.Tensor, candidates: torch.Tensor) -> torch.Tensor:
    def norm(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
        return functional.layer_norm(x, (16,), layer.weight, layer.bias, 1e-12)

    clicks = ids[ids != 0] if (ids != 0).any() else ids[:1]
    x = norm(embedded(model, clicks), model.input_norm)
    for block in model.blocks:
        x = norm(mamba_mixer(block.mixer, x) + x, block.mixer_norm)
        x = norm(linear(nn.GELU()(linear(x, block, "inner")), block, "outer") + x, block.feed_forward_norm)
    return embedded(model, candidates) @ x[-1]


ORACLES = {"din": din, "gru4rec": gru4rec, "sasrec": sasrec, "bert4rec": bert4rec, "mamba4rec": mamba4rec}


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_an_independent_implementation(name):
    model = small(name)
    candidates = torch.tensor([1, 5, 19, 0, 20, -3], dtype=torch.int32)
    item_ids = padded(HISTORIES)
    with torch.no_grad():
        scores = model(item_ids, candidates.expand(len(item_ids), -1))
        expected = torch.stack([ORACLES[name](model, ids, candidates) for ids in item_ids])
    assert expected.std() > 0.1
    np.testing.assert_allclose(scores, expected, rtol=1e-8, atol=1e-8)


def test_the_mamba_block_is_that_of_another_library():
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    config = transformers.MambaConfig(hidden_size=16, state_size=6, conv_kernel=4, expand=2, use_mambapy=False)
    torch.manual_seed(0)
    theirs = MambaMixer(config, layer_idx=0).eval()
    own = Mixer(16, 6).eval()
    own.load_state_dict(theirs.state_dict(), strict=True)
    x = torch.randn(3, 11, 16)
    with torch.no_grad():
        torch.testing.assert_close(own(x), theirs(x), rtol=1e-4, atol=1e-6)


def test_a_large_batch_is_computed_in_parts_that_do_not_see_each_other():
    model, item_ids = small("mamba4rec"), padded(HISTORIES).repeat(CHUNK // 2, 1)
    candidate_ids = torch.randint(0, 20, (len(item_ids), 3), generator=torch.Generator().manual_seed(2))
    assert len(item_ids) > 2 * CHUNK
    alone = torch.cat([model(*pair) for pair in zip(item_ids.split(1), candidate_ids.split(1), strict=True)])
    together = model(item_ids, candidate_ids)
    torch.testing.assert_close(together, alone)
    gradients = [torch.autograd.grad(scores.square().sum(), list(model.parameters())) for scores in (together, alone)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "din"])  # which has no last position
def test_the_user_is_the_state_at_the_last_position_in_training_too(name):
    model, item_ids = small(name), padded(HISTORIES)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    candidates = torch.tensor([[1, 5, 19]], dtype=torch.int32).expand(len(item_ids), -1)
    last = torch.tensor([max(len(ids) - 1, 0) for ids in HISTORIES])
    with torch.no_grad():
        states = model.encode(item_ids)[torch.arange(len(last)), last]
        if name in ("bert4rec", "mamba4rec"):
            expected = torch.einsum("bd,bcd->bc", states, embedded(model, candidates))
        else:
            expected = torch.stack([tower(model, state, embedded(model, candidates[0])) for state in states])
        for mode in (False, True):
            np.testing.assert_allclose(model.train(mode)(item_ids, candidates), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_unknown_ids(name):
    model = small(name)
    candidates = torch.tensor([[1, 5, 19]] * 3, dtype=torch.int32)
    clicks = [[6, 2, 9], [4], [7, 99, 1]]
    with torch.no_grad():
        short, long = (model(padded(clicks, length), candidates) for length in (3, 8))
        model.items.weight[5] = 0  # an item whose embedding is zero is what an unknown id counts as
        strange = model(padded([[7, -4, 1]], 3), candidates[:1] * 0 + 99)
        known = model(padded([[7, 5, 1]], 3), candidates[:1] * 0 + 5)
    assert torch.equal(strange, known)
    if name == "sasrec":  # as published, it attends to padding too
        assert not torch.allclose(short[:2], long[:2])
    else:
        torch.testing.assert_close(short, long)


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_the_published_one(name):
    architecture, millions = PUBLISHED[name]
    spec = load_spec(name)
    model = spec.build({"vocabulary": 30_000, **architecture})
    count = sum(parameter.numel() for parameter in model.parameters())
    assert f"{count / 1e6:.2f}" == millions
    assert spec.weights({"vocabulary": 30_000, **architecture}) <= count


def test_an_artifact_of_sasrec_has_only_the_positions_that_are_read():
    model = small("sasrec")
    lean = load_spec("sasrec").programs["rerank"].build(model)
    assert (model.positions.shape, lean.positions.shape) == ((20, 16), (8, 16))
    inputs = padded(HISTORIES), torch.tensor([[1, 5]] * 5, dtype=torch.int32)
    with torch.no_grad():
        assert torch.equal(lean(*inputs), model(*inputs))


@pytest.mark.parametrize("name", NAMES)
def test_training_gives_finite_gradients_to_all_and_none_to_padding(name):
    model = small(name).float().train()
    model(padded(HISTORIES), torch.tensor([[1, 0, 99]] * 5)).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert not model.items.weight.grad[0].any()


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_stays_finite_on_padding(name):
    model = small(name).float()
    inputs = padded([*HISTORIES, [99]]), torch.tensor([[1, 0, 99]] * 6)
    with torch.no_grad():
        exact, scores = model(*inputs), model.half()(*inputs)
    torch.testing.assert_close(scores.float(), exact, rtol=0.05, atol=0.1)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("sasrec", {"heads": 3}),
        ("sasrec", {"history_length": 21}),
        ("bert4rec", {"heads": 5}),
        ("gru4rec", {"layers": 2}),
    ],
)
def test_an_impossible_architecture_is_refused(name, wrong):
    with pytest.raises((TypeError, ValueError)):
        load_spec(name).build({"vocabulary": 20, **SMALL[name], **wrong})
