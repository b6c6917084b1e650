"""The processes of a browser, ended for sure: what it starts, and what leaves its process group."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

_LIMIT_S = 10.0


def end_all(leader: subprocess.Popen[bytes], home: Path) -> None:
    """Kill all that is left of a browser and wait until it is gone, after which nothing writes to its folder.

    `leader` leads its process group, and `home` is the value of HOME that no other process has.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    deadline = time.monotonic() + _LIMIT_S
    while (left := _left(leader.pid, home)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def _left(group: int, home: Path) -> list[int]:
    """Return the processes that have not ended, of those that Linux lists; elsewhere the negative number of the group.

    Handlers of crashes leave the group, and end by themselves when nothing is left that could crash.
    """
    listed = list(Path("/proc").glob("[0-9]*/stat"))
    if listed:
        return [int(stat.parent.name) for stat in listed if _belongs(stat, group, home)]
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS refuses where all of a group have ended
        return []
    return [-group]


def _belongs(stat: Path, group: int, home: Path) -> bool:
    try:
        state, _, its_group = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
        if state in "ZX":  # ended, and nobody asked how
            return False
        return int(its_group) == group or b"HOME=" + os.fsencode(home) in (stat.parent / "environ").read_bytes().split(
            b"\0"
        )
    except (OSError, ValueError):  # it is gone meanwhile, or somebody else's
        return False
