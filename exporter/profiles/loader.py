"""Read a device profile and those that it extends; every error names the file, the line and the key at fault."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from exporter.core.errors import ProfileError, UnknownNameError
from exporter.profiles import yaml12
from exporter.profiles.schema import DeviceProfile, Mixed
from safeio import files

_MAX_PROFILE_BYTES = 1 << 16
_MAX_SHOWN = 120
_SHIPPED = Path(__file__).resolve().parents[2] / "device_profiles"  # beside this package in a wheel and a clone
# What belongs to one profile alone: the base's name would put two devices' artifacts into one place.
_OWN = {"name", "description"}


@dataclass(frozen=True)
class _Document:
    """One file: its top-level keys, and the line of every path of keys."""

    path: Path
    data: dict[str, Any]
    lines: Mapping[tuple[str, ...], int]

    def place(self, keys: tuple[str, ...]) -> str:
        """Return file, line and key of the longest part of `keys` that the file has."""
        line = next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), 1)
        return f"{self.path}:{line}: {'.'.join(keys) or 'profile'}"


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
            raise ProfileError(f"{where}: {_shown(base)}: give the name or the file of a profile")
        try:
            path = _find(base, document.path.parent)
        except UnknownNameError as error:
            raise ProfileError(f"{where}: {error}") from error
        if os.path.realpath(path) in [os.path.realpath(known.path) for known in chain]:
            raise ProfileError(f"{where}: {base!r} extends this profile in turn; remove one of the two")
        chain.append(_read(path))
    origin: dict[str, _Document] = {}
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


def _read(path: Path) -> _Document:
    """Read one file; it may be a link, since the user named it or the profile that does."""
    try:
        document = yaml12.read(files.read_file(path, _MAX_PROFILE_BYTES, follow_link=True))
    except files.UnreadableError as error:
        raise ProfileError(f"{path} {error}; give the name or the file of a device profile") from error
    except yaml12.YamlError as error:
        raise ProfileError(f"{path}:{error.line}: {error}") from error
    if not isinstance(document.data, dict):
        raise ProfileError(f"{path}:1: a profile is a mapping of keys to values")
    return _Document(path, document.data, document.lines)


def _explain(origin: Mapping[str, _Document], asked: _Document, problem: Any) -> str:
    keys = tuple(str(part) for part in problem["loc"])
    document = origin.get(keys[0], asked) if keys else asked
    where = document.place(keys)
    match problem["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key; known here: {', '.join(_fields(keys[:-1]))}"
        case "missing":
            return f"{where}: this key is missing"
        case "literal_error":
            return f"{where}: {_shown(problem['input'])} is not one of {problem['ctx']['expected']}"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return f"{where}: {_shown(problem['input'])}: {message[:1].lower()}{message[1:]}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _fields(keys: tuple[str, ...]) -> list[str]:
    """Return the keys that are allowed under the path `keys` of a profile."""
    model: type[BaseModel] = DeviceProfile
    for key in keys:
        if not key.isdecimal():  # a position in a list stands for its elements
            model = _model_in(model.model_fields[key].annotation)
    return sorted(model.model_fields) + (["extends"] if model is DeviceProfile else [])


def _model_in(annotation: Any) -> type[BaseModel]:
    options = (annotation, *getattr(annotation, "__args__", ()))
    return next((part for part in options if isinstance(part, type) and issubclass(part, BaseModel)), Mixed)
