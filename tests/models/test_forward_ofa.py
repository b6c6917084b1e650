"""Forward-OFA: published counts, sub-networks equal to the supernet, selections, packages, and programs that export."""

import json
from itertools import product

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional

from models.forward_ofa import controller as control
from models.forward_ofa import weights_package
from models.forward_ofa.assembler import assemble, block_weight_shapes, block_weights
from models.forward_ofa.backbones import nextitnet, sasrec
from models.forward_ofa.backbones.backbone import count
from models.forward_ofa.compared.switches import METHODS
from models.forward_ofa.programs import SPEC, build, select, selected_weights
from models.forward_ofa.supernet import Supernet

BACKBONES = {"sasrec": (sasrec, 6), "nextitnet": (nextitnet, 12)}
V, N, C = 40, 6, 5


def random_supernet(backbone="sasrec", blocks=4, dimension=16, seed=0, **options) -> Supernet:
    """A supernet whose layer norms, logits and generated weights all differ from their start."""
    torch.manual_seed(seed)
    model = Supernet(V, dimension, blocks, N, backbone, **options)
    with torch.no_grad():
        if model.controller is not None:
            model.controller.head.weight.div_(control.WIDER)  # so that the noise of a draw decides for some users
        for name, parameter in model.named_parameters():
            if "norm" in name or name.startswith(("items", "controller", "interest")):
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.items.weight[0] = 0
        if model.mapper is not None:
            model.mapper.linear.weight.mul_(5)
    return model.eval()


