"""`make export` on an ordinary machine: where torch comes from, and that a CUDA build never does.

Indexes are folders here: one has torch as the Python Package Index has it for Linux, one as PyTorch's index of CPU
builds has it. pip decides as it would, and writes nothing but what it decided.
"""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CUDA, CPU = ("2.13.0", "triton==3.7.1"), ("2.13.0+cpu", "")
# Stands for a Python that makes a virtual environment in no time.
PYTHON = (
    '#!/bin/sh\ncase "$1" in -m) mkdir -p "$3/bin"; ln -s "{python}" "$3/bin/python";; *) exec "{python}" "$@";; esac\n'
)


def index(folder: Path, version: str, requires: str) -> str:
    """Make an index that has one build of torch; return its URL."""
    place = folder / "torch"
    place.mkdir(parents=True)
    name, info = f"torch-{version}-py3-none-any.whl", f"torch-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", "Name: torch", f"Version: {version}"]
    lines += [f"Requires-Dist: {requires}"] if requires else []
    with zipfile.ZipFile(place / name, "w") as archive:
        archive.writestr(f"{info}/METADATA", "\n".join(lines))
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    (place / "index.html").write_text(f'<a href="{name}">{name}</a>')
    return folder.as_uri()


@pytest.mark.parametrize(
    ("configured", "other", "ending"),
    [
        (CPU, None, "Would install torch-2.13.0+cpu"),
        (CUDA, CPU, "Would install torch-2.13.0+cpu"),
        (CUDA, CUDA, "error: no CPU build of torch==2.13.0 in reach; name an index that has one: make TORCH_INDEX=URL"),
    ],
)
def test_pip_as_it_is_configured_then_the_index_of_cpu_builds_and_never_cuda(
    configured: tuple[str, str], other: tuple[str, str] | None, ending: str, tmp_path: Path
) -> None:
    for name in ("Makefile", "constraints.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / "python"
    python.write_text(PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    second = (tmp_path / "nowhere").as_uri() if other is None else index(tmp_path / "second", *other)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "MAKE", "MFLAGS"))}
    configuration = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": index(tmp_path / "first", *configured)}
    environment = {**clean, **configuration, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    decide = ".venv/bin/python -m pip install --dry-run --ignore-installed --no-cache-dir --constraint constraints.txt"
    words = ["make", ".venv/.torch", f"PYTHON={python}", f"TORCH_INDEX={second}", f"PIP={decide}"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ending in done.stdout.splitlines(), done
    installs = ending.startswith("Would")
    assert (done.returncode, (tmp_path / ".venv" / ".torch").exists()) == (0 if installs else 2, installs)
    assert (f"trying {second}" in done.stdout) is (configured is CUDA)


def test_a_python_that_is_too_new_is_refused(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "constraints.txt").touch()
    done = subprocess.run(["make", ".venv/.torch", "PYTHON=false"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, (tmp_path / ".venv").exists()) == (2, False)
    assert "error: Python 3.11 to 3.13 is needed" in done.stdout
