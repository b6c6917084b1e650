"""Interactions to train on, and the command that trains."""

import gzip
import sys
from dataclasses import dataclass

import numpy as np
import pytest
from commands import signals_kept

from models.training.__main__ import main


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    def refusal(self) -> str:
        """Return the only line of a command that refused its input before it began."""
        assert (self.code, self.err.count("\n"), self.out) == (2, 1, ""), self
        assert self.err.startswith("error: ")
        return self.err


@pytest.fixture
def cocorr_train(capfd, monkeypatch):
    """Runs cocorr-train in this process, from its first line to its exit code."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["cocorr-train", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended, signals_kept():
            main()
        return Ended(ended.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    """80 users who walk through 300 items in steps of one, so that there is something to learn."""
    path = tmp_path_factory.mktemp("data") / "walks.tsv.gz"
    rng = np.random.default_rng(0)
    rows = ["user\titem\ttimestamp"]
    for user in range(80):
        start, length = rng.integers(0, 300), rng.integers(1, 30)
        rows += [f"{user}\t{(start + step) % 300 + 1000}\t{step * 60}" for step in range(length)]
    path.write_bytes(gzip.compress("\n".join(rows).encode()))
    return path
