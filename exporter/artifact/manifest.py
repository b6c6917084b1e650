"""The manifest of an artifact: its typed form, how it is read from a stranger and written, and its JSON Schema.

Keys that are not known here are kept at the top, as later versions add some. A section that no command has written yet
is absent; `manifest.schema.json` beside this file is the published schema.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import Field, SkipValidation, TypeAdapter, ValidationError

from exporter.core.precision import Precision, has_own_tables, named
from exporter.core.sections import (
    Budget,
    Count,
    DeviceRun,
    Drawn,
    Exchange,
    External,
    Flops,
    Growth,
    Interface,
    Latency,
    Link,
    Memory,
    Network,
    Parity,
    PassedOver,
    Scheme,
    Selection,
    Source,
    Tensor,
)
from exporter.core.types import MOST_BYTES, Folding, Options, PassEffect
from safeio import strict_json
from safeio.errors import has_controls
from safeio.locks import is_unfinished
from safeio.places import MANIFEST

SCHEMA_VERSION: Literal[1] = 1
SCHEMA_FILE = "manifest.schema.json"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_ITEM_BYTES = {"float32": 4, "float16": 2}
_WORDS_SHOWN = 60
_NEVER_NULL = (
    *(
        "ranked",
        "batch",
        "any_batch",
        "drawn",
        "passes",
        "fold",
        "scheme",
        "passed_over",
        "interface",
        "flops",
        "memory",
    ),
    *("latency", "devices", "budgets"),
)
# absent until they are known
_LATER = (*_NEVER_NULL, "selection", "growth", "network")

Sizes = Annotated[int, Field(ge=1, le=10_000_000)]


class ManifestError(ValueError):
    """What is wrong with a manifest, in one phrase."""


@dataclass(frozen=True)
class File:
    """A file of the artifact: its path there, its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    bytes: Count
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything that an artifact says of itself.

    `options` are those of its target; `ranking` names the output whose order parity keeps, and `ranked` the one with
    the ids of the items that it is of, where the program itself chooses the best; `state` names for an output the input
    that takes it with the next call; `batch` says how many users a call takes where it is more than one, on the first
    axis of all inputs; with `any_batch` it takes any number of them there, and the
    sizes are those of one. `devices` are phones that ran it one after the other, of which the sections have the last.
    `scheme` is there where tables are stored otherwise than all else, `passed_over` where the
    precision was to be the mildest that fits. `others` are the keys of later versions.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    model: str
    program: str
    target: str
    profile: str
    precision: Precision
    options: Options
    threads: Annotated[int, Field(ge=1, le=256)]
    model_file: str
    files: tuple[File, ...]
    size_bytes: Count
    parameters: Count
    inputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    outputs: Annotated[tuple[Tensor, ...], Field(min_length=1)]
    ranking: str | None
    ranked: str | None = None
    state: Mapping[str, str] = field(default_factory=dict)
    external: External | None = None
    history_length: Sizes | None = None
    candidates: Sizes | None = None
    batch: Annotated[int, Field(ge=2, le=10_000_000)] | None = None
    any_batch: Literal[True] | None = None
    drawn: Drawn | None = None
    exchange: Exchange | None = None
    passes: tuple[PassEffect, ...] | None = None
    fold: Folding | None = None
    scheme: Scheme | None = None
    passed_over: tuple[PassedOver, ...] | None = None
    links: tuple[Link, ...] | None = None
    interface: Interface | None = None
    source: Source
    parity: Parity
    flops: Flops | None = None
    memory: Memory | None = None
    latency: Latency | None = None
    devices: tuple[DeviceRun, ...] | None = None
    budgets: tuple[Budget, ...] | None = None
    selection: Selection | None = None
    growth: Growth | None = None
    network: Network | None = None
    others: Annotated[Mapping[str, Any], SkipValidation] = field(default_factory=dict)

    @property
    def runs_in_cloud(self) -> bool:
        """Say whether a server calls the program: for a batch of users, or between what comes up and what goes down."""
        for_many = self.batch is not None or self.any_batch is not None
        if for_many or self.exchange is None:
            return for_many
        given, taken = ({tensor.name for tensor in side} for side in (self.outputs, self.inputs))
        return not (given.isdisjoint(self.exchange.down) and taken.isdisjoint(self.exchange.up))

    def to_json(self) -> dict[str, Any]:
        """Return the document that manifest.json holds, its keys in the order of the fields."""
        document: dict[str, Any] = as_json(self)
        others = document.pop("others")
        profiled = {"network"} if self.growth is not None else set()  # null says that the program has no exchange
        for name in _LATER:
            if document[name] is None and name not in profiled:
                del document[name]
        return {**document, **others}


