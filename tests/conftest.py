"""What several test files share: the command line as a user runs it, and the shipped model exported once."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Ended:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    def error_line(self) -> str:
        """Return the only line that is no progress, of a command that refused its input."""
        lines = [line for line in self.err.splitlines() if not line.startswith("... ")]
        assert len(lines) == 1, self.err
        assert self.out == ""
        return lines[0]


def cocorr_export(*arguments: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None) -> Ended:
    """Run the installed command in a process of its own."""
    done = subprocess.run(
        [Path(sys.executable).with_name("cocorr-export"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        timeout=280,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Ended:
    """`cocorr-export scn --target all --json` on the shipped checkpoint, once for all test processes."""
    folder = tmp_path_factory.getbasetemp()
    folder = folder if worker_id == "master" else folder.parent
    record = folder / "exported.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            ended = cocorr_export("scn", "--target", "all", "--output", folder / "exported", "--json")
            record.write_text(json.dumps([ended.code, ended.out, ended.err]))
        return Ended(*json.loads(record.read_text()))


@pytest.fixture(scope="session")
def artifacts(exported: Ended) -> dict[str, Path]:
    """Target -> folder of the shipped SCN's artifact; copy one before you change it."""
    return {one["target"]: Path(one["artifact"]) for one in exported.document["artifacts"]}
