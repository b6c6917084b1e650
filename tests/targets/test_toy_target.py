"""A target is one folder and one line: a toy target, put into a copy of the project, is all that a target is."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commands import Ended

from exporter.targets import TARGETS

ROOT = Path(__file__).resolve().parents[2]
TOY = Path(__file__).with_name("toy")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the exporter with the toy's folder among the targets, and its one line."""
    project = tmp_path_factory.mktemp("project")
    nothing_compiled = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "exporter", project / "exporter", ignore=nothing_compiled)
    shutil.copytree(TOY, project / "exporter" / "targets" / "toy", ignore=nothing_compiled)
    for same in ("models", "safeio", "device_profiles"):
        (project / same).symlink_to(ROOT / same)
    table = project / "exporter" / "targets" / "__init__.py"
    source = table.read_text()
    assert source.count('    "tflite",\n') == 1
    table.write_text(source.replace('    "tflite",\n', '    "tflite",\n    "toy",\n'))
    return project


def command(project: Path, *arguments: str | Path) -> Ended:
    """Run the copy's command, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "exporter", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(project)},
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def device(project: Path, tmp_path: Path) -> Path:
    """The profile of a device that runs toys, sadly."""
    path = tmp_path / "playroom.yaml"
    path.write_text("name: playroom\ntargets: {toy: {mood: sad}}\n")
    return path


def test_an_artifact_is_made_run_and_judged(project: Path, device: Path, tmp_path: Path) -> None:
    ended = command(project, "scn", "--target", "toy", "--profile", device, "--output", tmp_path, "--json")
    assert ended.code == 0, ended.err
    document = ended.document
    assert (document["target"], document["options"], document["model_file"]) == ("toy", {"mood": "sad"}, "model.json")
    assert (document["parity"]["verdict"], document["parity"]["cases"]) == ("pass", 256)
    assert document["parity"]["executed_on"].startswith("Toy 2.13.0")
    assert "(sad) on " in document["parity"]["executed_on"]
    assert document["latency"]["p50_us"] > 0
    assert "aten.embedding.default" in json.dumps(document["flops"]["uncounted"])
    assert "torch" in document["source"]["versions"]
    again = command(project, "parity", document["artifact"], "--json")
    assert (again.code, again.document["parity"]["verdict"]) == (0, "pass"), again.err


def test_it_is_listed_and_its_options_are_checked(project: Path, device: Path, tmp_path: Path) -> None:
    listed = command(project, "list", "targets", "--json").document["targets"]
    assert {"target": "toy", "extra": "toy", "precisions": "fp32"} in listed
    ready = {row["target"]: row for row in command(project, "doctor", "--json").document["targets"]}
    assert (list(ready["toy"]["packages"]), ready["toy"]["ready"]) == (["torch"], True)
    device.write_text("name: playroom\ntargets:\n  toy: {mood: angry}\n")
    refused = command(project, "scn", "--target", "toy", "--profile", device, "--output", tmp_path)
    assert refused.code == 2
    assert refused.error_line() == f"error: {device}:3: targets.toy.mood: 'angry' is not one of 'merry' or 'sad'"
    other = command(project, "scn", "--target", "toys", "--profile", device, "--output", tmp_path)
    assert other.error_line().endswith(f"known: {', '.join(sorted([*TARGETS, 'all', 'toy']))}")
    device.write_text("name: playroom\ntargets: {toy: {mood: sad}}\n")
    words = ("scn", "--target", "toy", "--profile", device, "--precision", "fp16", "--output", tmp_path)
    precise = command(project, *words)
    assert precise.code == 2
    assert precise.error_line() == "error: toy has no fp16, it has fp32; choose another --precision or --target"