def as_json(value: Any) -> Any:
    """Return a frozen value as JSON has it: objects for dataclasses and mappings, lists for tuples."""
    if is_dataclass(value):
        return {key.name: as_json(getattr(value, key.name)) for key in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(inner) for key, inner in value.items()}
    return [as_json(inner) for inner in value] if isinstance(value, tuple | list) else value


_SCHEMA = TypeAdapter(Manifest)
_KEYS = {key.name for key in fields(Manifest)} - {"others"}


def from_json(content: bytes) -> Manifest:
    """Return the manifest that a file's bytes say; raises ManifestError."""
    try:
        document = strict_json.loads(content)
    except ValueError as error:
        raise ManifestError("not readable as JSON") from error
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        raise ManifestError(f"schema_version is not {SCHEMA_VERSION}")
    others = {key: value for key, value in document.items() if key not in _KEYS}
    try:
        manifest = _SCHEMA.validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ManifestError(
            f"{place!r} is wrong: {first['msg'].lower()}, not {str(first['input'])[:_WORDS_SHOWN]!r}"
        ) from error
    problem = (
        _null_problem(document)
        or _text_problem(document)
        or _places_problem(manifest)
        or _names_problem(manifest)
        or _scheme_problem(manifest)
        or _verdict_problem(manifest)
    )
    if problem is not None:
        raise ManifestError(problem)
    return replace(manifest, others=others)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of manifest.json."""
    schema = _SCHEMA.json_schema()
    del schema["properties"]["others"]
    return {"$schema": _DIALECT, **schema}


def _null_problem(document: Mapping[str, Any]) -> str | None:
    null = next((name for name in _NEVER_NULL if name in document and document[name] is None), None)
    return None if null is None else f"{null!r} is null; a section that is not known is absent"


def _text_problem(document: Mapping[str, Any]) -> str | None:
    unprintable = next(filter(has_controls, _texts(document)), None)
    return None if unprintable is None else f"{unprintable[:_WORDS_SHOWN]!r} has control characters"


def _places_problem(manifest: Manifest) -> str | None:
    """Say which path of a manifest does not lie in the artifact."""
    paths = [file.path for file in manifest.files]
    outside = next((path for path in (manifest.model_file, *paths) if not is_inside(path)), None)
    if outside is not None:
        return f"{outside!r} is no path inside the artifact"
    unfinished = next((path for path in paths if is_unfinished(path, MANIFEST)), None)
    if unfinished is not None:  # the next command removes what has such a name
        return f"{unfinished!r} is the name of unfinished work, and of no file of an artifact"
    if len(set(paths)) < len(paths):
        return "'files' has a path twice"
    external = manifest.external
    if external is None or external.data_file is None:
        return None
    sizes = {file.path: file.bytes for file in manifest.files if "/" not in file.path}
    counts = {tensor.name: math.prod(tensor.shape) for tensor in external.tensors}
    data = external.data_file
    fit = data.name in sizes and set(data.tensors) == set(counts)
    fit = fit and all(
        offset + counts[name] * _ITEM_BYTES[dtype] <= sizes[data.name] for name, (offset, dtype) in data.tensors.items()
    )
    return None if fit else "'external' does not say where in which listed file the weights lie"


def _names_problem(manifest: Manifest) -> str | None:
    """Say which name of a manifest is that of no tensor, or of two."""
    tensors = [*manifest.inputs, *manifest.outputs, *(manifest.external.tensors if manifest.external else ())]
    for side in (manifest.inputs, manifest.outputs):
        if len({tensor.name for tensor in side}) < len(side):
            return "two tensors of one side have the same name"
    if manifest.batch is not None and any(tensor.shape[:1] != (manifest.batch,) for tensor in manifest.inputs):
        return "'batch' is not the first axis of all inputs"
    if manifest.any_batch is not None and any(
        tensor.shape[:1] != (1,) for tensor in (*manifest.inputs, *manifest.outputs)
    ):
        return "'any_batch' is of inputs and outputs whose first axis is one user"
    names = {tensor.name for tensor in tensors}
    outputs = {tensor.name for tensor in manifest.outputs}
    if manifest.ranking is not None and manifest.ranking not in outputs:
        return f"'ranking' names {manifest.ranking!r}, which is no output"
    if manifest.ranked is not None:
        shapes = {tensor.name: (tensor.dtype, tensor.shape) for tensor in manifest.outputs}
        ids, scores = shapes.get(manifest.ranked), shapes.get(str(manifest.ranking))
        if scores is None or ids != ("int32", scores[1]):
            return f"'ranked' names {manifest.ranked!r}, which is no output of the ids that 'ranking' is of"
    if manifest.interface is not None:
        for side, ports in (
            (manifest.inputs, manifest.interface.inputs),
            (manifest.outputs, manifest.interface.outputs),
        ):
            if [tensor.name for tensor in side] != [port.name for port in ports]:
                return "'interface' does not name the inputs and outputs in their order"
    state, inputs = manifest.state, {tensor.name for tensor in manifest.inputs}
    if not (set(state) <= outputs and set(state.values()) <= inputs and len(set(state.values())) == len(state)):
        return "'state' does not name outputs, each with an input of its own"
    crossing = [*manifest.exchange.up, *manifest.exchange.down] if manifest.exchange else []
    if len(set(crossing)) < len(crossing):
        return "'exchange' names a tensor twice"
    stray = next((name for name in crossing if name not in names), None)
    return None if stray is None else f"'exchange' names {stray!r}, which is no tensor of the program"


def _verdict_problem(manifest: Manifest) -> str | None:
    """Say what of a parity section contradicts its `pass`, which nobody would show then."""
    parity = manifest.parity
    if parity.verdict != "pass":
        return None
    sections = {"scheme": parity.scheme, "in_one_call": parity.in_one_call}
    parts = {"lowering": parity.lowering, **{name: part.verdict for name, part in sections.items() if part is not None}}
    failed = next((name for name, verdict in parts.items() if verdict == "fail"), None)
    if failed is not None:
        return f"'parity' says pass, and {failed!r} in it fail"
    if manifest.scheme is not None and parity.scheme is None:
        return f"'parity' says pass, and nothing of the tables in {manifest.scheme.tables}"
    if parity.cases == 0:
        return "'parity' says pass of no case"
    if parity.tolerance is None:
        return None
    allowed, errors = parity.tolerance.max_abs_error, parity.output_errors or {}
    beyond = next((name for name, error in errors.items() if (error or 0) > allowed.get(name, math.inf)), None)
    if beyond is not None:
        return f"'parity' says pass, and {beyond!r} is off by more than its tolerance"
    asked, overlap = parity.tolerance.top10_overlap, parity.top10_overlap
    if asked is not None and overlap is not None and overlap < asked:
        return "'parity' says pass, and its top 10 agree to less than its tolerance"
    return None


def _scheme_problem(manifest: Manifest) -> str | None:
    """Say what of a manifest's scheme is not that of its precision, or no figure of a table."""
    scheme = manifest.scheme
    if (scheme is not None) != has_own_tables(manifest.precision):
        return f"'scheme' is {'there' if scheme else 'missing'} at the precision {manifest.precision}"
    if scheme is None:
        return None
    if named(scheme.tables, scheme.body) != manifest.precision:
        return (
            f"'scheme' has tables in {scheme.tables} and a body in {scheme.body} at the precision {manifest.precision}"
        )
    for table in scheme.stored:
        sizes = (table.rows, table.width, table.lookups, table.fp32_bytes, table.bytes)
        # The error of what is stored in place of a number is never much larger than the number itself.
        if not all(1 <= size <= MOST_BYTES for size in sizes) or not 0 <= table.relative_rmse <= 2:
            return "'scheme.stored' has a table of impossible size, look-ups or error"
    if manifest.source.untrained and manifest.source.checkpoint_sha256 is not None:
        return "'source' has a checkpoint and drawn weights"
    return None


def is_inside(name: str) -> bool:
    """Say whether a path with `/` between its parts stays inside the folder that it is relative to."""
    path = PurePosixPath(name)
    whole = bool(path.parts) and not path.is_absolute() and path.as_posix() == name
    return whole and ".." not in path.parts and "\\" not in name and "\0" not in name


def _texts(document: Any) -> Iterator[str]:
    """Yield all keys and texts of a JSON document."""
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
