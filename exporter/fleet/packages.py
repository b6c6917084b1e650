"""Weights packages of many users: for each shard of a run an uncompressed tar of files, and an index of users.

    packages.json         what the packages are of, and how many shards there are
    part-00000.tar        a file for each user of a shard who has one, by the place in the shard
    part-00000.parquet    the index: for each user of the shard the file's first byte, its length and XXH3, or why
                          there is none

An index is written behind its archive: where both are, and the archive is as long as the index says, the shard is
whole. Of one plan an archive has the same bytes whenever it is written, so that what a killed run left is written over.
To take one file out, some indices are asked for their first user, one is read, and the file is read where it lies.
"""

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.core.errors import BadInputError, OutputError
from exporter.fleet import packages_archive, store
from exporter.fleet.packages_archive import ADVICE, AGAIN
from exporter.fleet.store import Document
from safeio import files, locks, places, strict_json

if TYPE_CHECKING:
    import pyarrow


PLAN, FORMAT = "packages.json", "cocorr-packages-2"
_MOST_BYTES = 16 << 20
_FIRST = b"cocorr.first"
"""The key of an index's first user in its metadata."""
_PART = re.compile(r"part-(\d{5,8})\.(?:tar|parquet)")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,18}")


def archive(folder: Path, shard: int) -> Path:
    """Return the archive of a shard."""
    return folder / f"part-{shard:05}.tar"


@dataclass(frozen=True)
class Folder:
    """A folder of packages with what they are of."""

    place: Path
    plan: Document

    @property
    def mark(self) -> bytes:
        """Return what tells indices of this plan from others."""
        return store.mark_of(self.plan)

    def index(self, shard: int) -> Path:
        """Return the index of a shard."""
        return archive(self.place, shard).with_suffix(".parquet")

    def write_index(self, shard: int, table: "pyarrow.Table") -> None:
        """Write the index of a shard, in the order of its users; raises OutputError."""
        first = table["user"][0].as_py().encode("utf-8", "surrogatepass")
        store.write_table(self.index(shard), table, {store.MARK: self.mark, _FIRST: first})

    def done(self) -> frozenset[int]:
        """Return the shards that are whole; raises BadInputError for an index of other packages."""
        return frozenset(shard for shard in self._made() if self._is_whole(shard))

    def _made(self) -> list[int]:
        """Return the shards that have an index, in order; raises BadInputError where there is one of no shard."""
        shards = sorted(_indices(self.place))
        if shards and shards[-1] >= cast("int", self.plan["shards"]):
            raise BadInputError(f"{self.index(shards[-1])} is of no shard of these packages; remove it")
        return shards

    def _is_whole(self, shard: int) -> bool:
        """Say whether a shard's index has its columns, and its archive the length that they ask for."""
        from exporter.fleet import packages_index

        table = store.read_table(self.index(shard), self.mark, f"remove it, and {AGAIN}")
        try:
            packages_index.check(table)
        except ValueError:
            return False
        sizes = packages_index.sizes(table)
        if not len(sizes):
            return True  # where nobody has a package, there is no archive
        try:
            with files.open_file(archive(self.place, shard)) as file:
                held = os.fstat(file.fileno()).st_size
        except files.UnreadableError:
            return False
        return held == packages_archive.length(sizes)

    def _first(self, shard: int) -> str:
        """Return the first user of a shard; raises BadInputError where the index is damaged or of other packages."""
        import pyarrow.parquet

        path = self.index(shard)
        with store.reading(path, f"remove it, and {AGAIN}") as file:
            metadata = pyarrow.parquet.read_schema(file).metadata or {}
        if metadata.get(store.MARK) != self.mark or _FIRST not in metadata:
            raise BadInputError(f"{path} is of other packages; remove it, and {AGAIN}")
        try:
            return cast("bytes", metadata[_FIRST]).decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise BadInputError(f"{path} is damaged: {_FIRST.decode()} is no UTF-8; remove it, and {AGAIN}") from error

    def archive_bytes(self) -> int:
        """Return the bytes of all archives."""
        return sum(path.stat().st_size for path in self.place.glob("part-*.tar"))

    def take(self, user: str) -> "Package":
        """Return the package of a user; raises BadInputError for one who has none, with the reason."""
        from exporter.fleet import packages_index

        kind = cast("str", self.plan["order"])
        shards = self._made()
        low, high = 0, len(shards)  # the last index whose first user is not behind the one that is sought
        while low < high:
            middle = (low + high) // 2
            if _key(kind, user) < _key(kind, self._first(shards[middle])):
                high = middle
            else:
                low = middle + 1
        if not low:
            raise self._nobody(user, len(shards))
        path = self.index(shards[low - 1])
        table = store.read_table(path, self.mark, f"remove it, and {AGAIN}")
        try:
            packages_index.check(table)
        except ValueError as error:
            raise BadInputError(f"{path} is damaged: {error}; remove it, and {AGAIN}") from error
        row = packages_index.find(table, user)
        if row is None:
            raise self._nobody(user, len(shards))
        if row.status != packages_index.RANKED:
            raise BadInputError(f"{self.place}: user {user!r} has no package: {row.status[:80].replace('_', ' ')}")
        return Package(packages_archive.cut(archive(self.place, shards[low - 1]), row), row.structure)

    def _nobody(self, user: str, made: int) -> BadInputError:
        left = cast("int", self.plan["shards"]) - made
        missing = f"; {left:,} shards are not made yet, the same fleet command goes on with them" if left > 0 else ""
        sample, users = self.plan.get("sample"), self.plan.get("users")
        among = ""
        if isinstance(sample, int) and isinstance(users, int) and sample < users:
            among = f" among the {sample:,} users drawn of {users:,} (--sample); only those have packages"
        return BadInputError(
            f"{self.place} has no user {user[:80]!r}{among}; give the id as the file of clicks has it{missing}"
        )


