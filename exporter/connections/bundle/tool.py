"""Start a tool that the installation needs, and say in one line why it failed."""

import subprocess
from collections.abc import Sequence

from exporter.connections.response import printable
from exporter.core.errors import SetupError

_TIME_LIMIT_S = 1200


def call(command: Sequence[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end; raises SetupError with what it said last."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_TIME_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{failure}: {printable(str(error))}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise SetupError(f"{failure}: {printable(' '.join(lines[-2:])) or f'exit status {done.returncode}'}")
