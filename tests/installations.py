"""What a command installs, had once for all test processes, in a cache folder of the tests' own."""

import fcntl
import json
import os
from pathlib import Path

import pytest
from commands import cocorr_export


def installed_once(base: Path, part: str, lacking: tuple[str, ...]) -> Path:
    """Return the cache folder (XDG_CACHE_HOME) into which `cocorr-export PART install` has installed its things.

    Skips where the machine lacks what it takes: `lacking` is how the errors begin that say so. COCORR_TEST_CACHE names
    a folder that outlives the tests, for those who run them often.
    """
    folder = Path(os.environ.get("COCORR_TEST_CACHE") or base / "cache")
    folder.mkdir(parents=True, exist_ok=True)
    record = base / f"{part}.json"
    with (base / f"{part}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            ended = cocorr_export(part, "install", env={"XDG_CACHE_HOME": str(folder)}, limit_s=900)
            record.write_text(json.dumps([ended.code, ended.err]))
        code, errors = json.loads(record.read_text())
    words = errors.strip().splitlines()[-1] if errors.strip() else ""
    if code == 2 and words.startswith(lacking):
        pytest.skip(f"{part} cannot be installed: {words}")
    assert code == 0, errors
    return folder
