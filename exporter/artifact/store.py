"""Artifacts on disk: written beside their place, hashed, and put there in one step when whole; read as untrusted.

Links are never followed in an artifact, and nothing in it is read or copied that its manifest does not list.
"""

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Collection
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from exporter.artifact import weights
from exporter.artifact.manifest import File, Manifest, ManifestError, from_json
from exporter.core.calling import EXAMPLE, ITEMS
from exporter.core.errors import ArtifactError, OutputError
from exporter.core.types import Arrays
from safeio import catalogue, files, locks, npz, places, strict_json
from safeio import staging as placing
from safeio.places import MANIFEST, MAX_MANIFEST_BYTES

GOLDEN = "golden.npz"
_OWN, _FURTHER = ("inputs", "outputs", "fp32"), ("further_outputs", "further_fp32")
_POSITIVE = "positive.column"
README = "README.md"
_NOT_SHIPPED = {MANIFEST, GOLDEN, README, EXAMPLE, ITEMS}
_READ_BY_NAME = {GOLDEN, ITEMS, weights.FILE}

_MAX_GOLDEN_BYTES = 1 << 30
_OTHER_OUTPUT = "choose another --output"
_COPY = "make it writable or copy the artifact elsewhere"
_AGAIN = "export the artifact again"


@dataclass(frozen=True)
class Opened:
    """An artifact as it was when it was read: its folder without links, its manifest, and what both can be told by."""

    folder: Path
    manifest: Manifest
    content: bytes
    identity: tuple[int, int] | None


def list_files(folder: Path) -> tuple[File, ...]:
    """Return every file below `folder` but the manifest, sorted by path."""
    return tuple(
        File(name, status.st_size, files.sha256(folder / name))
        for name, status in sorted(files.tree(folder))
        if not stat.S_ISDIR(status.st_mode) and name != MANIFEST
    )


def shipped_bytes(folder: Path) -> int:
    """Return the bytes of what the runtime loads: all files but those that only describe and judge the artifact.

    The ids of the catalogue are no part of the model: how an app keeps its own is its affair.
    """
    rows = files.tree(folder)
    return sum(status.st_size for name, status in rows if stat.S_ISREG(status.st_mode) and name not in _NOT_SHIPPED)


def shipped_sha256(folder: Path) -> str:
    """Return one SHA-256 over the names and bytes of what `shipped_bytes` counts; raises UnreadableError for a link."""
    rows = sorted((name, status.st_mode) for name, status in files.tree(folder) if name not in _NOT_SHIPPED)
    lines = (f"{files.sha256(folder / name)}  {name}\n" for name, mode in rows if not stat.S_ISDIR(mode))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def staging(place: Path) -> AbstractContextManager[Path]:
    """Give an empty folder beside `place`; put it at `place` if the body ends well, else remove it.

    A kill at any time leaves either the old artifact or the new one, whole. Raises OutputError where the folder cannot
    be written, also from within the body, or where `place` holds something that is no artifact.
    """
    return placing.staging(place, _foreign, _OTHER_OUTPUT)


def check_output(folder: Path) -> None:
    """Raise OutputError where no artifact can be put below a folder, whatever its name; takes no time."""
    places.check_within(folder, _OTHER_OUTPUT)


