"""The tests' own browser: all of it ends with whoever started it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from browser import LIMIT_S, Browser
from chromium import chromium

HELD = """
import sys
from pathlib import Path
from browser import Browser
from chromium import chromium

browser = Browser(chromium(Path(sys.argv[1])), Path(sys.argv[2]))
browser.new_page().open("about:blank")
print("open", flush=True)
input()
"""


def started(folder: Path) -> list[str]:
    """Return the command lines of running processes that name a folder."""
    lines = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().decode(errors="replace")
        except OSError:  # it has ended meanwhile
            continue
        if str(folder) in words and "remote-debugging-pipe" in words:
            lines.append(words)
    return lines


def test_nothing_is_left(shared_folder: Path, tmp_path: Path) -> None:
    with Browser(chromium(shared_folder), tmp_path) as browser:
        browser.new_page().open("about:blank")
        assert started(tmp_path)
    assert started(tmp_path) == []


def test_nothing_outlives_a_kill(shared_folder: Path, tmp_path: Path) -> None:
    chromium(shared_folder)  # fetched here, or skipped
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    words = [sys.executable, "-c", HELD, str(shared_folder), str(tmp_path)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "open\n"
        assert started(tmp_path)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + LIMIT_S
    while started(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert started(tmp_path) == []
