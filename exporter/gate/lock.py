"""`cocorr.lock.json`: the figures that a repository committed, which the gate compares with.

It holds stable figures only, no times and no paths, its keys sorted and each on a line of its own, so that git shows
what moved. Whoever may change it decides what passes: review it as code.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from exporter.artifact.manifest import as_json
from exporter.core.errors import ConfigError
from exporter.core.precision import Precision
from exporter.core.sections import Count, Number
from safeio import files, strict_json

_MAX_BYTES = 4 << 20
_SUFFIX = ".lock.json"
_ADVICE = "write it with --update"
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Name = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]


@dataclass(frozen=True, kw_only=True)
class Locked:
    """One artifact of the baseline: what it was made of, and its figures by name.

    `source` is the SHA-256 of its checkpoint, or of a .pt2 and its golden inputs, and `model_sha256` that of the files
    that its runtime loads. `instructions` has counts of one call by what counted them, since they hang on the processor
    that chose the kernels.
    """

    source: _Sha256
    precision: Precision
    model_sha256: _Sha256
    figures: Mapping[_Name, Number]
    instructions: Mapping[_Name, Count] = field(default_factory=dict)


@dataclass(frozen=True)
class Lock:
    """All artifacts of the baseline by name, and the versions of the packages that made them, which judge nothing."""

    artifacts: Mapping[_Name, Locked]
    versions: Mapping[_Name, _Name]
    schema_version: Literal[1] = 1


_SCHEMA = TypeAdapter(Lock)


def path_of(config: Path) -> Path:
    """Return where the lock of a configuration lies: `cocorr.lock.json` beside `cocorr.yaml`.

    That of a file with another ending has the whole name before `.lock.json`, so that no two share one.
    """
    return config.with_name((config.stem if config.suffix == ".yaml" else config.name) + _SUFFIX)


def read(path: Path) -> Lock | None:
    """Return a lock, None where there is none; raises ConfigError for one that cannot be used."""
    try:
        content = files.read_file(path, _MAX_BYTES, follow_link=True)
    except files.UnreadableError as error:
        if error.missing:
            return None
        raise ConfigError(f"{path} {error}; {_ADVICE}") from error
    try:
        strict_json.loads(content, unique=True)
        return _SCHEMA.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{path}: {place!r} is wrong: {first['msg'].lower()}; {_ADVICE}") from error
    except ValueError as error:
        raise ConfigError(f"{path}: {error}, as after an unresolved merge; {_ADVICE}") from error


def write(path: Path, lock: Lock) -> None:
    """Write a lock whole or not at all; raises OutputError."""
    files.replace_file(path, serialised(lock), "make it writable")


def serialised(lock: Lock) -> bytes:
    """Return the bytes of a lock: the same for the same figures."""
    return (json.dumps(as_json(lock), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n").encode()