def golden(users=7, seed=1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    item_ids = rng.integers(1, V, (users, N), dtype=np.int32)
    for user in range(users):
        item_ids[user, N - user % N :] = 0
    item_ids[0] = rng.integers(1, V, N)
    candidate_ids = np.stack([rng.permutation(V)[:C] for _ in range(users)]).astype(np.int32)
    return {"item_ids": item_ids, "candidate_ids": candidate_ids}


def ids(arrays) -> list[torch.Tensor]:
    return [torch.from_numpy(arrays[name]) for name in ("item_ids", "candidate_ids")]


def forced(model: Supernet, item_ids, candidate_ids, structure) -> torch.Tensor:
    """Scores of the supernet with the same structure for all users."""
    rows = torch.tensor([structure], dtype=torch.float32).expand(len(item_ids), -1)
    user = model.user_state(item_ids, rows)
    return (model.items(candidate_ids) * user[:, None]).sum(-1)


@pytest.mark.parametrize(
    ("backbone", "whole", "megabits", "extras", "mapper"),
    [
        ("sasrec", 124_800, "3.9936", 50_304, 8_112_000),
        ("nextitnet", 299_520, "9.5846", 50_688, 19_269_120),
    ],
)
def test_parameters_are_the_published_ones(backbone, whole, megabits, extras, mapper):
    blocks = BACKBONES[backbone][1]
    model = Supernet(2, 64, blocks, 5, backbone)
    total = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    generated = blocks * count(model.backbone.shapes)
    norms = sum(p.numel() for p in model.backbone.blocks.parameters())
    # The published count of NextItNet has its layer norms in it, that of SASRec has not.
    counted = generated + (norms if backbone == "nextitnet" else 0)
    assert counted == whole
    assert f"{counted * 32 / 1e6:.4f}" == megabits
    assert total["controller"] + total["interest"] == extras
    assert total["mapper"] == mapper == 65 * generated


def test_nextitnet_costs_the_published_multiply_accumulates():
    assert nextitnet.build(64, 12, 5).macs(5, [1] * 12) == 1_505_280
    assert nextitnet.build(64, 12, 5).macs(5, [0] * 11 + [1]) == 1_505_280 // 12


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_structure_of_a_small_supernet_assembles_to_the_same_scores(backbone):
    model, arrays = random_supernet(backbone, blocks=3), golden(4)
    item_ids, candidate_ids = ids(arrays)
    with torch.no_grad():
        for structure in product((0, 1), repeat=3):
            together = forced(model, item_ids, candidate_ids, structure)
            packed = model.generate(item_ids, torch.tensor([structure]).float().expand(len(item_ids), -1))
            for user in range(len(item_ids)):
                weights = block_weights(model.backbone, packed[user], structure)
                row = item_ids[user : user + 1], candidate_ids[user : user + 1]
                inside = assemble(model.items, model.backbone, structure, weights).eval()
                outside = assemble(model.items, model.backbone, structure, weights, external="inputs").eval()
                torch.testing.assert_close(inside(*row)[0], together[user], rtol=1e-5, atol=1e-5)
                torch.testing.assert_close(outside(*row, *weights.values()), inside(*row))
                assert {name for name, _ in inside.named_parameters()} >= set(weights)
                assert not any(name.startswith("block") and "_" in name.split(".")[0] for name in outside.state_dict())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_sub_networks_of_the_published_sizes_give_the_supernets_scores(backbone):
    blocks = BACKBONES[backbone][1]
    model, arrays = random_supernet(backbone, blocks, 64), golden()
    item_ids, candidate_ids = ids(arrays)
    generator = torch.Generator().manual_seed(2)
    structures = torch.randint(0, 2, (3, blocks), generator=generator).tolist()
    with torch.no_grad():
        for user, structure in enumerate([[0] * blocks, [1] * blocks, *structures]):
            text, clicks = "".join(map(str, structure)), [item for item in arrays["item_ids"][user].tolist() if item]
            if not clicks:
                continue
            selection = select(model, arrays, clicks, text)
            network = SPEC.programs["subnet"].build(model, selection).eval()
            assert len(network.blocks) == sum(structure)
            row = item_ids[user : user + 1], candidate_ids[user : user + 1]
            torch.testing.assert_close(network(*row), forced(model, *row, structure), rtol=1e-5, atol=1e-5)


def test_a_block_of_sasrec_is_what_its_equations_say():
    torch.manual_seed(3)
    block, x = sasrec.SASRecBlock(8, 5).double(), torch.randn(1, 5, 8).double()
    w = {name: torch.randn(shape).double() for name, shape in block.shapes.items()}
    normal = functional.layer_norm(x, (8,), eps=1e-6)
    q, k, v = (functional.linear(normal, w[f"{n}_weight"], w[f"{n}_bias"]) for n in ("query", "key", "value"))
    after = x + functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    inner = functional.linear(functional.layer_norm(after, (8,), eps=1e-6), w["inner_weight"], w["inner_bias"]).relu()
    expected = after + functional.linear(inner, w["outer_weight"], w["outer_bias"])
    torch.testing.assert_close(block(x, w), expected, rtol=1e-5, atol=1e-5)
    batched = {name: tensor[None].expand(1, *tensor.shape) for name, tensor in w.items()}
    torch.testing.assert_close(block(x, batched), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dilation", [1, 4])
@pytest.mark.parametrize("length", [1, 4, 10])
def test_a_block_of_nextitnet_is_two_causal_convolutions(length, dilation):
    torch.manual_seed(4)
    block, x = nextitnet.NextItNetBlock(6, dilation), torch.randn(2, length, 6)
    w = {name: torch.randn(shape) for name, shape in block.shapes.items()}
    y = x
    for layer, step in (("first", dilation), ("second", 2 * dilation)):
        kernel = w[f"{layer}_weight"].reshape(6, 3, 6).transpose(1, 2)  # [out, in, taps]
        padded = functional.pad(y.transpose(1, 2), (2 * step, 0))
        y = functional.conv1d(padded, kernel, w[f"{layer}_bias"], dilation=step).transpose(1, 2)
        y = functional.layer_norm(y, (6,), eps=1e-6).relu()
    torch.testing.assert_close(block(x, w), x + y, rtol=1e-4, atol=1e-5)


def test_the_gumbel_sample_is_a_softmax_over_run_and_skip():
    torch.manual_seed(5)
    logits = torch.full((200_000, 1), 0.7, requires_grad=True)
    gates, cost = control.sample(logits, 1.0)
    # Of Gumbel-max, P(run) is the softmax itself at every temperature: sigmoid(0.7).
    assert gates.mean().item() == pytest.approx(torch.sigmoid(torch.tensor(0.7)).item(), abs=0.01)
    assert set(gates.unique().tolist()) <= {0.0, 1.0}
    (gradient,) = torch.autograd.grad(gates.sum(), logits, retain_graph=True)
    assert (gradient > 0).all()
    (push,) = torch.autograd.grad(cost.sum(), logits)
    assert (push > 0).all()  # less cost is more skipping
    hot, hot_cost = control.sample(logits, 10.0)
    assert hot.mean().item() == pytest.approx(gates.mean().item(), abs=0.01)
    # -log of skipping's share of (0.7, 0): neither the noise nor the temperature is in it (eq. 11).
    skipped = torch.log_softmax(torch.tensor([0.7, 0.0]), 0)[1]
    torch.testing.assert_close(cost, -skipped.expand_as(cost))
    torch.testing.assert_close(hot_cost, cost)


def test_users_begin_with_logits_as_far_apart_as_the_noise_of_a_draw():
    torch.manual_seed(0)
    x = 0.1 * torch.randn(500, N, 64)  # of the size that trained embeddings have
    last = functional.one_hot(torch.full((500,), N - 1), N).to(x.dtype)
    with torch.no_grad():
        logits = control.Controller(64, 6)(x, last)
    assert 0.3 < float(logits.std(0).mean()) < 3
    assert len((logits >= 0).unique(dim=0)) >= 6


def test_the_latent_interest_starts_from_the_structure():
    model = random_supernet()
    x, last = model.embed_and_mark(ids(golden())[0])
    reference = nn.GRU(16, 16, batch_first=True)
    reference.load_state_dict(model.interest.encoder.state_dict())
    structure = torch.tensor([[1.0, 0.0, 0.0, 1.0]]).expand(len(x), -1)
    start = torch.tensor([1.0, 0, 0, 1, 0, 1, 1, 0, *[0.0] * 8]).expand(1, len(x), -1).contiguous()
    expected = (reference(x, start)[0] * last[:, :, None]).sum(1)
    torch.testing.assert_close(model.interest(x, last, structure), expected)
    assert not torch.allclose(model.interest(x, last, None), expected)


@pytest.mark.parametrize("method", METHODS)
def test_each_method_leaves_out_its_part_and_trains_all_that_is_left(method):
    kept = {"kept_blocks": 2} if method in ("random", "first", "last") else {}
    kept |= {"steps": 1} if method == "finetune" else {}
    kept |= {"structure": "1010"} if method == "litepred" else {}
    model = random_supernet(method=method, **kept)
    model.steps = 0  # as while it is trained
    item_ids, _ = ids(golden())
    structure = model.structure(item_ids)
    runs = {
        "first": [1, 1, 0, 0],
        "last": [0, 0, 1, 1],
        "devicerec": [1] * 4,
        "duet": [1] * 4,
        "litepred": [1, 0, 1, 0],
    }.get(method)
    assert runs is None or (structure == torch.tensor(runs)).all()
    assert method != "random" or ((structure.sum(1) == 2).all() and len(structure.unique(dim=0)) > 1)
    assert torch.equal(model.structure(item_ids), structure)
    user, cost = model.train().sample_user_state(item_ids, 5.0)
    (user.square().sum() + cost).backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    never = {index for index, used in enumerate(structure.any(0).tolist()) if not used}
    assert not {name for name in idle if not name.startswith(tuple(f"backbone.blocks.{index}." for index in never))}
    without = ("devicerec", "controller", "sttd", "rare_gem", "gater", "finetune", "litepred")
    assert (model.mapper is None) == (method in without)
    assert (model.controller is not None) == (method in ("forward_ofa", "controller", "no_structure_vector"))


def test_a_selection_is_the_users_own_or_what_was_asked_for():
    model, arrays = random_supernet(seed=6), golden(40)
    own = model.structure(torch.from_numpy(arrays["item_ids"])).int().tolist()
    default = select(model, arrays, None, None)
    assert max(map(own.count, own)) == own.count(list(default.structure))
    assert len(default.logits) == 4
    assert tuple(int(logit >= 0) for logit in default.logits) == default.structure
    long = list(range(1, 15))
    assert select(model, arrays, long, None).history == tuple(long[-N:])
    asked = select(model, arrays, [3, 5], "0000")
    assert (asked.structure, asked.history, selected_weights(model, asked)) == ((0, 0, 0, 0), (3, 5), {})
    for history, structure, message in (
        (None, "101", "structure '101' must be 4 digits of 0 and 1"),
        (None, "10a1", "structure '10a1' must be 4 digits"),
        (None, "", "structure '' must be 4 digits"),
        ([], None, "the history is empty"),
        ([3, V], None, f"unknown item ids, {V} first; items have ids from 1 to {V - 1}"),
        ([0], None, "unknown item ids, 0 first"),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            select(model, arrays, history, structure)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "backbone"), [*((name, "sasrec") for name in SPEC.programs), ("subnet_external", "nextitnet")]
)
def test_programs_export_and_their_cases_are_those_of_the_users(name, backbone):
    model = random_supernet(backbone, method="sttd" if name == "subnet_factored" else "forward_ofa")
    arrays = golden()
    selection = select(model, arrays, None, "1011")
    program = SPEC.programs[name]
    module = program.build(model, selection).eval()
    cases = program.cases(model, arrays, selection)
    architecture = {"dimension": 16, "blocks": 4}
    declared = [(spec.name, spec.shape(architecture, N, C), spec.dtype) for spec in program.inputs]
    found = [(key, array.shape[1:], array.dtype.name) for key, array in cases.items()]
    assert found[: len(declared)] == declared
    outside = program.external.weights(model, selection) if program.external else {}
    assert [key for key, *_ in found[len(declared) :]] == list(outside)
    first = tuple(torch.from_numpy(array[0].copy()) for array in cases.values())
    exported = torch.export.export(module, first).run_decompositions({})
    with torch.no_grad():
        torch.testing.assert_close(exported.module()(*first), module(*first))
    targets = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert not targets & {"aten.alias.default", "aten.clamp.default", "aten.__and__.Tensor"}  # Core ML refuses these
    if outside:
        inside = program.external.with_parameters(model, selection).eval()
        assert set(dict(inside.named_parameters())) >= set(outside)
        with torch.no_grad():
            for case, array in enumerate(cases["item_ids"]):  # each user's own weights, and so its own scores
                row = [torch.from_numpy(values[case].copy()) for values in cases.values()]
                torch.testing.assert_close(
                    module(*row), forced(model, torch.from_numpy(array), row[1], (1, 0, 1, 1)), rtol=1e-5, atol=1e-5
                )
            torch.testing.assert_close(inside(*first[:2]), module(*first))


def test_the_device_and_the_cloud_together_are_the_supernet():
    model, arrays = random_supernet(), golden()
    with torch.no_grad():
        scores = model(*ids(arrays))
        for user in range(len(scores)):
            item_ids, candidate_ids = (tensor[user : user + 1] for tensor in ids(arrays))
            _, structure, latent = SPEC.programs["controller"].build(model)(item_ids)
            packed = SPEC.programs["mapper"].build(model)(structure, latent)[0]
            chosen = structure[0].int().tolist()
            assert (packed.abs().sum(1) > 0).int().tolist() == chosen
            sent = weights_package.to_bytes(model.backbone, chosen, block_weights(model.backbone, packed, chosen))
            network = assemble(model.items, model.backbone, chosen, safetensors.torch.load(sent))
            torch.testing.assert_close(network(item_ids, candidate_ids)[0], scores[user], rtol=1e-5, atol=1e-5)


def test_a_weights_package_holds_the_chosen_blocks_and_says_for_whom_it_is(tmp_path):
    model, arrays = random_supernet(), golden()
    selection = select(model, arrays, None, "1010")
    tensors, backbone, path = selected_weights(model, selection), model.backbone, tmp_path / "user.safetensors"
    weights_package.write(path, backbone, selection.structure, tensors, checkpoint="aa")
    with safetensors.safe_open(path, "pt") as file:
        said = {"format": "cocorr-ofa-package-2", "backbone": "sasrec", "structure": "1010", "checkpoint": "aa"}
        assert file.metadata() == said
    saved = safetensors.torch.load_file(path)
    assert saved.keys() == tensors.keys() == block_weight_shapes(backbone, (1, 0, 1, 0)).keys()
    assert all(torch.equal(saved[name], tensors[name]) for name in tensors)
    assert safetensors.torch.load(weights_package.to_bytes(backbone, (0, 0, 0, 0), {})) == {}


def test_tensors_that_do_not_fit_are_no_weights_package(tmp_path):
    model = random_supernet()
    selection = select(model, golden(), None, "1010")
    tensors, name = selected_weights(model, selection), "block2_query_weight"
    for changes, message in (
        ({name: None}, f"does not fit sasrec 1010: {name} is missing"),
        ({"block1_query_weight": torch.ones(16, 16)}, "block1_query_weight is not part of it"),
        ({name: torch.ones(16, 15)}, rf"{name} is torch.float32 \[16, 15\] where float32 \[16, 16\]"),
        ({name: torch.ones(16, 16).half()}, f"{name} is torch.float16"),
        ({name: torch.full((16, 16), torch.nan)}, f"{name} has NaN or infinite"),
        (dict.fromkeys(tensors), "and 17 more; ask the mapper again"),
    ):
        changed = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
        with pytest.raises(weights_package.WeightsPackageError, match=message) as caught:
            weights_package.write(tmp_path / "new", model.backbone, selection.structure, changed)
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


ARCHITECTURE = {"vocabulary": V, "dimension": 16, "blocks": 4, "history_length": N, "backbone": "sasrec"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"backbone": "bert"},
        {"method": "best"},
        {"blocks": 9},
        {"history_length": 4000},
        {"kept_blocks": 2},
        {"method": "first"},
        {"method": "first", "kept_blocks": 5},
        {"layers": 2},
    ],
    ids=json.dumps,
)
def test_an_impossible_architecture_is_refused(wrong):
    with pytest.raises((TypeError, ValueError)):
        build({**ARCHITECTURE, **wrong})
    assert SPEC.weights({**ARCHITECTURE, **wrong}) >= V * 16
