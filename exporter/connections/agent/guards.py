"""What ends this process in time: limits on time and memory, the death of whoever started it, another run's lock."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

from exporter.connections.agent.contract import RefusalError
from exporter.connections.agent.folder import FILES, SWAPPED


def guard(folder: Path, request: dict[str, Any]) -> None:
    """Bound time and memory from inside, which still holds when the other side is gone.

    The alarm ends the process even while a runtime hangs in native code. RLIMIT_DATA counts private writable memory,
    so libraries and mapped weights are not in it. A machine that runs out of memory shall end this process first.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, request["time_limit_s"])
    if request["memory_limit_bytes"] is not None:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = request["memory_limit_bytes"]
        if hard == resource.RLIM_INFINITY or limit < hard:
            resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    with contextlib.suppress(OSError):  # not Linux, or not allowed: the limits above still hold
        Path("/proc/self/oom_score_adj").write_text("1000")
    if request["watch_stdin"]:
        threading.Thread(target=end_with_stdin, args=(folder,), daemon=True).start()


def hold(path: Path) -> Any:
    """Lock a file until this process ends, so that two runs do not take each other's time; refuses where one does."""
    import fcntl

    file = path.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        message = "another run is at work on the device; start this one again when it has ended"
        raise RefusalError("busy", message) from error
    return file


def end_with_stdin(folder: Path) -> None:
    """End this process when whoever started it closes its standard input or dies.

    Nobody is left then to tidy up: the files of the run go, and the folder too if it holds nothing else.
    """
    while os.read(0, 4096):
        pass
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / SWAPPED, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
    os._exit(3)
