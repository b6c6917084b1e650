"""What manifest.json may say: names, types and ranges of all its sections, so that no reader meets anything else.

A manifest comes from a stranger. Keys that are not known here are left alone, as later versions add some; a section
that a command has not written yet is absent.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from exporter.core.types import Precision, Verdict
from safeio.errors import has_controls
from safeio.locks import is_unfinished
from safeio.places import MANIFEST

SCHEMA_VERSION = 1
MAX_NUMBER = 2**63 - 1
_ITEM_BYTES = {"float32": 4, "float16": 2}
_STRICT = ConfigDict(strict=True, extra="ignore")
_WORDS_SHOWN = 60
_NEVER_NULL = ("flops", "memory", "latency", "budgets")

Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Number = Annotated[float, Field(ge=-1e300, le=1e300)]  # which infinity and NaN are not
Extent = Annotated[int, Field(gt=0, lt=1 << 31)]
Sizes = Annotated[int, Field(ge=1, le=10_000_000)]


@dataclass(frozen=True, config=_STRICT)
class Tensor:
    """An input or output: its shape without a cases axis."""

    name: str
    shape: list[Extent]
    dtype: Literal["int32", "float32"]


@dataclass(frozen=True, config=_STRICT)
class File:
    """A file of the artifact: its path there, its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    bytes: Count
    sha256: str


@dataclass(frozen=True, config=_STRICT)
class DataFile:
    """The file that holds external weights: byte offset and dtype of each tensor."""

    name: str
    tensors: dict[str, tuple[Count, Literal["float32", "float16"]]]


@dataclass(frozen=True, config=_STRICT)
class External:
    """Weights outside the program; without a data file they are inputs."""

    metadata: dict[str, str]
    tensors: list[Tensor]
    data_file: DataFile | None = None


@dataclass(frozen=True, config=_STRICT)
class Exchange:
    """Names of the tensors that cross the network with each call."""

    up: list[str]
    down: list[str]


@dataclass(frozen=True, config=_STRICT)
class Link:
    """A network link of the profile."""

    name: str
    up_bytes_per_s: Annotated[float, Field(ge=1, le=1e15)]
    down_bytes_per_s: Annotated[float, Field(ge=1, le=1e15)]
    round_trip_ms: Annotated[float, Field(ge=0, le=1e9)] | None = None


@dataclass(frozen=True, config=_STRICT)
class Source:
    """Where the artifact comes from."""

    checkpoint_sha256: str | None = None
    untrained: bool = False
    architecture: dict[str, int | str] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True, config=_STRICT)
class Parity:
    """The verdict and the figures that it rests on."""

    verdict: Verdict
    reason: str | None = None
    executed_on: str | None = None
    cases: Count | None = None
    max_abs_error: Number | None = None
    max_rel_error: Number | None = None
    output_errors: dict[str, Number | None] | None = None
    top10_overlap: Number | None = None
    kendall_tau: Number | None = None
    flip_margin: Number | None = None
    twice_max_error: Number | None = None
    could_flip: Count | None = None
    ranking_reason: str | None = None
    unsettled: list[str] | None = None


@dataclass(frozen=True, config=_STRICT)
class Uncounted:
    """Operations without a formula."""

    operation: str
    count: Count


@dataclass(frozen=True, config=_STRICT)
class Delegate:
    """What one delegate took; null is the runtime itself."""

    delegate: str | None
    operations: dict[str, Count]
    flops: Count | None


@dataclass(frozen=True, config=_STRICT)
class Flops:
    """Counts of the artifact's own file."""

    unit: str
    total: Count | None
    macs: Count | None
    moved_bytes: Count | None
    uncounted: list[Uncounted]
    by_kind: dict[str, Count | None]
    delegates: list[Delegate]
    per_token: Number | None
    per_token_method: str | None
    per_token_reason: str | None


