"""Read a device profile and those that it extends; every error names the file, the line and the key at fault."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from exporter.core import documents
from exporter.core.documents import Document
from exporter.core.errors import ProfileError, UnknownNameError
from exporter.profiles.schema import DeviceProfile, Mixed

_SHIPPED = Path(__file__).resolve().parents[2] / "device_profiles"  # beside this package in a wheel and a clone
# What belongs to one profile alone: the base's name would put two devices' artifacts into one place.
_OWN = {"name", "description"}


def shipped() -> dict[str, Path]:
    """Return name -> file of the profiles that come with the project."""
    return {file.stem: file for file in sorted(_SHIPPED.glob("*.yaml"))}


def load(name_or_file: str) -> DeviceProfile:
    """Load a shipped profile by name, or a profile file by its path; raises ProfileError or UnknownNameError."""
    chain = [_read(_find(name_or_file, Path()))]
    while "extends" in chain[-1].data:
        document = chain[-1]
        where = document.place(("extends",))
        base = document.data["extends"]
        if not isinstance(base, str):
            raise ProfileError(f"{where}: {documents.shown(base)}: give the name or the file of a profile")
        try:
            path = _find(base, document.path.parent)
        except UnknownNameError as error:
            raise ProfileError(f"{where}: {error}") from error
        if os.path.realpath(path) in [os.path.realpath(known.path) for known in chain]:
            raise ProfileError(f"{where}: {base!r} extends this profile in turn; remove one of the two")
        chain.append(_read(path))
    origin: dict[str, Document] = {}
    for document in chain:
        for key in document.data.keys() - {"extends"} - (_OWN if document is not chain[0] else set()):
            origin.setdefault(key, document)
    data = {key: document.data[key] for key, document in origin.items()}
    try:
        return DeviceProfile.model_validate(data)
    except ValidationError as error:
        raise ProfileError("; ".join(_explain(origin, chain[0], one) for one in error.errors()[:3])) from error


def _find(name_or_file: str, folder: Path) -> Path:
    """Return the file of a shipped name, or of a path relative to `folder`."""
    known = shipped()
    if name_or_file in known:
        return known[name_or_file]
    path = Path(name_or_file)
    if "\0" not in name_or_file and (path.suffix in {".yaml", ".yml"} or len(path.parts) > 1):
        return folder / path
    raise UnknownNameError("profile", name_or_file, known)


def _read(path: Path) -> Document:
    return documents.read(path, "profile", ProfileError, "give the name or the file of a device profile")


def _explain(origin: Mapping[str, Document], asked: Document, problem: Any) -> str:
    keys = problem["loc"]
    document = origin.get(str(keys[0]), asked) if keys else asked
    return documents.explain(document, problem, _fields)


def _fields(keys: tuple[str, ...]) -> list[str]:
    """Return the keys that are allowed under the path `keys` of a profile."""
    return [*documents.fields(DeviceProfile, keys, Mixed), *([] if keys else ["extends"])]
