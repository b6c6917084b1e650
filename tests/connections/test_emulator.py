"""ARM64 code for real: the three runtimes on emulated processors, out of the installed bundle."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle import installed
from commands import Ended, cocorr_export, run_here

from exporter.connections import bundle, connect, ways
from exporter.connections.bundle import pins
from exporter.core.errors import ArtifactError, RuntimeCrashError, RuntimeMissingError, RuntimeTimeoutError

pytestmark = pytest.mark.timeout(1200)  # whoever comes first installs the bundle

MODELS = {"onnx": "tiny_onnx", "tflite": "tiny_tflite", "executorch": "tiny_pte"}
NAMES = {
    "onnx": "ONNX Runtime 1.31.1 (CPUExecutionProvider)",
    "tflite": "LiteRT 2.3.0",
    "executorch": "ExecuTorch 1.4.1 (native runner)",
}


@pytest.fixture
def emulator(shared_folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed(shared_folder)))
    return connect("emulator", {"cpu": "cortex-a53"})


@pytest.mark.parametrize("target", sorted(MODELS))
def test_runs_arm_kernels_and_tells_no_time(target, emulator, make_request, expected, request):
    result = emulator.run(make_request(target, request.getfixturevalue(MODELS[target]), iterations=5))
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    assert result.executed_on.startswith(f"{NAMES[target]} on aarch64 Linux, cortex-a53 emulated by qemu 10.")
    assert (result.samples_us, result.load_ms, result.first_us, result.peak_rss_bytes) == ((), None, None, None)
    assert "say nothing about a real one" in result.reason
    again = [emulator.run(make_request(target, request.getfixturevalue(MODELS[target]))) for _ in range(2)]
    counts = [one.instructions for one in (result, *again)]
    # The runner marks the method itself; round the others lies a little of Python.
    assert max(counts) - min(counts) <= (0 if target == "executorch" else 0.001 * min(counts)), counts
    assert 500 < min(counts) < 10**6


def test_faults_in_the_emulator(emulator, make_request, tiny_onnx, tiny_pte, tmp_path, own_temporary_folder):
    broken = tmp_path / "broken.pte"
    broken.write_bytes(tiny_pte.read_bytes()[:200])
    with pytest.raises(RuntimeCrashError, match="no program that this ExecuTorch can load"):
        emulator.run(make_request("executorch", broken))
    request = make_request("executorch", tiny_pte)
    short = {name: array[:, :, :5] for name, array in request.inputs.items()}
    with pytest.raises(ArtifactError, match=r"\[1, 10\] in the model, \[1, 5\] in the request"):
        emulator.run(replace(request, inputs=short))
    with pytest.raises(RuntimeTimeoutError, match=r"within 0\.2 s"):
        emulator.run(make_request("onnx", tiny_onnx, time_limit_s=0.2))
    assert list(own_temporary_folder.iterdir()) == []


@pytest.fixture
def exported_for_arm(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Ended:
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed(shared_folder)))
    options = ("--target", "all", "--profile", "android-emulator", "--output", tmp_path, "--json")
    return run_here(capfd, "scn", *options)


def test_the_command_proves_all_runtimes_on_arm(exported_for_arm: Ended) -> None:
    assert exported_for_arm.code == 0, exported_for_arm.err
    artifacts = {one["target"]: one for one in exported_for_arm.document["artifacts"]}
    assert artifacts.keys() == MODELS.keys()
    for target, one in artifacts.items():
        assert (one["parity"]["verdict"], one["parity"]["cases"]) == ("pass", 256)
        where = f"{NAMES[target]} on aarch64 Linux, cortex-a76 emulated"
        assert one["parity"]["executed_on"].startswith(where)
        assert (one["latency"]["p50_us"], one["memory"]["peak_rss_bytes"]) == (None, None)
        assert "emulated processor" in one["latency"]["reason"]
        assert one["latency"]["instructions"] > one["flops"]["macs"] / 4  # no instruction makes more fp32 MACs than 4


def test_half_floats_and_a_data_file_on_arm(
    shared_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """XNNPACK must see that the processor computes in 16 bits, and the runner must swap weights that lie outside."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed(shared_folder)))
    options = ("--target", "executorch", "--profile", "android-emulator", "--output", tmp_path, "--json")
    half = run_here(capfd, "scn", *options, "--precision", "fp16")
    assert (half.code, half.document["parity"]["verdict"]) == (0, "pass"), half.err
    outside = run_here(capfd, "ofa", "--program", "subnet_external", *options)
    assert (outside.code, outside.document["parity"]["verdict"]) == (0, "pass"), outside.err
    assert outside.document["external"]["data_file"]["name"] == "weights.ptd"
    assert "native runner" in outside.document["parity"]["executed_on"]


