"""The main job on the shipped checkpoint: four artifacts, each proved against torch, and each proof repeatable."""

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import Ended, cocorr_export, in_one_process, run_here
from lowering import MODEL_FILES

from exporter import mil
from exporter.artifact import store
from exporter.connections.host import HostConnection
from exporter.core.types import RunRequest, TensorSpec
from exporter.targets import TARGETS
from models import checkpoint
from models.zoo import load_spec

SHIPPED = Path(checkpoint.__file__).parent / "pretrained" / "scn"


def test_four_artifacts_pass(exported: Ended) -> None:
    assert exported.code == 0, exported.err
    documents = {one["target"]: one for one in exported.document["artifacts"]}
    assert set(documents) == set(TARGETS)
    for target, document in documents.items():
        parity = document["parity"]
        assert parity["verdict"] == "pass"
        assert parity["cases"] == 256
        assert 0 < parity["max_abs_error"] <= 1e-4
        assert parity["top10_overlap"] == 1.0
        assert parity["executed_on"]
        assert document["flops"]["uncounted"] == []
        assert document["memory"]["planned_activation_bytes"] > 0
        timed = target != "coreml"  # the reference interpreter's time says nothing about Core ML
        assert (document["latency"]["p50_us"] is not None) == timed
        assert timed or document["latency"]["reason"]
        folder = Path(document["artifact"])
        assert {path.name for path in folder.iterdir()} == {
            *("manifest.json", "golden.npz", "README.md", "example.json"),
            MODEL_FILES[target],
        }
        manifest = json.loads((folder / "manifest.json").read_text())
        assert {**manifest, "artifact": str(folder)} == document


def test_the_counts_of_the_targets_agree(exported: Ended) -> None:
    macs = {one["target"]: one["flops"]["macs"] for one in exported.document["artifacts"]}
    # What ExecuTorch's sums cost, and each target's partners of RoPE, tests/targets/test_counts.py counts by hand.
    assert macs["coreml"] == min(macs.values()) and max(macs.values()) <= 1.09 * macs["coreml"], macs
    assert 0 < macs["executorch"] - macs["tflite"] < 0.01 * macs["tflite"], macs


def test_nothing_but_progress_on_the_screen(exported: Ended) -> None:
    assert exported.noise() == []


def test_hidden_state_is_a_program_without_ranking(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "scn", "--program", "hidden_state", "--target", "onnx", "--output", tmp_path, "--json")
    parity = ended.document["parity"]
    assert (ended.code, parity["verdict"], parity["cases"]) == (0, "pass", 256)
    assert parity["top10_overlap"] is None
    assert ended.document["outputs"] == [{"name": "hidden_state", "shape": [1, 10, 64], "dtype": "float32"}]


def test_core_ml_in_half_precision(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "scn", "--target", "coreml", "--profile", "generic-fp16", "--output", tmp_path, "--json")
    parity = ended.document["parity"]
    assert (ended.code, parity["verdict"]) == (0, "pass"), ended.err
    assert parity["max_abs_error"] > 1e-5  # it is fp16 indeed
    assert parity["top10_overlap"] >= 0.98
    assert ended.document["memory"]["constant_bytes"] < 2_000_000


HALVES, DELEGATES = ("executorch", "onnx", "tflite"), ("portable", "coreml", "vulkan")


@pytest.fixture(scope="module")
def further(tmp_path_factory: pytest.TempPathFactory, shared_folder: Path) -> dict[str, Ended]:
    """The shipped model in half precision by target, and with each delegate of ExecuTorch, by commands."""
    folder = tmp_path_factory.mktemp("further")
    where = ("--json", "--output", folder)
    commands = {target: ("scn", "--target", target, "--precision", "fp16", *where) for target in HALVES}
    for delegate in DELEGATES:
        profile = folder / f"{delegate}.yaml"
        profile.write_text(f"name: {delegate}\ntargets:\n  executorch:\n    delegate: {delegate}\n")
        small = ("--program", "hidden_state")  # Vulkan's partitioner takes half a minute for a whole SCN
        commands[delegate] = ("scn", *small, "--target", "executorch", "--profile", profile, *where)
    return in_one_process(folder / "printed", commands, shared_folder / "lowered")


@pytest.mark.parametrize("target", HALVES)
def test_the_other_targets_in_half_precision(target: str, further: dict[str, Ended]) -> None:
    ended = further[target]
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert ended.document["parity"]["max_abs_error"] > 1e-5
    assert ended.noise() == []


@pytest.mark.parametrize("delegate", DELEGATES)
def test_executorch_delegates(delegate: str, further: dict[str, Ended]) -> None:
    ended = further[delegate]
    parity = ended.document["parity"]
    assert ended.noise() == []
    if delegate == "portable":
        assert (ended.code, parity["verdict"]) == (0, "pass")
    else:
        assert (ended.code, parity["verdict"], parity["max_abs_error"]) == (3, "unverified", None)
        assert "delegate" in parity["reason"]
        assert (Path(ended.document["artifact"]) / "model.pte").stat().st_size > 3_000_000


