"""The command cocorr-export; `python -m exporter` and `python -m exporter.cli` are the same program."""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from safeio import command, process

INTERRUPTED = "interrupted; artifacts on disk are as they were"
GOES_ON = "interrupted; the same command goes on with the users that are not done"
"""What is said of a command that keeps what is whole of its work."""


def main() -> NoReturn:
    """Run the command line and exit; see `safeio.command.run` for signals, streams and exit codes."""
    command.run(_load, GOES_ON if sys.argv[1:2] == ["fleet"] else INTERRUPTED, documents=True)


def _load() -> Callable[..., Any]:
    from exporter.cli import app

    return app


if __name__ == "__main__":
    process.alone(main)