def test_a_second_installation_needs_nothing(shared_folder: Path, tmp_path: Path) -> None:
    cache = installed(shared_folder)
    offline = {"XDG_CACHE_HOME": str(cache), "PATH": "/nowhere", "PIP_NO_INDEX": "1"}
    again = cocorr_export("emulator", "install", env=offline)
    assert (again.code, again.noise()) == (0, [])
    lock = json.loads(next(cache.glob("cocorr-export/emulator/arm64-*/bundle.json")).read_text())
    named = {part["name"]: part for part in lock["parts"]}
    assert all(len(part["sha256"]) == 64 for part in named.values())
    assert {name: named[name]["version"] for name in pins.WHEELS} == {
        name: wheel.version for name, wheel in pins.WHEELS.items()
    }
    assert not (cache / "cocorr-export" / "emulator" / "downloads").exists()


def test_not_installed_is_unverified_and_names_the_command(make_request, tiny_onnx, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(RuntimeMissingError, match="get it with: cocorr-export emulator install"):
        connect("emulator", {"cpu": "cortex-a53"}).run(make_request("onnx", tiny_onnx))
    row = next(row for row in json.loads(doctor(tmp_path)) if row["connection"] == "emulator")
    assert (row["ready"], row["packages"]) == (False, {"ARM64 bundle": None})
    assert row["install"] == f"the ARM64 bundle is not installed; get it with: {bundle.INSTALL}"


def test_what_is_missing_names_the_command_of_this_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    there = {"apt-get", "brew", "dnf"}
    monkeypatch.setattr(shutil, "which", lambda name: name if name in there else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for manager, how in (
        ("apt-get", "get it with: sudo apt-get install adb"),
        ("dnf", "get it with: sudo dnf install android-tools"),
        ("brew", "get it with: brew install --cask android-platform-tools"),
        ("", "install Android's SDK Platform-Tools"),
    ):
        rows = {row["connection"]: row["install"] for row in ways([])}
        assert rows["adb"] == f"adb is not on the PATH; {how}"
        assert bundle.INSTALL not in rows["emulator"]  # apt-cache is not there
        there.discard(manager)


def doctor(cache: Path) -> str:
    found = cocorr_export("doctor", "--json", env={"XDG_CACHE_HOME": str(cache)})
    return json.dumps(found.document["connections"])


FAKE_APT = {
    "no archive": ("exit 0", "", "error: the apt sources of this machine name no Debian archive; add one to them"),
    "no packages": (
        "echo 'E: Unable to locate package libc6' >&2; exit 100",
        "deb http://127.0.0.1:9/debian stable main",
        "error: apt could not read the package lists: E: Unable to locate package libc6",
    ),
}


@pytest.mark.parametrize("fault", sorted(FAKE_APT))
def test_an_installation_that_cannot_be_made_is_one_line(fault: str, tmp_path: Path) -> None:
    script, source, words = FAKE_APT[fault]
    tools, sources = tmp_path / "bin", tmp_path / "sources.list"
    tools.mkdir()
    sources.write_text(source)
    for name, body in {"apt-get": script, "apt-cache": script, "dpkg": script}.items():
        (tools / name).write_text(f"#!/bin/sh\n{body}\n")
    (tools / "apt-config").write_text(f"#!/bin/sh\necho \"LIST='{sources}'\"\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)
    cache = tmp_path / "cache"
    ended = cocorr_export("emulator", "install", env={"XDG_CACHE_HOME": str(cache), "PATH": f"{tools}:/usr/bin:/bin"})
    assert (ended.code, ended.error_line()) == (2, words)
    assert not list(cache.glob("cocorr-export/emulator/arm64-*"))
