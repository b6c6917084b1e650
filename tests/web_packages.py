"""What runs artifacts in a browser, installed once for all test processes, into a cache folder of the tests' own."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from commands import cocorr_export

from exporter.connections import cache
from exporter.connections.browser import packages
from exporter.pipeline import reach

# What a machine may lack: everything else that goes wrong in an installation is a failure.
LACKING = ("error: npm could not fetch", "error: npm, from which")


def web_packages(base: Path) -> Path:
    """Return the cache folder (XDG_CACHE_HOME) that holds the pinned packages; skips where npm cannot fetch them.

    Where this user has them, those are taken. COCORR_TEST_CACHE names a folder that outlives the tests, for those who
    run them often.
    """
    if all(map(packages.is_whole, reach.web_packages())):
        return cache.cache_folder("browser").parent.parent
    folder = Path(os.environ.get("COCORR_TEST_CACHE") or base / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    record = base / "web_packages.json"
    with (base / "web_packages.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            ended = cocorr_export("browser", "install", env={"XDG_CACHE_HOME": str(folder)}, limit_s=900)
            record.write_text(json.dumps([ended.code, ended.err]))
        code, errors = json.loads(record.read_text())
    words = errors.strip().splitlines()[-1] if errors.strip() else ""
    if code == 2 and words.startswith(LACKING):
        pytest.skip(f"no runtimes for browsers: {words}")
    assert code == 0, errors
    return folder
