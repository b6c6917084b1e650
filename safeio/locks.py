"""Who works on what: locks that the system drops with their holder, and the removal of what dead holders left.

Unfinished work has a name that nobody can guess and is locked (flock) by the process that writes it. A process id
would say nothing: in a container it is always 1, and on a shared folder it is another machine's. Where the file system
has no locks on what is asked for, nothing is ever held to be dead.
"""

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
"""How files are made: under a name that nothing has, not even a link."""

PARTIAL, ASIDE = "partial", "aside"
NAME_BYTES = 2 + 16 + 1 + len(PARTIAL)
"""How much longer than a place's name that of its unfinished work is."""

_PATIENCE_S = 30.0
_UNFINISHED = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{16}\.(?P<kind>partial|aside)", re.S)


def new_name(place: Path, kind: str = PARTIAL) -> Path:
    """Return a name beside `place` for work on it, with 64 random bits."""
    return place.with_name(f".{place.name}.{os.urandom(8).hex()}.{kind}")


def is_unfinished(name: str, of: str) -> bool:
    """Say whether `name` is one that `new_name` gives beside a place called `of`."""
    match = _UNFINISHED.fullmatch(name)
    return match is not None and match["name"] == of


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder; return False where another process holds it, None where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EWOULDBLOCK, errno.EACCES) else None
    return True


@contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Hold the lock of a folder, so that nobody puts another in its place; raises OSError where it is not there.

    `folder` has no links in it. Waits for whoever holds it, at most 30 s, and gives False where it could not be had.
    """
    until = time.monotonic() + _PATIENCE_S
    while True:
        descriptor = _open(folder)
        state = try_lock(descriptor)
        if state is not False and _is_at(descriptor, folder):
            break
        if time.monotonic() > until:
            state = False
            break
        os.close(descriptor)  # somebody holds it, or has just put another in its place
        time.sleep(0.01)
    try:
        yield state is not False
    finally:
        os.close(descriptor)


@contextmanager
def new_folder(choose: Callable[[], Path], mode: int = 0o777) -> Iterator[Path]:
    """Make a locked folder under a name that `choose` gives; at the end remove what has that name then."""
    while True:
        folder = choose()
        folder.mkdir(mode)
        descriptor = _open(folder)
        # Between the two lines somebody who looks for leftovers may have been quicker.
        if try_lock(descriptor) is not False and _is_at(descriptor, folder):
            break
        os.close(descriptor)
    try:
        yield folder
    finally:
        _remove_tree(folder)
        os.close(descriptor)


def new_file(choose: Callable[[], Path]) -> tuple[Path, BinaryIO]:
    """Make a locked file under a name that `choose` gives and open it for writing; raises OSError."""
    while True:
        path = choose()
        file = os.fdopen(os.open(path, NEW, 0o666), "wb")
        if try_lock(file.fileno()) is not False and _is_at(file.fileno(), path):
            return path, file
        file.close()


def remove_dead(place: Path) -> None:
    """Remove unfinished work on `place` whose process is dead; what such a one had moved aside goes back.

    Only what can be locked is held to be dead. Links under such names are somebody else's and stay.
    """
    try:
        paths = list(place.parent.iterdir())
    except OSError:
        return
    for path in paths:
        match = _UNFINISHED.fullmatch(path.name)
        if match is not None and match["name"] == place.name:
            with suppress(OSError):
                _remove_if_dead(path, place if match["kind"] == ASIDE else None)


def remove_dead_folders(parent: Path, prefix: str) -> None:
    """Remove folders of this user whose names are `prefix` and 16 digits, and whose process is dead."""
    pattern = re.compile(re.escape(prefix) + r"[0-9a-f]{16}")
    for path in parent.iterdir():
        if pattern.fullmatch(path.name):
            with suppress(OSError):
                if path.lstat().st_uid == os.getuid():
                    _remove_if_dead(path, None)


def _remove_if_dead(path: Path, back_to: Path | None) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        if try_lock(descriptor) is not True or not _is_at(descriptor, path):
            return
        if back_to is not None and not os.path.lexists(back_to):
            path.rename(back_to)
        elif stat.S_ISDIR(os.fstat(descriptor).st_mode):
            _remove_tree(path)
        else:
            path.unlink()
    finally:
        os.close(descriptor)


def _remove_tree(folder: Path) -> None:
    """Remove a folder and all in it as far as that can be, also where its owner may not write in parts of it."""
    waiting = [folder]
    with suppress(OSError):
        while waiting:
            inner = waiting.pop()
            if not os.access(inner, os.R_OK | os.W_OK | os.X_OK):
                inner.chmod(0o700)
            with os.scandir(inner) as entries:
                waiting += [Path(entry) for entry in entries if entry.is_dir(follow_symlinks=False)]
    shutil.rmtree(folder, ignore_errors=True)


def _open(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)


def _is_at(descriptor: int, path: Path) -> bool:
    """Say whether what is open is still what has this name."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)
