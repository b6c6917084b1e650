"""The command as a user runs it: in a process of its own, or in this one where starting anew would only cost time."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from exporter import cli

COMMAND = Path(sys.executable).with_name("cocorr-export")
BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def load_benchmark(name: str) -> ModuleType:
    """Return a script of benchmarks/ as a module, to call its parts."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def noise(self) -> list[str]:
        """Return the lines on stderr that are no progress."""
        return [line for line in self.err.splitlines() if not line.startswith("... ")]

    def error_line(self) -> str:
        """Return the only line that is no progress, of a command that refused its input; a document says the same."""
        lines = self.noise()
        assert len(lines) == 1, self.err
        assert self.out == "" or lines == [f"error: {self.document['error']['message']}"]
        return lines[0]


def cocorr_export(*arguments: str | Path, env: dict[str, str] | None = None, limit_s: float = 1100) -> Ended:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=limit_s
    )
    return Ended(done.returncode, done.stdout, done.stderr)


# Runs commands one after the other, each with files of its own for what it prints; writes their exit codes.
ONE_BY_ONE = """
import json, os, sys
from pathlib import Path
from exporter.__main__ import main
from lowered_once import kept_in

commands, kept = json.loads(sys.argv.pop())
codes = {}
for name, arguments in commands.items():
    for number, stream in ((1, "out"), (2, "err")):
        file = os.open(f"{name}.{stream}", os.O_WRONLY | os.O_CREAT)
        os.dup2(file, number)
        os.close(file)
    sys.argv = ["cocorr-export", *arguments]
    try:
        with kept_in(Path(kept)):
            main()
    except SystemExit as ended:
        codes[name] = ended.code or 0
with open("codes.json", "w") as file:
    json.dump(codes, file)
"""


def in_one_process(folder: Path, commands: Mapping[str, Sequence[str | Path]], kept: Path) -> dict[str, Ended]:
    """Run commands by their names in one new process, which imports torch and the vendors once.

    What they lower lies in `kept` for other tests, see lowered_once.py, and may come from there. What a vendor prints
    when it is imported or first used is in what the first command printed that needed it.
    """
    folder.mkdir()
    lines = {name: [str(word) for word in arguments] for name, arguments in commands.items()}
    words = json.dumps([lines, str(kept)])
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", ONE_BY_ONE, words],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    codes = json.loads((folder / "codes.json").read_text())
    return {
        name: Ended(codes[name], *((folder / f"{name}.{stream}").read_text() for stream in ("out", "err")))
        for name in commands
    }


@contextmanager
def signals_kept() -> Iterator[None]:
    """Put the handlers of signals back, which a command that ends leaves to nobody."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def run_here(capfd: pytest.CaptureFixture[str], *arguments: str | Path) -> Ended:
    """Run the command in this process, in the current folder."""
    given, sys.argv = sys.argv, ["cocorr-export", *map(str, arguments)]
    capfd.readouterr()
    code = 0
    try:
        with signals_kept():
            cli.main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        sys.argv = given
    return Ended(code, *capfd.readouterr())