@dataclass(frozen=True)
class Package:
    """A user's package: the bytes of its file, and the structure whose weights it holds, one digit a block."""

    data: bytes
    structure: str


def _key(kind: str, user: str) -> tuple[int, str]:
    """Return what orders a user among others; in numbers, what is none comes in front of all."""
    if kind == "text":
        return 0, user
    return (int(user), "") if _WHOLE.fullmatch(user) else (-(1 << 63) - 1, user)


def _indices(place: Path) -> set[int]:
    found = (_PART.fullmatch(path.name) for path in place.iterdir() if path.suffix == ".parquet")
    return {int(match[1]) for match in found if match}


def check(place: Path) -> None:
    """Raise OutputError where no packages can be written; asked before the work begins."""
    places.check_folder(place, _foreign, ADVICE)


def check_plan(place: Path, whole: Document) -> None:
    """Raise OutputError where packages of another plan stand; asked before the work begins."""
    if not (place / PLAN).exists():
        return
    held = read(place).plan
    if held != whole:
        # None counts as not known, and what is not known would be replaced.
        known, wanted = (
            {name: "nothing" if one.get(name) is None else one[name] for name in {**whole, **held}}
            for one in (held, whole)
        )
        places.check_facts(place, "set of packages", known, wanted, "--packages")


def read(place: Path) -> Folder:
    """Return a folder of packages; raises BadInputError for what is none."""
    path = place / PLAN
    try:
        plan = strict_json.loads(files.read_file(path, _MOST_BYTES))
    except files.UnreadableError as error:
        raise BadInputError(f"{path} {error}; give a folder that cocorr-export fleet ofa --packages wrote") from error
    except ValueError as error:
        raise BadInputError(f"{path} is no plan of packages; {AGAIN}") from error
    whole = isinstance(plan, dict) and plan.get("format") == FORMAT and isinstance(plan.get("shards"), int)
    if not whole or plan.get("order") not in ("numbers", "text"):
        raise BadInputError(f"{path} is no plan of packages that this version knows; give another folder")
    return Folder(place, plan)


@contextmanager
def opened(folder: Folder, force: bool) -> Iterator[None]:
    """Hold a folder of packages against other commands; it is begun where nothing is there.

    Raises OutputError where others stand there, unless `force` is given: then they are removed.
    """
    place = folder.place
    with files.writing(place, ADVICE):
        place.mkdir(parents=True, exist_ok=True)
        real = place.resolve()
        with locks.locked_folder(real) as held:
            if not held:
                raise OutputError(f"{place} is in use by another command; start this one again when that has ended")
            _begin(real, folder.plan, force)
            yield


def _begin(real: Path, whole: Document, force: bool) -> None:
    if (real / PLAN).exists():
        if read(real).plan == whole:
            return
        if not force:
            check_plan(real, whole)
        places.check_folder(real, _foreign, ADVICE)  # what came since it was asked before is nobody's to remove
        for path in real.iterdir():  # the plan last: without it nobody knows what the others are
            if path.name != PLAN:
                path.unlink()
        (real / PLAN).unlink()
    files.write_new(real / PLAN, store.serialised(whole))


def _foreign(folder: Path) -> str | None:
    """Return what of a folder is no part of a set of packages, or None where all of it is."""
    names = []
    for name, status in files.tree(folder):
        if stat.S_ISDIR(status.st_mode):
            return name  # it has files alone
        names.append(name)
    if PLAN not in names:
        return names[0]
    return next((name for name in names if not _is_own(name)), None)


def _is_own(name: str) -> bool:
    match = _PART.search(name)
    return name == PLAN or (match is not None and (match[0] == name or locks.is_unfinished(name, match[0])))