@dataclass(frozen=True, config=_STRICT)
class Memory:
    """Bytes of constants, of the plan and of the process."""

    constant_bytes: Count | None = None
    embedding_bytes: Count | None = None
    body_bytes: Count | None = None
    head_bytes: Count | None = None
    planned_activation_bytes: Count | None = None
    plan_method: str | None = None
    peak_rss_bytes: Count | None = None
    baseline_rss_bytes: Count | None = None
    artifact_rss_bytes: Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)] | None = None
    reason: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Latency:
    """Times of single calls, in the units of their names."""

    connection: str | None = None
    threads: Count | None = None
    warmup: Count | None = None
    iterations: Count | None = None
    load_ms: Number | None = None
    first_us: Number | None = None
    p50_us: Number | None = None
    p90_us: Number | None = None
    p99_us: Number | None = None
    instructions: Count | None = None
    conditions: dict[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, config=_STRICT)
class Budget:
    """A limit of the profile and what the artifact needs of it."""

    budget: Literal["flops_per_token", "parameters", "size_bytes", "memory_bytes", "latency_us"]
    limit: Number
    value: Number | None
    within: bool | None
    reason: str | None


@dataclass(frozen=True, config=_STRICT)
class Agreement:
    """How far a smaller sub-network ranks as the chosen one."""

    top10_overlap: Number | None
    kendall_tau: Number | None


@dataclass(frozen=True, config=_STRICT)
class Selection:
    """Which blocks run, and which were left out to fit."""

    structure: Annotated[str, Field(max_length=64)]
    chosen: str | None
    logits: list[Number]
    left_out: list[Count]
    agreement_with_chosen: Agreement | None


@dataclass(frozen=True, config=_STRICT)
class Manifest:
    """A whole manifest; the last sections come with `profile`, whose own form they have."""

    schema_version: Literal[1]
    model: str
    program: str
    target: str
    profile: str
    precision: Precision
    options: dict[str, Any]
    threads: Annotated[int, Field(ge=1, le=256)]
    model_file: str
    files: list[File]
    inputs: Annotated[list[Tensor], Field(min_length=1)]
    outputs: Annotated[list[Tensor], Field(min_length=1)]
    ranking: str | None
    source: Source
    parity: Parity
    size_bytes: Count
    parameters: Count
    state: dict[str, str] = field(default_factory=dict)
    external: External | None = None
    history_length: Sizes | None = None
    candidates: Sizes | None = None
    exchange: Exchange | None = None
    links: list[Link] | None = None
    flops: Flops | None = None
    memory: Memory | None = None
    latency: Latency | None = None
    budgets: list[Budget] | None = None
    selection: Selection | None = None
    growth: dict[str, Any] | None = None
    network: dict[str, Any] | None = None


_SCHEMA = TypeAdapter(Manifest)


def problem(document: Any, content: bytes) -> str | None:
    """Return what is wrong with a manifest, in one phrase, or None; `document` is what the JSON in `content` says."""
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        return f"schema_version is not {SCHEMA_VERSION}"
    try:
        manifest = _SCHEMA.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"{place!r} is wrong: {first['msg'].lower()}, not {str(first['input'])[:_WORDS_SHOWN]!r}"
    null = next((name for name in _NEVER_NULL if name in document and document[name] is None), None)
    if null is not None:
        return f"{null!r} is null; a section that is not known is absent"
    unprintable = next(filter(has_controls, _texts(document)), None)
    if unprintable is not None:
        return f"{unprintable[:_WORDS_SHOWN]!r} has control characters"
    return _places_problem(manifest) or _names_problem(manifest)


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
    names = {tensor.name for tensor in tensors}
    outputs = {tensor.name for tensor in manifest.outputs}
    if manifest.ranking is not None and manifest.ranking not in outputs:
        return f"'ranking' names {manifest.ranking!r}, which is no output"
    crossing = [*manifest.exchange.up, *manifest.exchange.down] if manifest.exchange else []
    stray = next((name for name in crossing if name not in names), None)
    return None if stray is None else f"'exchange' names {stray!r}, which is no tensor of the program"


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
