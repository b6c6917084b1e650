"""The benchmark of browsers still runs: Chromium has a row with its figures, what is missing one that says so."""

import os
import subprocess
import sys
from pathlib import Path

from chromium import chromium
from commands import BENCHMARKS
from web_packages import web_packages


def test_browsers_that_are_here_have_figures_and_others_a_reason(
    artifacts: dict[str, Path], shared_folder: Path, tmp_path: Path
) -> None:
    program, cache = chromium(shared_folder), web_packages(shared_folder)
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "chromium").symlink_to(program)
    # Whatever other browsers this machine has, on this PATH there are none; Chromium's script needs a shell's words.
    for name in ("sh", "env"):
        (programs / name).symlink_to(f"/usr/bin/{name}")
    command = [sys.executable, BENCHMARKS / "browsers.py", artifacts["onnx"], "--calls", "20"]
    variables = {**os.environ, "PATH": str(programs), "XDG_CACHE_HOME": str(cache)}
    ended = subprocess.run(command, capture_output=True, text=True, check=True, env=variables, timeout=1000)
    heading, _, *rows = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines()]
    assert [len(row) for row in rows] == [len(heading)] * 3, ended.stdout
    chromium_row = dict(zip(heading, rows[0], strict=True))
    assert chromium_row["browser"].startswith("headless Chrome")
    assert (chromium_row["verdict"], chromium_row["isolated"]) == ("pass", "yes")
    assert float(chromium_row["p50, µs"].replace(",", "")) > 0
    assert [row[1] for row in rows[1:]] == [
        "Firefox: null (no firefox is on the PATH)",
        "WebKitGTK: null (no WebKitWebDriver is on the PATH)",
    ]
