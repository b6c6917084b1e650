"""The archive of a shard's packages: an uncompressed tar of files, of which one is read where it lies.

Each file's XXH3 of 128 bits stands in the index. It finds damage; against forgery nothing in the same folder would
help. SHA-256 took longer than making the package.
"""

import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.core.errors import BadInputError
from safeio import files

if TYPE_CHECKING:
    from exporter.fleet.packages_index import Row

ADVICE = "choose another folder for the packages"
AGAIN = "the same fleet command makes it again"
_MOST_PACKAGE_BYTES = 1 << 30
_BLOCK = 512

Batches = Iterable[tuple[Sequence[int], np.ndarray]]
"""Files of one length, uint8 [n, bytes], with the place in the shard of each."""


def write(path: Path, batches: Batches, users: int) -> dict[str, np.ndarray]:
    """Write the archive of a shard, whole or not at all, and return where in it the file of each user is.

    That is `offset` and `bytes` [users], in int64, and `xxh3_128` uint8 [users, 16]. Raises OutputError.
    """
    import xxhash

    found = {"offset": np.zeros(users, np.int64), "bytes": np.zeros(users, np.int64)}
    digests = np.zeros((users, 16), np.uint8)
    at = 0
    with files.replacing(path, ADVICE) as file:
        for own, rows in batches:
            size = rows.shape[1]
            padding, first = bytes(-size % _BLOCK), _head(size)
            for place, row in zip(own, rows, strict=True):
                file.write(_at(first, place))
                file.write(row.data)
                file.write(padding)
                found["offset"][place], found["bytes"][place] = at + _BLOCK, size
                digests[place] = np.frombuffer(xxhash.xxh3_128_digest(row.data), np.uint8)
                at += _BLOCK + size + len(padding)
        file.write(bytes(2 * _BLOCK))
    return {**found, "xxh3_128": digests}


def _head(size: int) -> bytes:
    """Return the header of the file of the first place of a shard."""
    entry = tarfile.TarInfo(f"{0:06}.safetensors")
    entry.size = size  # no time and no owner: the bytes of an archive say nothing of who wrote it when
    return entry.tobuf(tarfile.USTAR_FORMAT)


def _at(first: bytes, place: int) -> bytes:
    """Return the header for another place: its name and its checksum, which is the sum of all bytes, differ."""
    # Making each anew took as long as a tenth of the write itself.
    name = b"%06d" % place
    checksum = int(first[148:154], 8) + sum(name) - sum(first[:6])
    return name + first[6:148] + b"%06o" % checksum + first[154:]


def length(sizes: np.ndarray) -> int:
    """Return the bytes of an archive of files of these sizes [n]."""
    entries: int = sum(_BLOCK + size + -size % _BLOCK for size in sizes.tolist())
    return entries + 2 * _BLOCK


def cut(path: Path, row: "Row") -> bytes:
    """Return the file that an index says lies in an archive; raises BadInputError where it does not."""
    import xxhash

    if row.bytes > _MOST_PACKAGE_BYTES:
        raise BadInputError(f"{path}: its index names bytes that cannot be; remove both, and {AGAIN}")
    try:
        with files.open_file(path) as file:
            file.seek(row.offset)
            data = file.read(row.bytes)
    except files.UnreadableError as error:
        raise BadInputError(f"{path} {error}; remove its index, and {AGAIN}") from error
    except OSError as error:
        raise BadInputError(f"{path} cannot be read; remove its index, and {AGAIN}") from error
    if xxhash.xxh3_128_hexdigest(data) != row.xxh3_128:
        raise BadInputError(f"{path} is damaged: a package is not the one of its index; remove both, and {AGAIN}")
    return data
