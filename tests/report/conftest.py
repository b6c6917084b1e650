"""A browser for the pages, and the accessibility checker axe-core, each had once."""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Browser, Page
from chromium import chromium
from filelock import FileLock

AXE = "axe-core@4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="


@pytest.fixture(scope="module")
def browser(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser; skips where none can be had."""
    with Browser(chromium(shared_folder), tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture
def page(browser: Browser) -> Page:
    """A new tab."""
    return browser.new_page()


@pytest.fixture(scope="module")
def axe(shared_folder: Path) -> str:
    """The script of axe-core, which defines `axe` in a page; skips where npm does not give it, and says so."""
    folder = Path(os.environ.get("COCORR_TEST_CACHE") or shared_folder / "cache") / "axe"
    archive = folder / "axe-core-4.14.1.tgz"
    failure = shared_folder / "axe.failure"
    with FileLock(f"{shared_folder / 'axe'}.lock"):
        if not archive.exists() and not failure.exists():
            _fetch(folder, failure)
    if failure.exists():
        pytest.skip(f"no {AXE}, so no page was checked for accessibility: {failure.read_text()}")
    content = archive.read_bytes()
    assert base64.b64encode(hashlib.sha512(content).digest()).decode() == AXE_SHA512
    with tarfile.open(archive) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


def _fetch(folder: Path, failure: Path) -> None:
    if shutil.which("npm") is None:
        failure.write_text("npm is not installed")
        return
    folder.mkdir(parents=True, exist_ok=True)
    words = ("npm", "pack", AXE, "--ignore-scripts", "--json", "--pack-destination", str(folder))
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode != 0 or not json.loads(done.stdout):
        failure.write_text(done.stderr[-300:])
