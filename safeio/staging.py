"""Folders that are put in place whole or not at all, and temporary folders of which dead processes leave none."""

import errno
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from safeio import locks
from safeio.errors import OutputError
from safeio.files import DISK, writing
from safeio.places import Foreign, check_folder, check_within

ROOM = "make room there, or name another folder in TMPDIR"
"""What to do where the temporary place cannot be written."""


@contextmanager
def staging(place: Path, foreign: Foreign, advice: str) -> Iterator[Path]:
    """Give an empty folder beside `place`; put it at `place` if the body ends well, else remove it.

    What stood at `place` is exchanged in one step of the file system, so that a kill at any time leaves either the old
    folder or the new one, whole; where the file system knows no such step, a kill between two renames leaves the old
    one under another name, from which `recover` brings it back. Raises OutputError where `place` holds something else
    (`places.check_folder`), and where the disk or a permission stands in the way.
    """
    real = check_folder(place, foreign, advice)
    made: list[Path] = []
    try:
        with writing(place, advice):
            _make_folders(real.parent, made)
            locks.remove_dead(real)
            with locks.new_folder(lambda: locks.new_name(real)) as folder:
                yield folder
                _put(folder, real, place, foreign, advice)
    except BaseException:
        for parent in made:  # empty ones only: rmdir takes no other
            with suppress(OSError):
                parent.rmdir()
        raise


def empty(folder: Path) -> None:
    """Remove all that is in a folder of `staging` or `scratch`; the folder itself is locked, and a new one is not."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def recover(place: Path) -> None:
    """Bring back what a killed process had moved aside and not replaced, if `place` is not there."""
    if not os.path.lexists(place):
        real = Path(os.path.realpath(place))
        if real.name:
            locks.remove_dead(real)


@contextmanager
def scratch(purpose: str) -> Iterator[Path]:
    """Give an empty folder in the system's temporary place, and remove it at the end.

    Those that killed processes of this user left for the same purpose are removed first. Raises OutputError where the
    temporary place cannot be written or is full, also for what is written to the folder.
    """
    parent, prefix = _temporary_place(), f"cocorr-{purpose}-"
    check_within(parent, ROOM)
    with writing(parent, ROOM), ExitStack() as stack:
        locks.remove_dead_folders(parent, prefix)
        folder = stack.enter_context(locks.new_folder(lambda: parent / f"{prefix}{os.urandom(8).hex()}", mode=0o700))
        closing = stack.pop_all()
    with closing:
        try:
            yield folder
        except OSError as error:
            if error.errno not in DISK:
                raise
            raise OutputError(f"cannot write {parent}: {error.strerror}; {ROOM}") from error


def _temporary_place() -> Path:
    """Return the folder that TMPDIR names, or the system's own.

    Not tempfile.gettempdir, which tries a file there: a kill at that moment would leave it for ever.
    """
    return Path(os.environ.get("TMPDIR") or "/tmp").absolute()  # noqa: S108 - a folder of a random name is made in it


def _make_folders(folder: Path, made: list[Path]) -> None:
    """Make a folder and those above it, and note which were made, the lowest first."""
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        with suppress(FileExistsError):  # somebody else made it now
            path.mkdir()
            made.insert(0, path)


def _put(folder: Path, real: Path, place: Path, foreign: Foreign, advice: str) -> None:
    """Put a whole folder at its place; what stood there has the name of `folder` afterwards."""
    if not os.path.lexists(real):
        try:
            folder.rename(real)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
            # somebody else has put something there in the meantime
    with locks.locked_folder(real) as held:
        if not held:
            raise OutputError(f"{place} is in use by another command; start this one again when that has ended")
        check_folder(place, foreign, advice)
        if not _exchange(folder, real):
            aside = locks.new_name(real, locks.ASIDE)
            real.rename(aside)
            try:
                folder.rename(real)
            except BaseException:
                aside.rename(real)
                raise
            aside.rename(folder)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two folders in one step of the file system; return False where it cannot, raise OSError if it failed."""
    import ctypes  # the command line imports this module when it starts

    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":  # renamex_np(2), RENAME_SWAP
        failed = libc.renamex_np(os.fsencode(first), os.fsencode(second), 2)
    else:  # renameat2(2), AT_FDCWD and RENAME_EXCHANGE
        failed = libc.renameat2(-100, os.fsencode(first), -100, os.fsencode(second), 2)
    number = ctypes.get_errno()
    if failed and number not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        raise OSError(number, os.strerror(number), str(second))
    return not failed
