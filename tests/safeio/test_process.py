"""A process of a command's own ends at once and imports only what is used; one of others stays as it was."""

import gc
import subprocess
import sys
from pathlib import Path

from safeio import process

PROGRAM = """
import atexit, gc, sys, tempfile
from safeio import process

class Slow:
    def __del__(self): print("taken apart")

def main():
    global kept
    kept = Slow()
    kept.itself = kept
    atexit.register(print, "tidied up")
    with process.importing("absent", "json"):
        assert not gc.isenabled()
        import wants
    assert gc.isenabled() and gc.get_freeze_count() > 1000
    import absent
    print(wants.HAS, wants.json.__name__, absent.__name__)
    sys.exit(3)

import json
process.alone(main)
"""


def test_a_process_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "absent.py").touch()
    (tmp_path / "wants.py").write_text(
        "import json\ntry:\n  import absent\n  HAS = 1\nexcept ImportError:\n  HAS = 0\n"
    )
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]\n"
    done = subprocess.run([sys.executable, "-c", path + PROGRAM], capture_output=True, text=True)
    # What is imported already is there all the same.
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["0 json absent", "tidied up"]


def test_elsewhere_all_that_is_installed_is_there() -> None:
    before, collects = gc.get_freeze_count(), gc.isenabled()
    sys.modules.pop("wave", None)
    with process.importing("wave"):
        import wave
    assert wave.__name__ == "wave"
    assert (gc.get_freeze_count(), gc.isenabled()) == (before, collects)
