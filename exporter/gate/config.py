"""`cocorr.yaml`: what a repository exports, and the limits on it; every error names the file, the line and the key."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from exporter.core import documents
from exporter.core.errors import ConfigError
from exporter.core.precision import Fold, Precision
from exporter.core.strict import Strict
from exporter.gate import limits
from exporter.gate.limits import Limit, LimitError
from safeio.errors import nearest

MOST_ARTIFACTS = 256
_ADVICE = "write one with --init"
_Word = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_Words = Annotated[tuple[_Word, ...], Field(strict=False, min_length=1, max_length=64)]
_Limits = Mapping[str, object]  # whose values `limits.parse` reads


class _Entry(Strict):
    """One program to export: a model by name or FILE.py:SPEC, or a .pt2 file with its golden inputs."""

    name: _Word | None = None
    model: _Word | None = None
    program: _Word | None = None
    checkpoint: _Word | None = None
    history: Annotated[str, Field(min_length=1, max_length=1 << 15)] | None = None
    structure: _Word | None = None
    embeddings: Literal["shipped", "cached"] = "shipped"
    file: _Word | None = None
    inputs: _Word | None = None
    ranking: _Word | None = None
    outputs: _Words | None = None
    targets: _Words
    profiles: _Words = ("generic",)
    precisions: Annotated[tuple[Precision, ...], Field(strict=False, min_length=1, max_length=8)] | None = None
    fold: Fold | None = None
    without_passes: Annotated[tuple[_Word, ...], Field(strict=False, max_length=64)] = ()
    limits: _Limits = Field(default_factory=dict)


class _Config(Strict):
    artifacts: Annotated[tuple[_Entry, ...], Field(strict=False, min_length=1, max_length=MOST_ARTIFACTS)]
    limits: _Limits = Field(default_factory=dict)


@dataclass(frozen=True)
class Entry:
    """One program to export for each of its targets, profiles and precisions; None stands for the usual choice.

    Paths are those of the file that names them, made relative to where the command runs. `title` is what the entry is
    called, by its name or by the model as it is written there, `line` that of the entry and `lines` those of its keys.
    """

    title: str
    model: str | None
    program: str | None
    checkpoint: Path | None
    history: str | None
    structure: str | None
    embeddings: Literal["shipped", "cached"]
    file: Path | None
    inputs: Path | None
    ranking: str | None
    outputs: tuple[str, ...] | None
    targets: tuple[str, ...]
    profiles: tuple[str, ...]
    precisions: tuple[Precision | None, ...]
    fold: Fold | None
    without_passes: frozenset[str]
    limits: Mapping[str, tuple[Limit, ...]]
    line: int
    lines: Mapping[str, int]


@dataclass(frozen=True)
class Config:
    """A configuration: its file, and its entries in their order, each with all limits that hold for it."""

    path: Path
    entries: tuple[Entry, ...]


def load(path: Path) -> Config:
    """Read a configuration; raises ConfigError with file, line and key."""
    document = documents.read(path, "configuration", ConfigError, _ADVICE)
    try:
        config = _Config.model_validate(document.data)
    except ValidationError as error:
        # What is deepest says most, and a key that nobody knows may be the one that is missing.
        order = sorted(error.errors(), key=lambda one: (-len(one["loc"]), one["type"] != "extra_forbidden"))
        raise ConfigError(_explain(document, order[0])) from error
    common = limits.merged(limits.defaults(), _limits(document, (), config.limits))
    entries = tuple(_entry(document, at, entry, common) for at, entry in enumerate(config.artifacts))
    return Config(path, entries)


def first_text(checkpoints: Sequence[tuple[str, str]], targets: Sequence[str]) -> str:
    """Return a configuration to begin with: models with their checkpoints, the shipped SCN without one; all defaults.

    Paths are as YAML has them in quotes.
    """
    entries = "" if checkpoints else f"  - model: scn\n    targets: [{', '.join(targets)}]\n"
    for model, checkpoint in checkpoints:
        entries += f"  - model: {model}\n"
        entries += f"    checkpoint: {json.dumps(checkpoint, ensure_ascii=False)}\n"
        entries += f"    targets: [{', '.join(targets)}]\n"
    stated = "".join(f"  {name}: {limit.text}\n" for name, several in limits.defaults().items() for limit in several)
    return (
        "# What cocorr-export check exports, and holds to cocorr.lock.json; docs/ci.md has every key.\n"
        f"artifacts:\n{entries}"
        "    # profiles: [generic, android-emulator]   # device profiles, by name or file\n"
        "    # precisions: [fp32, int8]\n\n"
        "# How far a figure may move from the baseline; also: at most 3 MB, at least 0.99, none. These are defaults.\n"
        f"limits:\n{stated}"
    )


def _entry(document: documents.Document, at: int, entry: _Entry, common: Mapping[str, tuple[Limit, ...]]) -> Entry:
    keys = ("artifacts", str(at))
    _check_kind(document, keys, entry)
    own = _limits(document, keys, entry.limits)
    here = document.path.parent
    for name in ("targets", "profiles", "precisions", "without_passes"):
        values = getattr(entry, name) or ()
        if len(set(values)) < len(values):
            raise ConfigError(f"{document.place((*keys, name))}: one of them stands twice")
    return Entry(
        title=entry.name or str(entry.model or entry.file),
        model=_model(entry.model, here),
        program=entry.program,
        checkpoint=None if entry.checkpoint is None else here / entry.checkpoint,
        history=_history(entry.history, here),
        structure=entry.structure,
        embeddings=entry.embeddings,
        file=None if entry.file is None else here / entry.file,
        inputs=None if entry.inputs is None else here / entry.inputs,
        ranking=entry.ranking,
        outputs=entry.outputs,
        targets=entry.targets,
        profiles=tuple(_file_or_name(profile, here, (".yaml", ".yml")) for profile in entry.profiles),
        precisions=entry.precisions or (None,),
        fold=entry.fold,
        without_passes=frozenset(entry.without_passes),
        limits=limits.merged(common, own),
        line=document.line(keys),
        lines={key: document.line((*keys, key)) for key in entry.model_fields_set},
    )


def _check_kind(document: documents.Document, keys: tuple[str, ...], entry: _Entry) -> None:
    """Raise ConfigError unless an entry is a model, or a program with its inputs, and has no key of the other."""
    of_model = ("model", "program", "checkpoint", "history", "structure")
    of_file = ("file", "inputs", "ranking", "outputs")
    if (entry.model is None) == (entry.file is None):
        raise ConfigError(f"{document.place(keys)}: give 'model', or 'file' and 'inputs'")
    if entry.file is not None and entry.inputs is None:
        raise ConfigError(f"{document.place(keys)}: give the golden inputs of the program: 'inputs'")
    for key in of_file if entry.model is not None else of_model:
        if getattr(entry, key) is not None:
            other = "'model'" if entry.model is not None else "'file'"
            raise ConfigError(f"{document.place((*keys, key))}: does not go with {other}; remove it")


def _limits(
    document: documents.Document, keys: tuple[str, ...], written: Mapping[str, object]
) -> dict[str, tuple[Limit, ...]]:
    """Return the limits that a mapping of the file states, by figure."""
    stated = {}
    for name, value in written.items():
        path = (*keys, "limits", name)
        if name not in limits.names():
            known = limits.names()
            raise ConfigError(
                f"{document.place(path)}: no such figure{nearest(name, known)}; known here: {', '.join(known)}"
            )
        try:
            stated[name] = limits.parse(name, value, document.line(path))
        except LimitError as error:
            raise ConfigError(f"{document.place(path)}: {documents.shown(value)}: {error}") from error
    return stated


def _model(name: str | None, here: Path) -> str | None:
    """Return a model's name, or FILE.py:SPEC with its file as seen from where the command runs."""
    return None if name is None else str(here / name) if ".py:" in name else name


def _history(history: str | None, here: Path) -> str | None:
    """Return clicks as they are, or the file of them as seen from where the command runs."""
    return None if history is None else _file_or_name(history, here, (".txt", ".csv"))


def _file_or_name(word: str, here: Path, suffixes: tuple[str, ...]) -> str:
    return str(here / word) if word.endswith(suffixes) else word


def _explain(document: documents.Document, problem: Any) -> str:
    return documents.explain(document, problem, lambda keys: documents.fields(_Config, keys))
