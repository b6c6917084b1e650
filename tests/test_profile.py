"""`cocorr-export profile` as a user runs it: all figures of an artifact, on one screen and in its manifest."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Ended, run_here
from torch.utils.flop_counter import FlopCounterMode

from exporter.artifact import store
from exporter.pipeline import ProgramChoice, lengths
from exporter.pipeline import source as sources

Capfd = pytest.CaptureFixture[str]


@pytest.fixture
def artifact(artifacts: dict[str, Path], tmp_path: Path) -> Path:
    """A copy of the shipped SCN's ONNX artifact."""
    return Path(shutil.copytree(artifacts["onnx"], tmp_path / "artifact"))


def test_what_cannot_run_where_it_should_takes_no_figures_away(
    artifact: Path, tmp_path: Path, capfd: Capfd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "no bundle"))
    before = (artifact / "manifest.json").read_bytes()
    ended = run_here(capfd, "profile", artifact, "--connection", "emulator")
    assert (ended.code, "emulator install" in ended.error_line()) == (2, True), ended.err
    assert (artifact / "manifest.json").read_bytes() == before


def test_everything_is_measured_and_lands_in_the_manifest(artifact: Path, capfd: Capfd) -> None:
    before = store.read_manifest(artifact)
    ended = run_here(capfd, "profile", artifact, "--iterations", "30", "--samples", "--json")
    assert (ended.code, ended.noise()) == (0, []), ended.err
    document = ended.document
    manifest = json.loads((artifact / "manifest.json").read_text())
    samples = document.pop("samples_us")
    assert document == {**manifest, "artifact": str(artifact)}
    after = store.read_manifest(artifact)
    assert (after.files, after.parity, after.inputs) == (before.files, before.parity, before.inputs)
    assert store.changed_file(artifact, after) is None
    memory, latency = manifest["memory"], manifest["latency"]
    by_count = 11 * (10 + 2 * 64 + 10) * 4  # mark, rotation, row of eta of 0 to 10 clicks
    assert memory["embedding_bytes"] == 12_103 * 64 * 4 + by_count  # a row more, for ids out of range
    parts = sum(memory[f"{part}_bytes"] for part in ("embedding", "body", "head"))
    assert parts == memory["constant_bytes"]
    assert memory["peak_rss_bytes"] - memory["baseline_rss_bytes"] == memory["artifact_rss_bytes"] > parts
    assert len(samples) == latency["iterations"] == 30
    assert min(samples) <= latency["p50_us"] <= latency["p90_us"] <= latency["p99_us"] <= max(samples)
    growth = manifest["growth"]
    assert [point["tokens"] for point in growth["points"]] == [10, 15, 20, 25]
    assert growth["points"][0]["flops"] == manifest["flops"]["total"] == before.flops.total
    assert growth["module_hook_macs_per_token"] == 16_640
    macs = [point["macs"] for point in growth["points"]]
    source = sources.load(ProgramChoice("scn"))
    for tokens, counted in zip([10, 15, 20, 25], macs, strict=True):
        captured = lengths.Lowering("onnx", "fp32", before.options).captured(lengths.lengthened(source, 25), tokens)
        case = {name: torch.from_numpy(array.copy()) for name, array in captured.examples.items()}
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            captured.exported.module()(**case)
        assert counter.get_total_flops() == 2 * counted
    flops = [point["flops"] for point in growth["points"]]
    slope = np.polyfit([10, 15, 20, 25], flops, 1)[0]
    assert manifest["flops"]["per_token"] == growth["lines"]["flops"]["per_token"] == pytest.approx(slope, rel=1e-6)
    assert all(growth["lines"].values())
    assert manifest["network"] is None  # rerank keeps to the device


def test_the_cost_of_attention_grows_with_the_length(small_ofa: Path, tmp_path: Path, capfd: Capfd) -> None:
    """Each further click of a causal transformer costs more than the one before; its table of positions is longer
    than the trained one then."""
    options = ("--checkpoint", small_ofa, "--target", "onnx", "--output", tmp_path, "--json")
    made = run_here(capfd, "ofa", "--program", "subnet", "--structure", "111", *options)
    assert made.code == 0, made.err
    ended = run_here(capfd, "profile", made.document["artifact"], "--checkpoint", small_ofa, "--iterations", "5")
    assert ended.code == 0, ended.err
    steps = store.read_manifest(Path(made.document["artifact"])).growth.lines.flops.steps
    assert list(steps) == sorted(steps) and steps[-1] > 1.01 * steps[0]
    assert "FLOPs per click from point to point" in ended.out


