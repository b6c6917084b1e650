"""Read a device profile and those that it extends; every error names the file, the line and the key at fault."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from exporter.core.errors import ProfileError, UnknownNameError
from exporter.profiles.schema import DeviceProfile

_MAX_PROFILE_BYTES = 1 << 20
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
            raise ProfileError(f"{where}: {base!r}: give the name or the file of a profile")
        try:
            path = _find(base, document.path.parent)
        except UnknownNameError as error:
            raise ProfileError(f"{where}: {error}") from error
        if path.resolve() in [known.path.resolve() for known in chain]:
            raise ProfileError(f"{where}: {base!r} extends this profile in turn; remove one of the two")
        chain.append(_read(path))
    origin: dict[str, _Document] = {}
    for document in chain:
        for key in document.data.keys() - {"extends"} - (_OWN if document is not chain[0] else set()):
            origin.setdefault(str(key), document)
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
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_PROFILE_BYTES + 1)
        if len(text) > _MAX_PROFILE_BYTES:
            raise ProfileError(f"{path}: larger than {_MAX_PROFILE_BYTES} bytes; that is no device profile")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise ProfileError(f"{path}: YAML aliases are not allowed in a profile; write the value out")
        data = yaml.safe_load(text)
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}; give the name or the file of a device profile") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        raise ProfileError(f"{path}{where}: not YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError as error:
        raise ProfileError(f"{path}: nested too deeply for a device profile") from error
    if not isinstance(data, dict):
        raise ProfileError(f"{path}:1: a profile is a mapping of keys to values")
    lines: dict[tuple[str, ...], int] = {}
    for keys, line in _lines(node):
        if lines.setdefault(keys, line) != line:
            raise ProfileError(f"{path}:{line}: {'.'.join(keys)}: this key stands already in line {lines[keys]}")
    return _Document(path, {str(key): value for key, value in data.items()}, lines)


def _lines(node: yaml.Node | None, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    """Yield (path of keys and positions, 1-based line) for everything in a composed YAML mapping."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            keys = (*prefix, str(key.value))
            yield keys, key.start_mark.line + 1
            yield from _lines(value, keys)
    elif isinstance(node, yaml.SequenceNode):
        for position, value in enumerate(node.value):
            yield (*prefix, str(position)), value.start_mark.line + 1
            yield from _lines(value, (*prefix, str(position)))


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
            return f"{where}: {problem['input']!r} is not one of {problem['ctx']['expected']}"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return f"{where}: {problem['input']!r}: {message[:1].lower()}{message[1:]}"


def _fields(keys: tuple[str, ...]) -> list[str]:
    """Return the keys that are allowed under the path `keys` of a profile."""
    model: type[BaseModel] = DeviceProfile
    for key in keys:
        if not key.isdecimal():  # a position in a list stands for its elements
            model = _model_in(model.model_fields[key].annotation)
    return sorted(model.model_fields) + (["extends"] if model is DeviceProfile else [])


def _model_in(annotation: Any) -> type[BaseModel]:
    options = (annotation, *getattr(annotation, "__args__", ()))
    return next(part for part in options if isinstance(part, type) and issubclass(part, BaseModel))
