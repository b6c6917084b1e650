"""Single files: read without following links and within bounds, written whole or not at all."""

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from safeio import locks
from safeio.errors import OutputError

DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
"""What the system says where a disk, a quota or a limit is why a write failed, even behind a converter's words."""
# And what it says besides of a write itself.
_NO_WRITE = DISK | {
    *(errno.EACCES, errno.EPERM, errno.ENXIO, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EBUSY),
    *(errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP, errno.EMFILE, errno.ENFILE, errno.ENODEV, errno.ESTALE),
    *(errno.EXDEV, errno.EINVAL, errno.ENOMEM),
}


class UnreadableError(Exception):
    """Why something cannot be read; the text completes a sentence that begins with its path.

    `missing` says that nothing is there.
    """

    def __init__(self, why: str, missing: bool = False) -> None:
        super().__init__(why)
        self.missing = missing


def open_file(path: Path, follow_link: bool = False) -> io.BufferedReader:
    """Open a regular file for reading; raises UnreadableError.

    A link as the last part of `path` is followed only for places that the user named, never for those that came with
    an artifact, a checkpoint or a package. A pipe or a device is refused at once, not waited for.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if follow_link else os.O_NOFOLLOW)
    try:
        descriptor = os.open(path, flags)
    except OSError as error:
        raise _unreadable(error) from error
    except ValueError as error:  # a NUL in the name
        raise UnreadableError("is no name of a file", missing=True) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UnreadableError("is no regular file")
    return io.BufferedReader(io.FileIO(descriptor, "r"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a regular file in hexadecimal; raises UnreadableError, also for a link."""
    import hashlib  # the command line imports this module when it starts

    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_file(path: Path, limit: int, follow_link: bool = False) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes; raises UnreadableError."""
    with open_file(path, follow_link) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise UnreadableError(f"is larger than {limit} bytes, more than is read of such a file")
        try:
            data = file.read(size + 1)  # not the limit: as much memory as is asked for is taken at once
        except OSError as error:
            raise _unreadable(error) from error
    if len(data) > size:
        raise UnreadableError("grew while it was read; try again when nothing writes it")
    return data


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file of a folder that came from elsewhere, by its name there; raises UnreadableError.

    No part of the name may lead out of the folder or be a link.
    """
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise UnreadableError("has a name that points out of its folder")
    path = folder
    for part in parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise _unreadable(error) from error
        except ValueError as error:  # half of a surrogate pair
            raise UnreadableError("is no name of a file", missing=True) from error
        if stat.S_ISLNK(mode):
            raise UnreadableError("is a link or behind one; links are not followed, put the file itself there")
    return path


def identity(folder: Path) -> tuple[int, int] | None:
    """Return what changes when another folder is put in the place of this one; None where none is there."""
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def tree(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Yield name and status of every entry below a folder, folders before what is in them; names have `/` between.

    Links are entries like others and never followed.
    """
    waiting = [""]
    while waiting:
        prefix = waiting.pop()
        with os.scandir(folder / prefix) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
        for entry in ordered:
            status = entry.stat(follow_symlinks=False)
            yield f"{prefix}{entry.name}", status
            if stat.S_ISDIR(status.st_mode):
                waiting.append(f"{prefix}{entry.name}/")


def write_new(path: Path, data: bytes) -> None:
    """Write a file that must not be there yet, not even as a link; raises OSError."""
    write_pieces(path, (data,))


def write_pieces(path: Path, pieces: Iterable[bytes | memoryview]) -> None:
    """Write a file as `write_new` does, of pieces that follow each other."""
    with create(path) as file:
        for piece in pieces:
            file.write(piece)


def create(path: Path) -> BinaryIO:
    """Open a file to write that must not be there yet, not even as a link; raises OSError."""
    return os.fdopen(os.open(path, locks.NEW, 0o666), "wb")


def copy_new(source: Path, to: Path) -> str:
    """Copy a regular file to a place where nothing is yet, piece by piece, and return its SHA-256 in hexadecimal.

    Raises UnreadableError for the source and OSError for the place.
    """
    import hashlib  # loads OpenSSL, which the command line has no use for when it starts

    digest = hashlib.sha256()
    with open_file(source) as read, os.fdopen(os.open(to, locks.NEW, 0o666), "wb") as written:
        while piece := read.read(1 << 20):
            digest.update(piece)
            written.write(piece)
    return digest.hexdigest()


@contextmanager
def replacing(path: Path, advice: str) -> Iterator[BinaryIO]:
    """Give a file to write; it is at `path` when the body has ended well, else all is as it was.

    It lies beside `path` under a name that nobody can guess, locked while it is written, so that later writers remove
    what a killed one left and never what a living one writes. A link at `path` is replaced, not followed. Raises
    OutputError with `advice` where the disk or a permission stands in the way.
    """
    with writing(path, advice):
        locks.remove_dead(path)
        temporary, file = locks.new_file(lambda: locks.new_name(path))
        try:
            with file:
                yield file
                file.flush()
                temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def replace_file(path: Path, data: bytes, advice: str) -> None:
    """Write a file whole or not at all; raises OutputError. See `replacing`."""
    with replacing(path, advice) as file:
        file.write(data)


@contextmanager
def writing(place: Path, advice: str) -> Iterator[None]:
    """Turn what the system says against writing at `place` into OutputError, one line that ends in `advice`."""
    try:
        yield
    except OSError as error:
        reason = write_failure(error)
        if reason is None:
            raise
        raise OutputError(f"cannot write {place}: {reason}; {advice}") from error


def write_failure(error: BaseException) -> str | None:
    """Return the system's words where a write that failed is behind an error, or None.

    Converters wrap what they meet or put its words into their own, and copying folders collects it in lists.
    """
    if isinstance(error, OSError) and error.errno in _NO_WRITE:
        return error.strerror or os.strerror(error.errno)
    words = [os.strerror(number) for number in DISK]
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        if isinstance(cause, BaseException):
            if isinstance(cause, OSError) and cause.errno in DISK:
                return os.strerror(cause.errno)
            waiting += [cause.__cause__, cause.__context__, *cause.args]
        elif isinstance(cause, list | tuple):
            waiting += cause
        elif isinstance(cause, str) and (said := next((word for word in words if word in cause), None)):
            return said
    return None


def _unreadable(error: OSError) -> UnreadableError:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return UnreadableError("is a link or behind one; links are not followed, put the file itself there")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return UnreadableError("does not exist", missing=True)
    return UnreadableError(f"cannot be read: {error.strerror}")