def rehash(folder: Path) -> None:
    """Make the manifest agree with changed files, as somebody who hides a change would."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"] = [asdict(file) for file in store.list_files(folder)]
    path.write_text(json.dumps(manifest))


@pytest.fixture
def no_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which `import torch` ends the process, also in processes that are started from it."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / "torch.py").write_text("import os\nos._exit(77)\n")
    return {"PYTHONPATH": str(tmp_path / "trap")}


@pytest.mark.parametrize("target", TARGETS)
def test_parity_from_the_folder_alone(
    target: str, artifacts: dict[str, Path], exported: Ended, no_torch: dict[str, str], tmp_path: Path
) -> None:
    moved = shutil.copytree(artifacts[target], tmp_path / "elsewhere")
    env = {} if "torch" in TARGETS[target].runtime.modules else no_torch
    ended = cocorr_export("parity", moved, "--json", env=env)
    assert ended.code == 0, ended.err
    first = next(one for one in exported.document["artifacts"] if one["target"] == target)
    assert ended.document["parity"] == first["parity"]


def flip(path: Path, weights: np.ndarray) -> None:
    """Change the exponent of one weight where `path` stores `weights`."""
    content = bytearray(path.read_bytes())
    at = content.find(weights.tobytes())
    assert at >= 0, f"{path} does not hold the weights as they are"
    content[at + 3] ^= 0x04
    path.write_bytes(content)


@pytest.mark.parametrize("target", TARGETS)
def test_a_changed_weight_byte_fails(
    target: str, artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    state = checkpoint.read(SHIPPED).state
    folder = shutil.copytree(artifacts[target], tmp_path / "artifact")
    model_file = folder / MODEL_FILES[target]
    if target == "coreml":
        model_file = model_file / "Data/com.apple.CoreML/weights/weight.bin"
    flip(model_file, state["initial_weight"].numpy()[0, 0])
    for hidden in (False, True):
        if hidden:
            rehash(folder)
        ended = run_here(capfd, "parity", folder, "--json")
        parity = ended.document["parity"]
        assert (ended.code, parity["verdict"]) == (1, "fail")
        assert ("SHA-256" in parity["reason"]) == (not hidden)
    assert parity["max_abs_error"] > 1e-4


def change_golden(folder: Path, **changed: Any) -> None:
    with np.load(folder / "golden.npz") as archive:
        arrays = dict(archive)
    arrays |= {name.replace("__", "."): change(arrays[name.replace("__", ".")]) for name, change in changed.items()}
    np.savez_compressed(folder / "golden.npz", **arrays)


@pytest.mark.parametrize(
    "change", [lambda x: x[::-1], lambda x: x[:, :, ::-1], lambda x: x * 1.001], ids=["cases", "candidates", "stale"]
)
def test_swapped_or_stale_outputs_fail(
    change: Any, artifacts: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(artifacts["onnx"], tmp_path / "artifact")
    change_golden(folder, outputs__scores=change)
    assert "SHA-256" in run_here(capfd, "parity", folder, "--json").document["parity"]["reason"]
    rehash(folder)
    ended = run_here(capfd, "parity", folder, "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (1, "fail")
    assert ended.document["parity"]["max_abs_error"] > 1e-4


@pytest.mark.parametrize("target", TARGETS)
def test_ids_out_of_range_are_unknown_items_everywhere(target: str, artifacts: dict[str, Path]) -> None:
    """Each id outside the table counts as an item with a zero embedding, in torch and on every target."""
    saved = checkpoint.read(SHIPPED)
    model = checkpoint.build(saved, load_spec("scn"))
    vocabulary = saved.architecture["vocabulary"]
    golden = saved.golden
    items = np.repeat(golden["item_ids"][:1], 4, 0)
    candidates = np.repeat(golden["candidate_ids"][:1], 4, 0)
    for row, bad in enumerate((-1, -(2**31), vocabulary, 2**31 - 1)):
        items[row, row] = bad
        candidates[row, 50:53] = bad
    with torch.no_grad():
        expected = model(torch.from_numpy(items), torch.from_numpy(candidates)).numpy()
    assert np.isfinite(expected).all()
    inputs = {"item_ids": items[:, None], "candidate_ids": candidates[:, None]}
    model_file = artifacts[target] / MODEL_FILES[target]
    if target == "coreml":
        program = mil.load(model_file)
        actual = np.stack([program.run({k: v[i] for k, v in inputs.items()})["scores"] for i in range(4)])
    else:
        outputs = (TensorSpec("scores", (1, 100), "float32"),)
        request = RunRequest(TARGETS[target], model_file, inputs, outputs, warmup=0, iterations=0)
        actual = HostConnection().run(request).outputs["scores"]
    np.testing.assert_allclose(actual[:, 0], expected, atol=1e-4, rtol=0)
    # the same score as the padding row, whose embedding is zero
    with torch.no_grad():
        padding = model(torch.from_numpy(items), torch.zeros(4, 1, dtype=torch.int32)).numpy()
    np.testing.assert_allclose(actual[:, 0, 50:53], np.repeat(padding, 3, 1), atol=1e-4, rtol=0)


def test_the_shipped_checkpoint_is_small_and_has_its_metrics() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= 8_000_000
    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["metrics"]
    assert hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest()
