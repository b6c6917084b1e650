"""STTD, Rare Gem and Gater: published counts, what each computes by another reckoning, and training to the end."""

import numpy as np
import pytest
import torch
from test_resume import Killed
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from models import checkpoint
from models.forward_ofa.backbones import nextitnet, sasrec
from models.forward_ofa.compared import sttd
from models.forward_ofa.compared.rare_gem import Masks
from models.forward_ofa.programs import SPEC
from models.training.run import run
from models.training.settings import Filters, NextItem, Request, Settings

SIZES = {"dimension": 16, "blocks": 2}


@pytest.mark.parametrize(
    ("backbone", "layers", "inputs", "kept", "rebuilding", "together"),
    [
        # A: 64 x (24 * 2) and B: 24 x (64 / 2); published 3.7478 Mbit, and 3.5735 M with the backbone's 0.6244 M.
        ("sasrec", 30, 64, 64 * 48 + 24 * 32, 98_304, (0.6244, "3.5735")),
        # A: 64 x (9 * 2) and B: 9 x (192 / 2); published 4.1595 M with the backbone's 1.505280 M at 5 tokens.
        ("nextitnet", 24, 192, 64 * 18 + 9 * 96, 110_592, (1.505280, "4.1595")),
    ],
)
def test_sttd_keeps_and_costs_the_published_numbers(backbone, layers, inputs, kept, rebuilding, together):
    blocks = {"sasrec": 6, "nextitnet": 12}[backbone]
    model = SPEC.build({**SPEC.sized(2, 5), "blocks": blocks, "backbone": backbone, "method": "sttd"})
    held = sum(parameter.numel() for parameter in model.factors.parameters())
    assert held == layers * (kept + 64)
    assert backbone != "sasrec" or f"{held * 32 / 1e6:.4f}" == "3.7478"
    own, published = together
    per_block = sttd.rebuild_macs(model.backbone.shapes, sttd.RANKS[backbone])
    assert blocks * per_block == layers * rebuilding
    assert f"{own + layers * rebuilding / 1e6:.4f}" == published
    with FlopCounterMode(display=False) as counter:
        sttd.rebuild(torch.ones(2, 64, sttd.RANKS[backbone]), torch.ones(sttd.RANKS[backbone], inputs // 2))
    assert counter.get_total_flops() == 2 * rebuilding


def test_a_rebuilt_matrix_is_the_semi_tensor_product_of_its_factors():
    torch.manual_seed(0)
    left, right = torch.randn(2, 6, 5), torch.randn(5, 4)
    a = left.permute(1, 2, 0).reshape(6, 10)  # A [O, p t], its columns i t + s
    torch.testing.assert_close(sttd.rebuild(left, right), a @ torch.kron(right, torch.eye(2)))


def units(gates):
    return gates[0].nonzero()[:, 0]


def sasrec_of_open_units(block, x, w, gates):
    """A feed-forward network of the open units alone, behind the attention of the whole block."""
    rows = units(gates)
    cut = {**w, "inner_weight": w["inner_weight"][rows], "inner_bias": w["inner_bias"][rows]}
    return block(x, {**cut, "outer_weight": w["outer_weight"][:, rows]})


def nextitnet_of_open_units(block, x, w, gates):
    """Convolutions of the open filters alone, each on what open filters give; closed ones are zeros for the norms."""
    first, second = (units(part) for part in gates.split(8, -1))
    of_first = torch.cat([first + 8 * tap for tap in range(3)])

    def norm(y, places, layer):
        whole = torch.zeros(1, x.shape[1], 8).index_copy(2, places, y)
        return functional.layer_norm(whole, (8,), layer.weight, layer.bias, 1e-6).relu()[..., places]

    y = functional.linear(nextitnet.taps(x, 1), w["first_weight"][first], w["first_bias"][first])
    y = nextitnet.taps(norm(y, first, block.first_norm), 2)
    y = functional.linear(y, w["second_weight"][second][:, of_first], w["second_bias"][second])
    return x.index_add(2, second, norm(y, second, block.second_norm))


@pytest.mark.parametrize("backbone", ["sasrec", "nextitnet"])
def test_closed_units_can_be_left_out_and_are_not_counted(backbone):
    torch.manual_seed(1)
    block = sasrec.SASRecBlock(8, 5) if backbone == "sasrec" else nextitnet.NextItNetBlock(8, 1)
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    x, w = torch.randn(1, 5, 8), {name: torch.randn(shape) for name, shape in block.shapes.items()}
    gates = (torch.rand(1, block.units) < 0.5).float()
    small = sasrec_of_open_units if backbone == "sasrec" else nextitnet_of_open_units
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        smaller = small(block, x, w, gates)
    torch.testing.assert_close(block(x, w, gates), smaller, rtol=1e-5, atol=1e-5)
    norms = 5 * 2 * 4 * 8
    assert block.open_macs(5, gates).tolist() == [counter.get_total_flops() // 2 + norms]
    assert block.open_macs(5, torch.ones_like(gates)).tolist() == [block.macs(5)]
    torch.testing.assert_close(block(x, w, torch.ones_like(gates)), block(x, w))


def test_a_mask_is_found_in_weights_that_stay_and_then_these_are_trained():
    torch.manual_seed(2)
    shapes = {"weight": (2, 4), "bias": (2,)}
    masks, weights = Masks(shapes, 1, 0.5, 4), torch.arange(1.0, 11.0)[None].requires_grad_()
    with torch.no_grad():
        masks.scores[0, :8] = torch.tensor([0.8, 0.1, 0.7, 0.2, 0.6, 0.3, 0.5, 0.4])
    expected = weights.detach() * torch.tensor([[1, 0, 1, 0, 1, 0, 1, 0, 1, 1]])
    masks.start_epoch()
    assert torch.equal(masks(weights), expected)
    of_scores, of_weights = torch.autograd.grad(masks(weights).sum(), [masks.scores, weights])
    assert torch.equal(of_scores[0, :8], weights[0, :8])  # straight through, also where nothing is kept
    assert of_weights.tolist() == [[0] * 8 + [1, 1]]
    masks.start_epoch()  # a quarter of the places is given up: the two of the smallest scores
    with torch.no_grad():
        masks.scores[0, :8] = torch.tensor([0.8, 9.0, 0.7, 9.0, 0.1, 0.3, 0.5, 0.4])
    assert masks(weights)[0, :8].tolist() == [1, 0, 3, 0, 0, 0, 7, 8]
    for _ in range(2):  # the second half: the places stay, and their weights are trained
        masks.start_epoch()
        assert masks(weights)[0, :8].tolist() == [1, 0, 3, 0, 0, 0, 7, 8]
        (of_weights,) = torch.autograd.grad(masks(weights).sum(), [weights])
        assert of_weights.tolist() == [[1, 0, 1, 0, 0, 0, 1, 1, 1, 1]]


def request(clicks, output, method, backbone="sasrec", sparsity=None, rate=1e-2):
    settings = Settings(seed=3, epochs=4, learning_rate=rate, weight_decay=0.01, batch_size=256, history=6)
    options = NextItem(5.0, 1.0, 0.0, 3, sparsity)
    architecture = {**SIZES, "backbone": backbone, "method": method}
    return Request("ofa", architecture, clicks, output, settings, Filters(), options)


def silent(done, total, note):
    pass


def test_a_rare_gem_has_as_many_zeros_as_asked_for_also_after_a_kill(clicks, tmp_path):
    def kill(done, total, note):
        if not note and done > total * 0.7:
            raise Killed

    straight = run(request(clicks, tmp_path / "straight" / "it", "rare_gem", sparsity=0.75), silent)
    interrupted = request(clicks, tmp_path / "killed" / "it", "rare_gem", sparsity=0.75)
    with pytest.raises(Killed):
        run(interrupted, kill)
    assert run(interrupted, silent).sha256 == straight.sha256
    assert "--sparsity 0.75" in straight.config["training"]["command"]
    assert set(straight.state) == set(SPEC.build({**straight.architecture, "method": "devicerec"}).state_dict())
    matrices = straight.state["own_weights"].reshape(2, 5, 16 * 17)[:, :, : 16 * 16]
    assert (matrices == 0).sum(-1).tolist() == [[192] * 5] * 2
    parts = straight.config["metrics"]["sub_networks"]
    assert (parts["parameters"], parts["macs"]) == (2 * 5 * (64 + 16), parts["macs_of_all_blocks"])


@pytest.mark.parametrize("backbone", ["sasrec", "nextitnet"])
def test_the_gates_of_each_user_are_counted(backbone, clicks, tmp_path):
    saved = run(request(clicks, tmp_path / "it", "gater", backbone, rate=0.1), silent)
    parts, model = saved.config["metrics"]["sub_networks"], checkpoint.build(saved, SPEC)
    assert 0 < parts["open_gates"] < 1
    assert parts["macs_of_all_blocks"] == sum(block.macs(6) for block in model.backbone.blocks)
    assert parts["macs"] < parts["macs_of_all_blocks"]
    assert parts["parameters"] == 2 * sum(np.prod(shape) for shape in model.backbone.shapes.values())
    gates = 2 * {"sasrec": 16, "nextitnet": 32}[backbone]
    assert parts["macs_of_gater"] == 6 * 3 * 2 * (16 + 2) + 2 * gates  # a GRU of 2 units, and its head


def test_training_tells_that_all_users_get_the_same_blocks(clicks, tmp_path, cocorr_train):
    words = ("--method", "controller", "--epochs", 1, "--batch-size", 64, "--compactness", 100, "--learning-rate", 0.05)
    ended = cocorr_train("ofa", "--data", clicks, "--output", tmp_path / "it", "--history", 6, *words)
    assert ended.code == 0, ended.err
    saved = checkpoint.read(tmp_path / "it").config
    assert "gives one structure to more than 90 % of the test's users" in ended.err
    assert saved["training"]["structure_collapse"] is True
    assert saved["metrics"]["sub_networks"]["share_of_most_frequent"] > 0.9


def test_litepred_trains_the_structure_that_it_is_given_from_a_devicerec(clicks, tmp_path, cocorr_train):
    common = ("ofa", "--data", clicks, "--history", 6, "--epochs", 1, "--batch-size", 64)
    assert cocorr_train(*common, "--output", tmp_path / "plain", "--method", "devicerec").code == 0
    given = (*common, "--output", tmp_path / "it", "--method", "litepred", "--start-from", tmp_path / "plain")
    ended = cocorr_train(*given, "--structure", "110100")
    assert ended.code == 0, ended.err
    saved, plain = checkpoint.read(tmp_path / "it"), checkpoint.read(tmp_path / "plain")
    assert "--method litepred --structure 110100" in saved.config["training"]["command"]
    parts = saved.config["metrics"]["sub_networks"]
    assert (parts["blocks"], parts["different"], saved.config["training"]["structure_collapse"]) == (3, 1, False)
    moved = (saved.state["own_weights"] != plain.state["own_weights"]).any(-1)
    assert moved[[0, 1, 3]].all()
    model = checkpoint.build(saved, SPEC)
    selection = SPEC.select(model, saved.golden, None, None)
    assert selection.structure == (1, 1, 0, 1, 0, 0)
    for wrong, part in (
        ((), "--structure, a digit for each block"),
        (("--structure", "11"), "6 digits"),
        (("--structure", "000000"), "at least 1"),
    ):
        ended = cocorr_train(*given[:-2], "--force", *wrong)
        assert (ended.code, part in ended.err) == (2, True), ended.err
