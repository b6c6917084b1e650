"""Finds the files of a .mlpackage; no name in the package can point outside of it, and no link is followed."""

import os
from pathlib import Path, PurePosixPath
from typing import Any

from exporter.core.errors import ProgramError
from safeio import files, strict_json

MANIFEST_LIMIT_BYTES = 1 << 20
MODEL_LIMIT_BYTES = 1 << 30
_MODEL_PATH = "@model_path"


class Package:
    """A package folder: the bytes of its root model, and its weight files by the names that the model uses."""

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            kind = "is a file, not a folder" if path.exists() else "does not exist"
            raise ProgramError(f"{path} {kind}; give the path of a .mlpackage folder")
        self._root = path.resolve()
        self.model_file = self._root_model()

    def model_bytes(self) -> bytes:
        """Return the bytes of the root .mlmodel; raises ProgramError when it cannot be read or is larger than 1 GiB."""
        return _read(self.model_file, MODEL_LIMIT_BYTES, "the model file")

    def weight_file(self, name: str) -> Path:
        """Return the file that a blob reference such as '@model_path/weights/weight.bin' means."""
        parts = PurePosixPath(name).parts
        if not parts or parts[0] != _MODEL_PATH or "\0" in name:
            raise ProgramError(f"weight file name {name!r} does not start with {_MODEL_PATH}/; it cannot be resolved")
        return self._inside(self.model_file.parent, PurePosixPath(*parts[1:]), f"weight file {name!r}")

    def _root_model(self) -> Path:
        if not os.path.lexists(self._root / "Manifest.json"):
            raise ProgramError("no Core ML package here (no Manifest.json); give a folder NAME.mlpackage")
        manifest_file = self._inside(self._root, PurePosixPath("Manifest.json"), "the manifest")
        text = _read(manifest_file, MANIFEST_LIMIT_BYTES, "Manifest.json")
        try:
            manifest: Any = strict_json.loads(text)
            entry = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
            relative = entry["path"]
        except (ValueError, LookupError, TypeError) as error:
            raise ProgramError("Manifest.json does not name a root model; this is not a Core ML package") from error
        if not isinstance(relative, str) or not relative or "\0" in relative:
            raise ProgramError("Manifest.json gives no usable path for the root model")
        return self._inside(self._root / "Data", PurePosixPath(relative), "the root model of Manifest.json")

    def _inside(self, base: Path, relative: PurePosixPath, what: str) -> Path:
        try:
            path = files.inside(self._root, str(base.relative_to(self._root) / relative))
        except files.UnreadableError as error:
            raise ProgramError(f"{what} ({relative}) {error}; the package is damaged or unsafe") from error
        if not path.is_file():
            raise ProgramError(f"{what} is missing: the package has no file {relative}")
        return path


def _read(path: Path, limit: int, what: str) -> bytes:
    try:
        return files.read_file(path, limit)
    except files.UnreadableError as error:
        raise ProgramError(f"{what} {error}; the package is damaged or unsafe") from error
