"""What Forward-OFA is compared with, from the command: STTD in both its forms, Gater's gates, Rare Gem's zeros."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_ofa
import torch
from commands import run_here

from exporter import mil
from exporter.targets import TARGETS
from models import checkpoint
from models.forward_ofa.compared.rare_gem import Masks
from models.forward_ofa.supernet import Supernet

LENGTH = 3


def write(folder: Path, method: str, backbone: str = "sasrec", dimension: int = 16) -> Path:
    """Write a checkpoint of random weights; half of each matrix of a Rare Gem is zero, and half of a Gater's gates."""
    sizes = {"dimension": dimension, "blocks": 1, "backbone": backbone, "method": method}
    architecture = {**tiny_ofa.ARCHITECTURE, "history_length": LENGTH, **sizes}
    torch.manual_seed(0)
    model = Supernet(**architecture).eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(0, 0.5)
        if model.gater is not None:
            model.gater.head.weight.normal_()
            model.gater.head.bias.zero_()
        if method == "rare_gem":
            model.own_weights.copy_(Masks(model.backbone.shapes, 1, 0.5, 2)(model.own_weights))
    rng = np.random.default_rng(0)
    items = rng.integers(1, 300, (tiny_ofa.CASES, LENGTH), dtype=np.int32)
    items[: len(items) // 2, LENGTH // 2 + 1 :] = 0
    candidates = np.stack([rng.permutation(299)[: tiny_ofa.CANDIDATES] + 1 for _ in items]).astype(np.int32)
    golden = {"item_ids": items, "candidate_ids": candidates}
    with torch.no_grad():
        golden["scores"] = model(*map(torch.from_numpy, golden.values())).numpy()
    config = {"schema_version": 1, "model": "ofa", "architecture": architecture, "history_length": LENGTH}
    return checkpoint.write(folder, {**config, "training": {}, "metrics": {}}, model.state_dict(), golden).folder


@pytest.fixture(scope="module")
def factored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of STTD with factors that are smaller than their product, as 64 x 64 is with p = 24."""
    return write(tmp_path_factory.mktemp("sttd") / "sttd", "sttd", dimension=64)


@pytest.mark.parametrize("target", TARGETS)
def test_factors_stay_factors_until_a_call_rebuilds_them(target: str, factored: Path, tmp_path: Path) -> None:
    document = tiny_ofa.export(factored, tmp_path, "subnet_factored", target)[target]
    assert document["parity"]["verdict"] == "pass"
    layers, whole, kept, biases, norms = 5, 64 * 64, 64 * 48 + 24 * 32, 5 * 64, 3 * 2 * 64
    tables = 300 * 64 + LENGTH * 64
    assert document["parameters"] == tables + layers * kept + biases + norms
    # No converter has computed the products beforehand: the file's constants have not the room for whole matrices, and
    # each call has their multiply-accumulates, and of the block, which needs them at the last position alone, some too.
    held = document["memory"]["constant_bytes"] - 4 * document["parameters"]
    assert held < 4 * layers * (whole - kept) // 2
    block = LENGTH * (layers * whole + 2 * LENGTH * 64) + tiny_ofa.CANDIDATES * 64
    assert layers * 98_304 < document["flops"]["macs"] <= layers * 98_304 + block


def test_only_sttd_has_factors(small_ofa: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words = ("--program", "subnet_factored", "--checkpoint", small_ofa, "--output", tmp_path / "out")
    ended = run_here(capfd, "ofa", "--target", "onnx", *words)
    assert (ended.code, "keeps no factors; train the method sttd" in ended.error_line()) == (2, True), ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("target", ["coreml", "tflite"])
def test_gates_are_in_the_graph(target: str, tmp_path: Path) -> None:
    document = tiny_ofa.export(write(tmp_path / "gater", "gater", "nextitnet"), tmp_path, "subnet", target)[target]
    assert document["parity"]["verdict"] == "pass"
    assert document["flops"]["by_kind"]["compare"] >= 2 * 16  # one for each gate


def test_zeros_of_a_rare_gem_are_not_in_core_mls_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = write(tmp_path / "gem", "rare_gem", dimension=64)
    words = ("--target", "coreml", "--checkpoint", folder, "--output", tmp_path, "--json")
    ended = run_here(capfd, "ofa", *words)
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert "sparsity" not in ended.err
    document = ended.document
    package = Path(document["artifact"]) / "model.mlpackage"
    sparse = [
        one for one in mil.load(package).function().constant_operations if one.type == "constexpr_sparse_to_dense"
    ]
    assert [[spec.shape for spec in one.outputs] for one in sparse] == [[(64, 64)]] * 5
    dense = 300 * 64 + LENGTH * 64 + 5 * 64 + 6 * 64
    kept, bits = 5 * 64 * 64 // 2, 5 * 64 * 64 // 8
    assert document["memory"]["constant_bytes"] == pytest.approx(4 * (dense + kept) + bits, rel=0.02)
    assert document["size_bytes"] < 4 * (dense + 5 * 64 * 64)
    assert json.loads((folder / "config.json").read_text())["architecture"]["method"] == "rare_gem"
