"""Artifacts on disk: written beside their place, hashed, and put there in one step when whole."""

import ctypes
import errno
import hashlib
import io
import json
import math
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, get_args

import numpy as np

from exporter.core.errors import ArtifactError, OutputError
from exporter.core.types import Arrays, Precision

MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SCHEMA_VERSION = 1
_NOT_SHIPPED = {MANIFEST, GOLDEN}

_MAX_MANIFEST_BYTES = 16 << 20
_MAX_GOLDEN_BYTES = 1 << 30
_STAGING = ".partial-"
_ASIDE = ".old"
_ITEM_BYTES = {"float32": 4, "float16": 2}


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def list_files(folder: Path) -> list[dict[str, Any]]:
    """Return path, bytes and sha256 of every file below `folder` but the manifest, sorted by path."""
    return [
        {"path": file.relative_to(folder).as_posix(), "bytes": file.stat().st_size, "sha256": sha256(file)}
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file != folder / MANIFEST
    ]


def shipped_bytes(folder: Path) -> int:
    """Return the bytes of what goes to the device: all files but those that only describe and judge the artifact."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file() and file.name not in _NOT_SHIPPED)


@contextmanager
def staging(place: Path) -> Iterator[Path]:
    """Give an empty folder beside `place`; put it at `place` if the body ends well, else remove it.

    What stood at `place` before is exchanged in one step of the file system, so that a kill at any time leaves either
    the old artifact or the new one, whole. Raises OutputError where the folder cannot be written, or where `place`
    holds something that is no artifact.
    """
    if place.exists() and not (place / MANIFEST).is_file() and (not place.is_dir() or any(place.iterdir())):
        raise OutputError(f"{place} holds something that is no artifact; choose another --output or move it away")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(place)
        folder = place.with_name(f".{place.name}{_STAGING}{os.getpid()}")
        folder.mkdir()
    except OSError as error:
        raise _cannot_write(place, error) from error
    try:
        yield folder
        try:
            _exchange(folder, place)
        except OSError as error:
            raise _cannot_write(place, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write manifest.json whole or not at all; raises OutputError."""
    temporary = folder / f".{MANIFEST}.{os.getpid()}"
    try:
        temporary.write_text(json.dumps(manifest, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(folder / MANIFEST)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_golden(folder: Path, inputs: Arrays, outputs: Arrays) -> None:
    """Write golden.npz: `inputs.NAME` and `outputs.NAME`, the cases on the first axis of each array."""
    arrays = {f"inputs.{name}": array for name, array in inputs.items()}
    arrays |= {f"outputs.{name}": array for name, array in outputs.items()}
    try:
        np.savez_compressed(folder / GOLDEN, allow_pickle=False, **arrays)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read manifest.json and check what the rest of the program relies on; raises ArtifactError."""
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ArtifactError(f"{path}: larger than {_MAX_MANIFEST_BYTES} bytes; that is no manifest")
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"{folder}: no artifact here (no {MANIFEST}); give the folder that an export wrote"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path}: not readable as JSON; export the artifact again") from error
    problem = _manifest_problem(manifest)
    if problem:
        raise ArtifactError(f"{path}: {problem}; export the artifact again")
    return dict(manifest)


def read_golden(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Read golden.npz as (inputs, outputs), each name -> [cases, ...]; raises ArtifactError."""
    path = folder / GOLDEN
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_GOLDEN_BYTES:
                raise ArtifactError(
                    f"{path}: unpacks to more than {_MAX_GOLDEN_BYTES} bytes; export the artifact again"
                )
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ArtifactError(f"{path}: not readable as golden cases; export the artifact again") from error
    sides: dict[str, dict[str, np.ndarray]] = {"inputs": {}, "outputs": {}}
    for name, array in arrays.items():
        side, _, rest = name.partition(".")
        if side not in sides or not rest or not array.ndim:
            raise ArtifactError(f"{path}: unexpected entry {name!r}; export the artifact again")
        sides[side][rest] = array
    cases = {len(array) for array in arrays.values()}
    if len(cases) != 1 or cases == {0} or not all(sides.values()):
        raise ArtifactError(f"{path}: no golden cases, or not the same number of each array; export the artifact again")
    return sides["inputs"], sides["outputs"]


def changed_file(folder: Path, manifest: Mapping[str, Any]) -> str | None:
    """Return what differs between the files on disk and the manifest's list, or None where nothing does."""
    listed = {entry["path"]: entry for entry in manifest["files"]}
    for name, entry in listed.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"] or sha256(path) != entry["sha256"]:
            return f"{name} is not the file that was exported (its SHA-256 differs from the manifest's)"
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and name not in listed and name != MANIFEST:
            return f"{name} is not in the manifest"
    return None


def _manifest_problem(manifest: Any) -> str | None:
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        return f"schema_version is not {SCHEMA_VERSION}"
    for key in ("model", "program", "target", "profile", "precision", "model_file"):
        if not isinstance(manifest.get(key), str):
            return f"{key!r} is missing or no text"
    if manifest["precision"] not in get_args(Precision):
        return f"'precision' is none of {', '.join(get_args(Precision))}"
    if type(manifest.get("threads")) is not int or not 0 < manifest["threads"] <= 256:
        return "'threads' is no number from 1 to 256"
    if not isinstance(manifest.get("ranking"), str | None):
        return "'ranking' is neither null nor the name of an output"
    for key in ("options", "source", "parity"):
        if not isinstance(manifest.get(key), dict):
            return f"{key!r} is missing or no object"
    for key in ("inputs", "outputs"):
        specs = manifest.get(key)
        if not isinstance(specs, list) or not specs or not all(map(_is_tensor, specs)):
            return f"{key!r} is missing or not a list of name, shape and dtype"
    files = manifest.get("files")
    if not isinstance(files, list) or not all(map(_is_file_entry, files)):
        return "'files' is missing, or an entry is no path inside the artifact with bytes and sha256"
    if not _is_inside(manifest["model_file"]):
        return "'model_file' points out of the artifact"
    if manifest.get("external") is not None and not _is_external(manifest["external"], files):
        return "'external' does not say where in which listed file the weights lie"
    return None


def _is_tensor(spec: Any) -> bool:
    return (
        isinstance(spec, dict)
        and isinstance(spec.get("name"), str)
        and spec.get("dtype") in {"int32", "float32"}
        and isinstance(spec.get("shape"), list)
        and all(type(extent) is int and 0 < extent < 1 << 31 for extent in spec["shape"])
    )


def _is_file_entry(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("path"), str)
        and _is_inside(entry["path"])
        and type(entry.get("bytes")) is int
        and isinstance(entry.get("sha256"), str)
    )


def _is_external(external: Any, files: list[dict[str, Any]]) -> bool:
    """Say whether weights outside the program are described: each has a place inside a file of the artifact."""
    if not isinstance(external, dict) or not isinstance(external.get("metadata"), dict):
        return False
    tensors = external.get("tensors")
    if not isinstance(tensors, list) or not all(map(_is_tensor, tensors)):
        return False
    data_file = external.get("data_file")
    if data_file is None:  # the weights are inputs
        return True
    if not isinstance(data_file, dict) or not isinstance(data_file.get("tensors"), dict):
        return False
    sizes = {entry["path"]: entry["bytes"] for entry in files if "/" not in entry["path"]}
    counts = {spec["name"]: math.prod(spec["shape"]) for spec in tensors}
    places = data_file["tensors"]
    return (
        data_file.get("name") in sizes
        and set(places) == set(counts)
        and all(_fits(place, counts[name], sizes[data_file["name"]]) for name, place in places.items())
    )


def _fits(place: Any, elements: int, size: int) -> bool:
    """Say whether a place [byte offset, dtype] holds so many elements within a file of `size` bytes."""
    if not isinstance(place, list) or len(place) != 2 or place[1] not in _ITEM_BYTES:
        return False
    return type(place[0]) is int and 0 <= place[0] <= size - elements * _ITEM_BYTES[place[1]]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        bool(path.parts) and not path.is_absolute() and ".." not in path.parts and "\\" not in name and "\0" not in name
    )