def test_one_screen_says_all(artifact: Path, capfd: Capfd) -> None:
    ended = run_here(capfd, "profile", artifact, "--iterations", "20", "--against", artifact)
    assert ended.code == 0, ended.err
    lines = ended.out.splitlines()
    for part in ("compute", "memory", "latency", "per click", "comparison"):
        assert any(line.startswith(part) for line in lines), part
    assert "module-hook count: 16,640 MACs per click" in ended.out
    assert len(lines) <= 45
    (ratio,) = (float(line.split()[1].rstrip(",")) for line in lines if line.startswith("ratio "))
    assert 0.5 < ratio < 2  # the same artifact twice


def test_the_exchange_of_a_program_over_the_links_of_its_profile(tmp_path: Path, capfd: Capfd) -> None:
    where = ("--target", "onnx", "--profile", "host", "--output", tmp_path, "--json")
    made = run_here(capfd, "scn", "--program", "hidden_state", *where)
    ended = run_here(capfd, "profile", made.document["artifact"], "--iterations", "20", "--json")
    network = ended.document["network"]
    assert (network["up"], network["up_bytes"], network["down_bytes"]) == ({"hidden_state": 2560}, 2560, 0)
    assert len(network["links"]) >= 3
    for link in network["links"]:
        wait = link["round_trip_ms"] or 0
        assert link["total_ms"] == pytest.approx(link["up_ms"] + link["down_ms"] + wait)
        calls = 1e3 * link["total_ms"] / ended.document["latency"]["p50_us"]
        assert link["device_calls_meanwhile"] == pytest.approx(calls)


def test_what_has_no_formula_is_listed_and_fails_if_strict(artifact: Path, capfd: Capfd) -> None:
    onnx = pytest.importorskip("onnx")
    file = artifact / "model.onnx"
    model = onnx.load(file)
    last = model.graph.node[-1]
    last.output[0], output = "before", last.output[0]
    model.graph.node.append(onnx.helper.make_node("HardSwish", ["before"], [output]))
    onnx.save(model, file)
    store.write_manifest(artifact, replace(store.read_manifest(artifact), files=store.list_files(artifact)))
    for options, code in (((), 0), (("--strict",), 1)):
        ended = run_here(capfd, "profile", artifact, "--iterations", "5", *options)
        assert (ended.code, "not counted: HardSwish x1" in ended.out) == (code, True), ended.err


def test_other_lengths_need_the_checkpoint_that_the_artifact_comes_from(
    artifact: Path, small_ofa: Path, capfd: Capfd
) -> None:
    """Without it the figures of the file are still there, and per click is null with the reason."""
    manifest = store.read_manifest(artifact)
    source = replace(manifest.source, checkpoint_sha256="0" * 64)
    store.write_manifest(artifact, replace(manifest, source=source))
    ended = run_here(capfd, "profile", artifact, "--iterations", "5", "--json")
    assert ended.code == 0
    flops, growth = ended.document["flops"], ended.document["growth"]
    assert (flops["total"] > 0, flops["per_token"], growth["lines"]) == (True, None, None)
    assert "is not the checkpoint of this artifact; give it: --checkpoint" in flops["per_token_reason"]
    told = run_here(capfd, "profile", artifact, "--iterations", "5", "--checkpoint", small_ofa)
    assert (told.code, "no other lengths: " in told.err) == (0, True), told.err


@pytest.mark.parametrize("damage", ["gone", "changed", "no artifact", "few"])
def test_bad_input_is_one_line_and_changes_nothing(damage: str, artifact: Path, capfd: Capfd) -> None:
    file, manifest = artifact / "model.onnx", artifact / "manifest.json"
    arguments: list[str | Path] = [artifact]
    if damage == "gone":
        file.unlink()
    elif damage == "changed":
        file.write_bytes(file.read_bytes()[:-1])
    elif damage == "no artifact":
        arguments = [artifact.parent]
    else:
        arguments += ["--against", artifact, "--iterations", "19"]
    before = manifest.read_bytes()
    ended: Ended = run_here(capfd, "profile", *arguments)
    assert ended.code == 2, ended.err
    assert ended.error_line().startswith("error: ")
    assert manifest.read_bytes() == before
