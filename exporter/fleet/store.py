"""The folder of a run: plan.json, the artifact, a Parquet file for each shard, summary.json and summary.html.

plan.json and the artifact are put in place together; a shard is there whole or not at all, and says which plan it is
of. So whoever starts a run again knows what is done, and nothing is counted that belongs to another one.
"""

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from exporter.core.errors import BadInputError, OutputError
from safeio import files, locks, places, staging, strict_json

if TYPE_CHECKING:
    import pyarrow

PLAN, SUMMARY, PAGE, ARTIFACT, USERS = "plan.json", "summary.json", "summary.html", "artifact", "users"
REFERENCE = "reference.pt2"
"""Torch's program with the tables as a scheme stores them, where there is one."""
ADVICE = "choose another --output"
_MOST_BYTES = 16 << 20
_PART = re.compile(r"part-([0-9]{5}|[1-9][0-9]{5,7})\.parquet")
MARK = b"cocorr.plan"
"""The key of what a Parquet file says of the plan that it is of."""
Document = Mapping[str, object]


@dataclass(frozen=True)
class Run:
    """A run's folder with its plan, and the hash that marks its parts."""

    folder: Path
    plan: Document

    @property
    def mark(self) -> bytes:
        """Return what tells parts of this plan from others."""
        return mark_of(self.plan)

    def part(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.folder / USERS / f"part-{shard:05}.parquet"

    def write(self, shard: int, table: "pyarrow.Table") -> None:
        """Write the rows of a shard, whole or not at all; raises OutputError."""
        write_table(self.part(shard), table, {MARK: self.mark})

    def read(self, shard: int) -> "pyarrow.Table":
        """Return the rows of a shard; raises BadInputError for a file that is not of this run."""
        path = self.part(shard)
        return read_table(path, self.mark, "remove it, and its users are judged again")

    def done(self, shards: int) -> frozenset[int]:
        """Return the shards that are there, of so many; raises BadInputError where one more is."""
        if not (self.folder / USERS).is_dir():
            raise BadInputError(
                f"{self.folder / USERS} is missing; make an empty folder there, and all are judged again"
            )
        found = {int(match[1]) for path in (self.folder / USERS).iterdir() if (match := _PART.fullmatch(path.name))}
        if found and max(found) >= shards:
            raise BadInputError(f"{self.part(max(found))} is of no shard of this run; remove it")
        return frozenset(found)

    def summary(self) -> object:
        """Return what summary.json has; raises UnreadableError, and ValueError where that is no JSON."""
        return strict_json.loads(files.read_file(self.folder / SUMMARY, _MOST_BYTES))

    def write_summary(self, document: Document, page: str) -> None:
        """Write summary.json, and the page that shows it to summary.html; raises OutputError."""
        files.replace_file(self.folder / PAGE, page.encode(), ADVICE)
        files.replace_file(self.folder / SUMMARY, serialised(document), ADVICE)


def write_table(path: Path, table: "pyarrow.Table", metadata: Mapping[bytes, bytes]) -> None:
    """Write rows with metadata as a Parquet file, whole or not at all; raises OutputError."""
    import pyarrow.parquet

    with files.replacing(path, ADVICE) as file:
        pyarrow.parquet.write_table(table.replace_schema_metadata(metadata), file, compression="zstd")


@contextmanager
def reading(path: Path, advice: str) -> Iterator[BinaryIO]:
    """Open a Parquet file; raises BadInputError where it cannot be opened, or not be read inside the block."""
    import pyarrow

    try:
        with files.open_file(path) as file:
            yield file
    except files.UnreadableError as error:
        raise BadInputError(f"{path} {error}; {advice}") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInputError(f"{path} cannot be read; {advice}") from error


def read_table(path: Path, mark: bytes, advice: str) -> "pyarrow.Table":
    """Return the rows of a Parquet file with a mark; raises BadInputError for one that has another or is damaged."""
    import pyarrow.parquet

    with reading(path, advice) as file:
        table = pyarrow.parquet.read_table(file)
    if (table.schema.metadata or {}).get(MARK) != mark:
        raise BadInputError(f"{path} is of another run; {advice}")
    return table


def mark_of(document: Document) -> bytes:
    """Return what tells files of one plan from those of others."""
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest().encode()


def serialised(document: Document) -> bytes:
    """Return a document as a file has it."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode()


def check(place: Path) -> None:
    """Raise OutputError where no run can be written; asked before the work begins."""
    places.check_folder(place, _foreign, ADVICE)


def held_plan(place: Path) -> dict[str, object] | None:
    """Return the plan of the run that stands at a place, None where there is none; raises OutputError."""
    staging.recover(place)
    path = place / PLAN
    try:
        plan = strict_json.loads(files.read_file(path, _MOST_BYTES))
    except files.UnreadableError as error:
        if error.missing:
            return None
        raise OutputError(f"{path} {error}; {ADVICE}, or replace it with --force") from error
    except ValueError as error:
        raise OutputError(f"{path} is no plan of a fleet; {ADVICE}") from error
    if not isinstance(plan, dict):
        raise OutputError(f"{path} is no plan of a fleet; {ADVICE}")
    return plan


def exported_sha256(folder: Path) -> str:
    """Return one SHA-256 over the names and bytes of all that was exported for a run, torch's program among it.

    Raises UnreadableError for a link, and OSError where there is no artifact.
    """
    below = [(f"{ARTIFACT}/{name}", status) for name, status in files.tree(folder / ARTIFACT)]
    names = [name for name, status in below if not stat.S_ISDIR(status.st_mode)]
    names += [REFERENCE] if os.path.lexists(folder / REFERENCE) else []
    lines = (f"{files.sha256(folder / name)}  {name}\n" for name in sorted(names))
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def holds_artifact(folder: Path, name: object) -> bool:
    """Tell whether a run has an artifact where its plan says, and not outside of the run or behind a link."""
    try:
        return isinstance(name, str) and files.inside(folder / ARTIFACT, f"{name}/{places.MANIFEST}").is_file()
    except files.UnreadableError:
        return False


def begun(place: Path) -> AbstractContextManager[Path]:
    """Give an empty folder for a new run's artifact and plan, which is put at its place when it is whole."""
    return staging.staging(place, _foreign, ADVICE)


def write_plan(folder: Path, plan: Document) -> None:
    """Write the plan of a new run, and a folder for its parts."""
    (folder / USERS).mkdir()
    files.write_new(folder / PLAN, serialised(plan))


@contextmanager
def opened(place: Path, plan: Document) -> Iterator[Run]:
    """Give the run at a place, held against other commands; raises OutputError."""
    real = place.resolve()
    with files.writing(place, ADVICE), locks.locked_folder(real) as held:
        if not held:
            raise OutputError(f"{place} is in use by another command; start this one again when that has ended")
        if held_plan(real) != plan:
            raise OutputError(f"{place} was changed by another command in the meantime; start this one again")
        yield Run(real, plan)


def _foreign(folder: Path) -> str | None:
    """Return what of a folder is no part of a run, or None where all of it is."""
    entries = list(files.tree(folder))
    names = [name for name, status in entries if not stat.S_ISDIR(status.st_mode)]
    if any(name in (PLAN, SUMMARY, PAGE) for name, status in entries if stat.S_ISDIR(status.st_mode)):
        return "a folder where a run has a file"
    if PLAN not in names:
        return names[0] if names else "folders"
    return next((name for name in names if not _is_own(name)), None)


def _is_own(name: str) -> bool:
    first, _, rest = name.partition("/")
    if first == ARTIFACT:
        return bool(rest)
    if first == USERS:
        return _PART.fullmatch(rest) is not None or _is_unfinished_part(rest)
    return (
        name in (PLAN, SUMMARY, PAGE, REFERENCE)
        or locks.is_unfinished(name, SUMMARY)
        or locks.is_unfinished(name, PAGE)
    )


def _is_unfinished_part(name: str) -> bool:
    match = _PART.search(name)
    return match is not None and locks.is_unfinished(name, match[0])
