"""YAML files that people write: read with the line of every key, so that each error names file, line and key."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from exporter.core.errors import BadInputError
from safeio import files, yaml12
from safeio.errors import nearest

_MAX_SHOWN = 120
_MAX_BYTES = 1 << 16


@dataclass(frozen=True)
class Document:
    """One file: its top-level keys, and the line of every path of keys; `kind` is what it is called in messages."""

    path: Path
    kind: str
    data: dict[str, object]
    lines: Mapping[tuple[str, ...], int]

    def line(self, keys: tuple[str, ...]) -> int:
        """Return the line of the longest part of `keys` that the file has."""
        return next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), 1)

    def place(self, keys: tuple[str, ...]) -> str:
        """Return file, line and key."""
        return f"{self.path}:{self.line(keys)}: {'.'.join(keys) or self.kind}"


def read(path: Path, kind: str, failure: type[BadInputError], advice: str) -> Document:
    """Read one file of at most 64 KiB; it may be a link, since the user named it. Raises `failure`, with `advice`."""
    try:
        document = yaml12.read(files.read_file(path, _MAX_BYTES, follow_link=True))
    except files.UnreadableError as error:
        raise failure(f"{path} {error}; {advice}") from error
    except yaml12.YamlError as error:
        raise failure(f"{path}:{error.line}: {error}") from error
    if not isinstance(document.data, dict):
        raise failure(f"{path}:1: a {kind} is a mapping of keys to values")
    return Document(path, kind, document.data, document.lines)


def explain(document: Document, problem: Any, allowed: Callable[[tuple[str, ...]], list[str]]) -> str:
    """Return one error of pydantic as a person reads it; `allowed` gives the keys under a path of keys."""
    keys = tuple(str(part) for part in problem["loc"])
    where = document.place(keys)
    match problem["type"]:
        case "extra_forbidden":
            known = allowed(keys[:-1])
            return f"{where}: unknown key{nearest(keys[-1], known)}; known here: {', '.join(known)}"
        case "missing":
            return f"{where}: this key is missing"
        case "literal_error":
            return f"{where}: {shown(problem['input'])} is not one of {problem['ctx']['expected']}"
        case "model_type":
            return f"{where}: {shown(problem['input'])}: give a mapping of keys to values"
        case _:
            message = problem["msg"].removeprefix("Value error, ")
            return f"{where}: {shown(problem['input'])}: {message[:1].lower()}{message[1:]}"


def shown(value: Any) -> str:
    """Return a value of a file as a message shows it."""
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def fields(model: type[BaseModel], keys: tuple[str, ...], otherwise: type[BaseModel] | None = None) -> list[str]:
    """Return the keys that `model` allows under a path of keys; `otherwise` stands for parts that are no model."""
    for key in keys:
        if not key.isdecimal():  # a position in a list stands for its elements
            model = _model_in(model.model_fields[key].annotation) or otherwise or model
    return sorted(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    parts = (annotation, *getattr(annotation, "__args__", ()))
    return next((part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)), None)
