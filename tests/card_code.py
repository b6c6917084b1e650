"""The code of an artifact's card, run as its reader would: saved beside the model, in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filelock import FileLock

PAGE = Path(__file__).with_name("page.mjs")
PACKAGES = ("onnxruntime-web@1.30.0", "@litertjs/core@2.5.3")


def code_of(artifact: Path) -> dict[str, str]:
    """Return the code in the card of an artifact by language."""
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (artifact / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    return dict(blocks)


def packages(shared_folder: Path) -> Path:
    """Return a node_modules with the JavaScript runtimes, once in a session; skips where npm gives none."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("node and npm are not installed: the JavaScript of cards was not run")
    folder = shared_folder / "npm"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            words = ("npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", *PACKAGES)
            done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
            (folder / "failure").write_text("" if done.returncode == 0 else done.stderr[-300:])
    failure = (folder / "failure").read_text()
    if failure:
        pytest.skip(f"npm has no {', '.join(PACKAGES)}: the JavaScript of cards was not run ({failure})")
    return folder / "node_modules"


def run_python(artifact: Path, stand_ins: Path | None = None) -> list[dict[str, Any]]:
    """Run the card's Python and return what it prints; `stand_ins` has modules that come before the installed ones."""
    (artifact / "run.py").write_text(code_of(artifact)["python"])
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([*([str(stand_ins)] if stand_ins else []), root])
    return _printed([sys.executable, "run.py"], artifact, {"PYTHONPATH": path})


def run_javascript(artifact: Path, modules: Path) -> list[dict[str, Any]]:
    """Run the card's JavaScript in node, which `page.mjs` gives the little that these runtimes want of a page."""
    (artifact / "run.mjs").write_text(code_of(artifact)["javascript"])
    (artifact / "node_modules").symlink_to(modules)
    shutil.copytree(modules / "@litertjs" / "core" / "wasm", artifact / "wasm")
    return _printed(["node", "--import", str(PAGE), "run.mjs"], artifact, {})


def _printed(command: list[str], artifact: Path, variables: dict[str, str]) -> list[dict[str, Any]]:
    done = subprocess.run(
        command, cwd=artifact, env={**os.environ, **variables}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def example(artifact: Path) -> dict[str, Any]:
    """Return what example.json has."""
    document: dict[str, Any] = json.loads((artifact / "example.json").read_text())
    return document


def assert_as_expected(printed: list[dict[str, Any]], artifact: Path) -> None:
    """Hold what code printed to the outputs in example.json, within fp32's tolerance."""
    cases = example(artifact)["cases"]
    assert len(printed) == len(cases) > 0
    for outputs, case in zip(printed, cases, strict=True):
        assert outputs.keys() == case["outputs"].keys()
        for name, values in outputs.items():
            expected = np.ravel(case["outputs"][name])
            if expected.dtype.kind == "U":  # raw ids
                np.testing.assert_array_equal(np.ravel(values), expected)
            else:
                np.testing.assert_allclose(np.ravel(values), expected, rtol=0, atol=1e-4)
