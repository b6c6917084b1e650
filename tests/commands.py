"""The command as a user runs it: in a process of its own, or in this one where starting anew would only cost time."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
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
        """Return the only line that is no progress, of a command that refused its input."""
        lines = self.noise()
        assert len(lines) == 1, self.err
        assert self.out == ""
        return lines[0]


def cocorr_export(*arguments: str | Path, env: dict[str, str] | None = None, limit_s: float = 1100) -> Ended:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [COMMAND, *arguments], capture_output=True, text=True, env={**os.environ, **(env or {})}, timeout=limit_s
    )
    return Ended(done.returncode, done.stdout, done.stderr)


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
