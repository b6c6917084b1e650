"""Watches a process's own calls that change files below a folder, and acts at one of them: kills it, or fills the disk.

The calls are seen through Python's audit events. What native code writes has none; neither has a write to a file that
is already open. Limits on the size of files stand for those, see `fault_writers`.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Event -> where among its arguments its paths are, each with the place of the descriptor that it is relative to.
PATHS: dict[str, tuple[tuple[int, int | None], ...]] = {
    "open": ((0, None),),
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.symlink": ((1, 2),),
    "os.mkdir": ((0, 2),),
    "os.rmdir": ((0, 1),),
    "os.remove": ((0, 1),),
    "os.truncate": ((0, None),),
    "shutil.rmtree": ((0, 1),),
    "shutil.move": ((0, None), (1, None)),
}
EXCHANGE = ("renameat2", "renamex_np")  # looked up through ctypes, since Python has no call that exchanges two files
CREATING = ("open", "os.mkdir", "os.link", "os.symlink")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def watch(zone: Path, act: Callable[[int, str], None], events: tuple[str, ...] = (*PATHS, "ctypes.dlsym")) -> None:
    """Call `act` before each call of this process that changes a file in `zone`, with its number from 1 and path."""
    inside, process, count = os.path.realpath(zone), os.getpid(), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in events or os.getpid() != process:
            return
        if event == "ctypes.dlsym":
            path = f"{inside}/exchange" if arguments[1] in EXCHANGE else ""
        elif event == "open" and not (isinstance(arguments[2], int) and arguments[2] & _WRITING):
            return
        else:
            paths = (_absolute(arguments, *places) for places in PATHS[event])
            path = next((path for path in paths if path == inside or path.startswith(f"{inside}/")), "")
        if path:
            count += 1
            act(count, path)

    sys.addaudithook(hook)


def _absolute(arguments: tuple[Any, ...], place: int, descriptor: int | None) -> str:
    """Return the absolute path of an event's argument, empty where it is a descriptor or no path."""
    try:
        path = os.fsdecode(arguments[place])
    except TypeError:
        return ""
    folder = arguments[descriptor] if descriptor is not None and descriptor < len(arguments) else None
    if isinstance(folder, int) and folder >= 0 and not path.startswith("/"):
        path = f"{Path(f'/proc/self/fd/{folder}').readlink()}/{path}"
    return os.path.normpath(os.path.join(os.getcwd(), path))  # noqa: PTH109, PTH118 - Path has hooks of its own


def kill_at(number: int) -> Callable[[int, str], None]:
    """Return what kills this process before its call of this number."""

    def act(count: int, _: str) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def kill_once(path: Path) -> Callable[[int, str], None]:
    """Return what kills this process before its first call after `path` is there."""

    def act(_: int, __: str) -> None:
        if path.exists():
            os.kill(os.getpid(), signal.SIGKILL)

    return act


def full_from(number: int) -> Callable[[int, str], None]:
    """Return what lets this call that creates something and all later ones fail, as on a full disk."""

    def act(count: int, path: str) -> None:
        if count >= number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    return act


def count_in(marks: Path) -> Callable[[int, str], None]:
    """Return what adds a byte to a file outside of the zone at each call."""
    file = os.open(marks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def act(_: int, __: str) -> None:
        os.write(file, b".")

    return act
