"""The project as a wheel: one import name beside anybody's folders, its own metadata, and commands without torch."""

import base64
import csv
import hashlib
import importlib.metadata
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "building"))
import one_name  # noqa: E402 - the build backend, which nothing else imports

# A user's project: folders that are called as the rooms of this repository are, and a Python without torch.
FOREIGN = "raise SystemExit('a folder of the user was imported: ' + __name__)"
NO_TORCH = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec
absent = {"torch", "executorch"}
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in absent else find(name, *rest)
"""
# Imports all that the wheel has, then the models, whose modules are named in texts, and lists what they have.
ALL = """
import importlib, pkgutil, sys
import cocorr
from cocorr.__main__ import main
from cocorr.models import zoo

for module in pkgutil.walk_packages(cocorr.__path__, "cocorr."):
    importlib.import_module(module.name)
for name in zoo.MODELS:
    zoo.load_spec(name)
assert not {"exporter", "models", "safeio", "device_profiles"} & sys.modules.keys()
from cocorr.exporter.artifact.results import Report
from cocorr.exporter.report.html import html
assert html(Report(artifacts=())).startswith("<!doctype html>")  # its templates are files beside it
sys.argv[1:] = ["list", "programs", "--json"]
main()
"""


@pytest.fixture(scope="module")
def wheel(shared_folder: Path) -> Path:
    """The wheel of this checkout, built once, without a network, by the backend that pip would call."""
    with FileLock(shared_folder / "wheel.lock"):
        place = shared_folder / "wheel"
        if not place.exists():
            source = shared_folder / "source"
            source.mkdir()
            kept = ("building", "cocorr", "device_profiles", "exporter", "models", "safeio")
            for name in (*kept, "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
                (source / name).symlink_to(ROOT / name)
            place.mkdir()
            build = f"import one_name; one_name.build_wheel({str(place)!r})"
            environment = {**os.environ, "PYTHONPATH": str(ROOT / "building")}
            subprocess.run([sys.executable, "-c", build], cwd=source, env=environment, capture_output=True, check=True)
        return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def project(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a user with packages called `exporter`, `models` and so on; beside it the wheel, unpacked."""
    folder = tmp_path_factory.mktemp("user")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    (folder / "refusing").mkdir()
    (folder / "refusing" / "sitecustomize.py").write_text(NO_TORCH)
    for room in one_name.ROOMS:
        (folder / "project" / room).mkdir(parents=True)
        (folder / "project" / room / "__init__.py").write_text(FOREIGN)
    return folder / "project"


def run(project: Path, *words: str | Path, torch: bool = False) -> subprocess.CompletedProcess[str]:
    """Run Python with the wheel's packages in the user's folder, which is the first place where it looks."""
    site = project.parent / "site"
    path = [site] if torch else [project.parent / "refusing", site]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run([sys.executable, *words], cwd=project, env=environment, capture_output=True, text=True)


def test_the_wheel_has_one_name_and_a_true_record(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        info = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
        assert {name.partition("/")[0] for name in names} == {"cocorr", info}
        assert archive.read(f"{info}/top_level.txt") == b"cocorr\n"
        rows = list(csv.reader(io.StringIO(archive.read(f"{info}/RECORD").decode())))
        assert [row[0] for row in rows] == names
        for name, digest, size in rows[:-1]:
            content = archive.read(name)
            own = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            assert (digest, int(size)) == (f"sha256={own}", len(content))
    for kept in ("exporter/cli.py", "models/pretrained/scn/golden.npz", "device_profiles/generic.yaml", "py.typed"):
        assert f"cocorr/{kept}" in names
    about = importlib.metadata.PathDistribution(zipfile.Path(wheel, f"{info}/")).metadata
    assert about["Author"] and about["License-Expression"] == "MIT" and f"{info}/licenses/LICENSE" in names
    assert about.get_payload().startswith("# cocorr-export")
    assert not [line for line in about.get_all("Requires-Dist") or () if "torch" in line and "extra ==" not in line]


def test_imports_are_renamed_where_they_stand_and_texts_are_refused() -> None:
    source = (
        '"""exporter.core"""\nif 1:\n    é = 2; from  exporter.core import (\n  types)\nimport os, models.zoo as zoo\n'
    )
    renamed = source.replace("from  exporter", "from  cocorr.exporter").replace(", models", ", cocorr.models")
    assert one_name.renamed(source.encode(), "a.py") == renamed.encode()
    for text in ("import exporter.core", "x = 'models.zoo'", "x = f'from exporter.core import {y}'"):
        with pytest.raises(ValueError, match=r"^a\.py:1: "):
            one_name.renamed(text.encode(), "a.py")


def test_every_module_is_found_beside_folders_of_the_same_names(project: Path) -> None:
    done = run(project, "-c", ALL, torch=True)
    assert done.returncode == 0, done.stderr
    assert {"scn", "ofa", "mamba4rec"} <= {row["model"] for row in json.loads(done.stdout)["programs"]}


def test_what_runs_artifacts_needs_no_torch(project: Path, artifacts: dict[str, Path]) -> None:
    for target in ("tflite", "coreml"):
        done = run(project, "-m", "cocorr", "parity", artifacts[target], "--json")
        assert (done.returncode, done.stdout[:1]) == (0, "{"), done.stderr
    own = shutil.copytree(artifacts["onnx"], project / "onnx")
    done = run(project, "-m", "cocorr", "profile", own, "--iterations", "20", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["flops"]["total"] > 0 and figures["latency"]["p50_us"] > 0
    assert "torch is not installed; get it with: pip install " in figures["growth"]["reason"]
    cases = np.load(artifacts["coreml"] / "golden.npz")
    first = {name: cases[name][0] for name in cases.files}
    np.savez(project / "in.npz", **{name[7:]: array for name, array in first.items() if name.startswith("inputs.")})
    package = artifacts["coreml"] / "model.mlpackage"
    done = run(project, "-m", "cocorr", "run", package, "--inputs", "in.npz", "--outputs", "out.npz")
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(project / "out.npz")["scores"], first["outputs.scores"], atol=1e-4)


def test_what_lowers_or_trains_says_how_to_get_torch(project: Path, artifacts: dict[str, Path]) -> None:
    (project / "clicks.csv").write_text("user,item,timestamp\na,b,1\n")
    assert "hidden_state" in run(project, "-m", "cocorr", "list", "programs").stdout
    for words in (
        ["cocorr", "scn", "--target", "onnx"],
        ["cocorr", "import", "weights.pt", "--as", "recbole-sasrec", "--output", "checkpoint"],
        ["cocorr", "parity", artifacts["executorch"]],
        ["cocorr.models.training", "scn", "--data", "clicks.csv", "--output", "checkpoint"],
    ):
        done = run(project, "-m", *words)
        lines = [line for line in done.stderr.splitlines() if not line.startswith("... ")]
        assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
        assert "torch" in lines[0] and " with: pip install " in lines[0], lines
    assert not (project / "checkpoint").exists()


def test_a_module_that_is_no_command_does_not_pretend_to_be_one(project: Path) -> None:
    done = run(project, "-m", "cocorr.exporter.pipeline.parity", "artifact")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("error: cocorr.exporter.pipeline.parity is no command")