def _cannot_write(place: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {error.filename or place}: {error.strerror}; choose another --output")


def _remove_abandoned(place: Path) -> None:
    """Remove what killed processes left; an artifact that one had moved aside goes back to its place."""
    for folder in place.parent.glob(f".{place.name}{_STAGING}*"):
        pid = folder.name.removesuffix(_ASIDE).rpartition("-")[2]
        if not pid.isdigit() or _lives(int(pid)):
            continue
        if folder.name.endswith(_ASIDE) and not place.exists():
            folder.rename(place)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _exchange(new: Path, place: Path) -> None:
    """Put `new` at `place`; what stood there is at `new` afterwards."""
    if not place.exists():
        new.rename(place)
    elif not _swap(new, place):
        aside = new.with_name(new.name + _ASIDE)
        place.rename(aside)
        new.rename(place)
        aside.rename(new)


def _swap(one: Path, other: Path) -> bool:
    """Exchange two folders in one step of the file system; return False where it cannot, raise OSError if it failed."""
    libc = ctypes.CDLL(None, use_errno=True)
    if sys.platform == "darwin":  # renamex_np(2), RENAME_SWAP
        failed = libc.renamex_np(os.fsencode(one), os.fsencode(other), 2)
    else:  # renameat2(2), AT_FDCWD and RENAME_EXCHANGE
        failed = libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2)
    number = ctypes.get_errno()
    if failed and number not in {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP}:
        raise OSError(number, os.strerror(number), str(other))
    return not failed