def check_place(place: Path) -> None:
    """Raise OutputError where `staging` could not put an artifact; asked before the work begins."""
    places.check_folder(place, _foreign, _OTHER_OUTPUT)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json whole or not at all; raises OutputError."""
    files.replace_file(folder / MANIFEST, _serialised(manifest), _OTHER_OUTPUT)


def update_manifest(opened: Opened, manifest: Manifest) -> None:
    """Write another manifest for an opened artifact; raises ArtifactError where that has changed since."""
    folder = opened.folder
    with files.writing(folder, _COPY), locks.locked_folder(folder) as held:
        if not held:
            raise OutputError(f"{folder} is in use by another command; start this one again when that has ended")
        require_same(opened)
        files.replace_file(folder / MANIFEST, _serialised(manifest), _COPY)


def check_writable(opened: Opened) -> None:
    """Raise OutputError where `update_manifest` could not write; asked before the work begins."""
    places.check_file(opened.folder / MANIFEST, _COPY, within=opened.folder)


def require_same(opened: Opened) -> None:
    """Raise ArtifactError where another command has put something else in the place of an opened artifact."""
    try:
        same = files.identity(opened.folder) == opened.identity and _manifest_bytes(opened.folder) == opened.content
    except (OSError, files.UnreadableError):
        same = False
    if not same:
        raise ArtifactError(f"{opened.folder} was changed by another command in the meantime; start this one again")


class Golden(NamedTuple):
    """Golden cases, each name -> [cases, ...]: `outputs` are what the artifact is held to.

    Where a scheme stores tables in fewer bits, those are torch's with the same tables, and `fp32` has torch's with the
    tables as they were; it is empty where there is none. `positive` [cases] has the place of the candidate that was
    clicked next, where that is known. `further_outputs` and `further_fp32` are of golden cases whose inputs are too
    large to be kept, [further cases, ...], in the same two ways; no artifact is run for them.
    """

    inputs: Arrays
    outputs: Arrays
    fp32: Arrays = MappingProxyType({})
    positive: np.ndarray | None = None
    further_outputs: Arrays = MappingProxyType({})
    further_fp32: Arrays = MappingProxyType({})

    @property
    def beside_fp32(self) -> tuple[Arrays, Arrays]:
        """Return what a scheme is judged by: `fp32` and `outputs` of all golden cases, the further ones last."""
        if not self.further_outputs:
            return self.fp32, self.outputs
        fp32, outputs = (
            {name: np.concatenate([array, further[name]]) for name, array in own.items()}
            for own, further in ((self.fp32, self.further_fp32), (self.outputs, self.further_outputs))
        )
        return fp32, outputs


def write_golden(folder: Path, golden: Golden) -> None:
    """Write golden.npz: `inputs.NAME`, `outputs.NAME`, `fp32.NAME`, `positive.column`, cases on the first axis.

    With further cases also `further_outputs.NAME` and `further_fp32.NAME`.
    """
    sides = {side: getattr(golden, side) for side in (*_OWN, *_FURTHER)}
    arrays = {f"{side}.{name}": array for side, group in sides.items() for name, array in group.items()}
    if golden.positive is not None:
        arrays[_POSITIVE] = golden.positive
    with files.replacing(folder / GOLDEN, _OTHER_OUTPUT) as file:
        npz.write(file, arrays)


def open_artifact(folder: Path) -> Opened:
    """Read manifest.json and check what the rest of the program relies on; raises ArtifactError."""
    try:
        placing.recover(folder)
        real = folder.resolve()
        identity = files.identity(real)
        content = _manifest_bytes(real)
    except (OSError, ValueError, RuntimeError, files.UnreadableError) as error:  # RuntimeError: links in a circle
        if isinstance(error, files.UnreadableError) and not error.missing:
            raise ArtifactError(f"{folder / MANIFEST} {error}; {_AGAIN}") from error
        raise ArtifactError(
            f"{folder}: no artifact here (no {MANIFEST}); give the folder that an export wrote"
        ) from error
    return Opened(real, _parsed(folder / MANIFEST, content), content, identity)


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of an artifact; raises ArtifactError. See `open_artifact`."""
    return open_artifact(folder).manifest


def read_golden(folder: Path) -> Golden:
    """Read golden.npz; raises ArtifactError."""
    path = folder / GOLDEN
    try:
        arrays = npz.read(files.read_file(path, _MAX_GOLDEN_BYTES), _MAX_GOLDEN_BYTES)
    except files.UnreadableError as error:
        raise ArtifactError(f"{path} {error}; {_AGAIN}") from error
    sides: dict[str, dict[str, np.ndarray]] = {side: {} for side in (*_OWN, *_FURTHER)}
    positive = arrays.pop(_POSITIVE, None)
    if positive is not None and (positive.ndim != 1 or positive.dtype.kind != "i"):
        raise ArtifactError(f"{path}: {_POSITIVE!r} is no place of a candidate for each case; {_AGAIN}")
    for name, array in arrays.items():
        side, _, rest = name.partition(".")
        if side not in sides or not rest or not array.ndim:
            raise ArtifactError(f"{path}: unexpected entry {name!r}; {_AGAIN}")
        sides[side][rest] = array
    cases, further = ({len(array) for side in of for array in sides[side].values()} for of in (_OWN, _FURTHER))
    if positive is not None:
        cases.add(len(positive))
    if len(cases) != 1 or cases == {0} or len(further) > 1 or not (sides["inputs"] and sides["outputs"]):
        raise ArtifactError(f"{path}: no golden cases, or not the same number of each array; {_AGAIN}")
    return Golden(**sides, positive=positive)


