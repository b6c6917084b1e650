"""The command cocorr-export; `python -m exporter` and `python -m exporter.cli` are the same program."""

from collections.abc import Callable
from typing import Any, NoReturn

from safeio import command, process

INTERRUPTED = "interrupted; artifacts on disk are as they were"


def main() -> NoReturn:
    """Run the command line and exit; see `safeio.command.run` for signals, streams and exit codes."""
    command.run(_load, INTERRUPTED, documents=True)


def _load() -> Callable[..., Any]:
    from exporter.cli import app

    return app


if __name__ == "__main__":
    process.alone(main)
