"""The command cocorr-export; `python -m exporter` and `python -m exporter.cli` are the same program."""

import os
from collections.abc import Callable
from typing import Any, NoReturn

from safeio import command

INTERRUPTED = "interrupted; artifacts on disk are as they were"


def main() -> NoReturn:
    """Run the command line and exit; see `safeio.command.run` for signals, streams and exit codes."""
    command.run(_load, INTERRUPTED)


def _load() -> Callable[..., Any]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime reports home as soon as it is imported
    # torch makes a folder as soon as its tracing is imported, for kernels that it compiles; here it compiles none.
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    from exporter.cli import app

    return app


if __name__ == "__main__":
    main()