def added_files(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    """Return the names of what a user put into an artifact's folder: what is there and not listed, links too.

    A manifest that a killed command had not finished is nobody's.
    """
    own = {MANIFEST, *(entry.path for entry in manifest.files)}
    try:
        rows = [(name, status.st_mode) for name, status in files.tree(folder)]
    except OSError:
        return ()
    return tuple(
        name
        for name, mode in rows
        if not (stat.S_ISDIR(mode) or name in own or (stat.S_ISREG(mode) and locks.is_unfinished(name, MANIFEST)))
    )


def read_items(folder: Path, manifest: Manifest) -> tuple[str, ...] | None:
    """Return the raw id of each row of the item table, None where the artifact does not list them; ArtifactError."""
    if ITEMS not in {entry.path for entry in manifest.files}:
        return None
    vocabulary = manifest.source.architecture.get("vocabulary")
    try:
        if not isinstance(vocabulary, int) or not 2 <= vocabulary <= catalogue.MAX_ROWS:
            raise catalogue.CatalogueError("is there, and manifest.json does not say how many items there are")
        return catalogue.parse(files.read_file(folder / ITEMS, catalogue.MAX_BYTES), vocabulary)
    except files.UnreadableError as error:
        raise ArtifactError(f"{folder / ITEMS} {error}; {_AGAIN}") from error


def changed_file(folder: Path, manifest: Manifest, read_beside: Collection[str] = ()) -> str | None:
    """Return what of an artifact is not as its manifest lists it, or None where all of it is.

    Files that a user added are none of its business, unless they could be taken for a part: inside a folder of the
    artifact's own, by a name that is read from an artifact (`read_beside` has those of its target), or by one that
    stands in the model file, which may name data beside it.
    """
    listed = {entry.path: entry for entry in manifest.files}
    try:
        there = {name: status.st_mode for name, status in files.tree(folder)}
    except OSError as error:
        return f"the files cannot be listed: {error.strerror}"
    for name, entry in listed.items():
        if name not in there:
            return f"{name} is missing"
        if stat.S_ISLNK(there[name]):
            return f"{name} is a link; links are not followed"
        path = folder / name
        try:
            if path.lstat().st_size != entry.bytes or files.sha256(path) != entry.sha256:
                return f"{name} is not the file that was exported (its SHA-256 differs from the manifest's)"
        except (OSError, files.UnreadableError) as error:
            return f"{name} {error}"
    own_folders = {path.partition("/")[0] for path in listed if "/" in path}
    for name in added_files(folder, manifest):
        first, _, inside = name.partition("/")
        if (inside and first in own_folders) or first in {*_READ_BY_NAME, *read_beside}:
            return f"{name} is not in the manifest; take it out of the artifact"
        if _stands_in(folder / manifest.model_file, PurePosixPath(name).name):
            return f"{name} is not in the manifest, and the model file has its name in it; take it out of the artifact"
    return None


def _stands_in(model_file: Path, name: str) -> bool:
    """Say whether a file has the bytes of a name in it; a folder of files, and what cannot be read, has none."""
    try:
        with files.open_file(model_file) as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(os.fsencode(name)) >= 0
    except (files.UnreadableError, OSError, ValueError):  # ValueError: an empty file
        return False


def copy_listed(opened: Opened, to: Path) -> None:
    """Copy the files that an artifact's manifest lists and nothing else; raises ArtifactError where one has changed."""
    for entry in opened.manifest.files:
        source, copied = opened.folder / entry.path, to / entry.path
        copied.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = files.copy_new(files.inside(opened.folder, entry.path), copied)
        except files.UnreadableError as error:
            raise ArtifactError(f"{source} {error}; {_AGAIN}") from error
        if digest != entry.sha256:
            raise ArtifactError(f"{source} has changed in the meantime; start this command again")


def _foreign(folder: Path) -> str | None:
    """Return what of a folder is no part of an artifact, or None where all of it is."""
    names = [name for name, status in files.tree(folder) if not stat.S_ISDIR(status.st_mode)]
    if MANIFEST not in names:
        return names[0] if names else "folders"
    try:
        manifest = strict_json.loads(_manifest_bytes(folder))
        own = {MANIFEST, *(entry["path"] for entry in manifest["files"])}
    except (OSError, ValueError, TypeError, LookupError, files.UnreadableError):
        return MANIFEST  # other tools have files of that name too
    return next((name for name in names if name not in own and not locks.is_unfinished(name, MANIFEST)), None)


def _manifest_bytes(folder: Path) -> bytes:
    return files.read_file(folder / MANIFEST, MAX_MANIFEST_BYTES)


def _serialised(manifest: Manifest) -> bytes:
    content = (json.dumps(manifest.to_json(), indent=2, allow_nan=False) + "\n").encode()
    if len(content) > MAX_MANIFEST_BYTES:
        raise OutputError(f"the manifest would be larger than the {MAX_MANIFEST_BYTES} bytes that are read of one")
    return content


def _parsed(path: Path, content: bytes) -> Manifest:
    try:
        return from_json(content)
    except ManifestError as error:
        raise ArtifactError(f"{path}: {error}; {_AGAIN}") from error
