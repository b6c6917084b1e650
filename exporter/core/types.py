"""Frozen values that travel between the rooms."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from exporter.core.precision import Fold, Tables

if TYPE_CHECKING:  # the command line imports this module when it starts
    import numpy as np

    from exporter.core.protocols import Target

Arrays = Mapping[str, "np.ndarray"]
Verdict = Literal["pass", "fail", "unverified"]
Setting = bool | int | str
Options = Mapping[str, Setting]
"""What a profile chooses for one target, by name."""
Row = Mapping[str, object]
"""A row of a table that is only shown: its cells by the names of the columns."""
BudgetName = Literal["flops_per_token", "parameters", "size_bytes", "memory_bytes", "latency_us"]

Shape = tuple[int, ...]

MOST_PARTS = 1 << 16
"""More operations, or constants, than any program for a device has: one that names more is not read."""
MOST_BYTES = 1 << 36
"""More than any device has for one program: a figure of so many bytes is what a file claims, and not what runs."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and numpy dtype name of one input, output or intermediate."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class ExternalWeights:
    """Weights that stay outside a program: fp32 tensors by name, and the metadata that a package of them carries."""

    tensors: Arrays
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class DataFile:
    """A file beside the program from which it reads its external weights: (byte offset, dtype name) by tensor name."""

    name: str
    tensors: Mapping[str, tuple[int, str]]


@dataclass(frozen=True)
class About:
    """What a program says of itself to people: texts for a file's own descriptions, without times and paths.

    `inputs` and `outputs` have meanings by tensor name, where they are known; `made_by` and `maker_version` name this
    tool, `weights` says where they come from.
    """

    description: str = ""
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    made_by: str = "cocorr-export"
    maker_version: str = ""
    weights: str = ""
    licence: str = "none is stated; ask whoever made the weights"


# What a target lowers: the captured program; the same with values that fit into fp16; or that one, all in fp16.
GraphForm = Literal["captured", "within_half", "half"]


@dataclass(frozen=True)
class PassChoice:
    """The optional passes that a target has, those of them that a user leaves out, how far rows are folded.

    `tables` is what tables are stored in before a form of 16 bits is made.
    """

    names: tuple[str, ...] = ()
    without: frozenset[str] = frozenset()
    fold: Fold = "same_size"
    tables: Tables = "fp32"


@dataclass(frozen=True)
class StoredTable:
    """A table of embeddings that is stored in fewer bits: its shape, its bytes in fp32, and as they are stored.

    `lookups` says at how many places rows of it are looked up, for clicks and for candidates; `bytes` counts the
    scales; `relative_rmse` is the root of the sum of squared errors over that of squared values.
    Weights of a weights package have their `name`: of them it is one user's shape and bytes, and all golden users'
    errors together.
    """

    rows: int
    width: int
    lookups: int
    fp32_bytes: int
    bytes: int
    relative_rmse: float
    name: str | None = None


@dataclass(frozen=True)
class Folding:
    """How far rows were to be folded into tables, and how far they were: less far, where that was over a budget."""

    asked: Fold
    used: Fold


@dataclass(frozen=True)
class PassEffect:
    """What a pass did to a program.

    `applied` says whether the artifact has it; `max_error` is the largest difference that it makes to any output for
    golden inputs, torch against torch, None where it found nothing to rewrite; nodes are those of the graph. `reason`
    says why a pass that could have been there is not.
    """

    name: str
    applied: bool
    max_error: float | None
    nodes_before: int
    nodes_after: int
    reason: str | None = None


@dataclass(frozen=True)
class Captured:
    """One program after torch.export: `exported` is a torch ExportedProgram, `examples` holds one array per input.

    Where weights stay outside, `external` has them; they are inputs of the graph, or parameters of it with these names,
    as the target asked for. `plain` is the program before any pass, None where none ran: its operations know the lines
    of the source that they come from. `passes` says what passes did to it, and `modules` has for operations of the
    graph after passes, by the names of their nodes, the paths of the user's modules that they come from. With
    `any_batch` the first axis of all inputs and outputs is of any number of users; sizes here are those of one.
    """

    model: str
    program: str
    exported: Any
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    examples: Arrays
    external: ExternalWeights | None = None
    about: About = field(default_factory=About)
    plain: Any = None
    passes: tuple[PassEffect, ...] = ()
    modules: Mapping[str, str] = field(default_factory=dict)
    any_batch: bool = False


@dataclass(frozen=True)
class Operation:
    """One operation of a lowered graph.

    `native` is the name in the target's own vocabulary; `kind` the normal kind of `core.kinds`, or None where there is
    no match; `inputs` and `outputs` are shapes in order, constants included; `delegate` names who runs it, if not the
    runtime itself. `reads` and `writes` name all values that it reads and makes, in any order.
    """

    name: str
    native: str
    kind: str | None
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, Setting] = field(default_factory=dict)
    delegate: str | None = None
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Constant:
    """One constant of a lowered graph: its value's name, its shape, its bytes in the file and their SHA-256.

    `sha256` is None where the bytes are not in the file: external weights. `place` names where in the artifact they
    lie: constants with one place share their bytes.
    """

    name: str
    shape: tuple[int, ...]
    bytes: int
    sha256: str | None
    place: str


def extents(sizes: Iterable[int]) -> tuple[int, ...]:
    """Return the shape that a file gives; raises ValueError for a size below 0."""
    shape = tuple(int(size) for size in sizes)
    if any(size < 0 for size in shape):
        raise ValueError(f"a size below 0 in the shape {list(shape[:8])}")
    return shape


def stored_bytes(constants: Iterable[Constant]) -> int:
    """Return the bytes of constants, those that share their place once."""
    return sum({constant.place: constant.bytes for constant in constants}.values())


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of constants and planned activations of one artifact; None where the file does not tell, and the reason."""

    constant_bytes: int | None
    planned_activation_bytes: int | None
    plan_method: str
    reason: str | None = None


@dataclass(frozen=True)
class Place:
    """Where a file has one input or output of its program.

    `name` is the program's, None where the file has positions only; `position` counts from 0, in the order in which the
    file has them; `own_name` is what the file calls the tensor itself; `listed_at` is its position in a signature that
    has an order of its own.
    """

    side: Literal["input", "output"]
    name: str | None
    position: int
    own_name: str | None = None
    listed_at: int | None = None


@dataclass(frozen=True)
class Lowered:
    """What an artifact's own file says: its operations in order, its constants, its inputs and its memory plan.

    `inputs` pairs each input's name, None where the file has positions only, with the value that it is in the graph.
    `data` says where the program reads external weights; None: it has none, or takes them as inputs. `places` has what
    an app must know of inputs and outputs; a target may leave out what is as the program has it.
    """

    operations: tuple[Operation, ...]
    constants: tuple[Constant, ...]
    inputs: tuple[tuple[str | None, str], ...]
    memory_plan: MemoryPlan
    data: DataFile | None = None
    places: tuple[Place, ...] = ()


@dataclass(frozen=True)
class NpmPackage:
    """A package of npm, pinned: `integrity` is the SHA-512 of its tarball, as npm writes it.

    `files` are those that are kept, by their paths in the package; `imports` has a URL, relative to the file, for each
    module that these files import by its bare name, which a browser does not know.
    """

    name: str
    version: str
    integrity: str
    files: tuple[str, ...]
    imports: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class WebRuntime:
    """What runs a target's files in a browser, as plain WebAssembly: `loader` is the script that starts it there."""

    name: str
    loader: Path
    packages: tuple[NpmPackage, ...]


@dataclass(frozen=True)
class DeviceRuntime:
    """What runs a target's files, on this host and on a device: `name` in messages, `distribution` for pip.

    `modules` must be importable besides numpy, where a Python that is not ours runs the agent; `loader` is the source
    file that the agent loads the runtime by; `bundled` says whether the ARM64 bundle has it. `trivial` is a program
    that adds one to one number, by which a call of the runtime is timed; None where there is none. `web` runs it in a
    browser; None where nothing does.
    """

    name: str
    distribution: str
    modules: tuple[str, ...]
    loader: Path
    bundled: bool = False
    trivial: Path | None = None
    web: WebRuntime | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """Return the top-level packages of `modules`."""
        return tuple(module.partition(".")[0] for module in self.modules)


@dataclass(frozen=True)
class RunRequest:
    """What a connection shall run: every input has the cases on its first axis, [cases, *input shape].

    Each case is computed once for the outputs; case 0 is then timed: `warmup` calls unmeasured, `iterations` measured.
    `data` describes the data file beside the model file. Inputs named after its tensors are written into it, case by
    case, and the model is loaded again; the timed calls and a request without such inputs use the file as it is.
    `options` are those of the target that lowered it; `label` is what a person calls the artifact.
    """

    target: "Target"
    model_file: Path
    inputs: Arrays
    outputs: tuple[TensorSpec, ...]
    warmup: int = 10
    iterations: int = 100
    threads: int = 1
    time_limit_s: float = 120.0
    data: DataFile | None = None
    options: Options = field(default_factory=dict)
    label: str = ""


EQUAL_ELEMENTS = "elements are equal; here the one that stands first comes first"
"""What is unsettled of an operation that sorts: the interpreter says so, and parity knows when it does not matter."""


@dataclass(frozen=True)
class RunResult:
    """What came back: outputs [cases, *output shape], timings and memory of the process; None where not measured.

    `instructions` are those of the processor `counted_on` for one call of case 0, where the place can count them;
    `conditions` say under what the times were taken, as far as the device tells. `swap_ms` is the time of each case
    to write its weights and load the model again, where cases had weights. `unsettled` are the choices behind the
    outputs that only another machine could settle, a line for each; none where the target's own runtime computed
    them. `call_samples_us` are calls of a program that does next to nothing; `call_reason` says why there are none
    where the artifact was timed. `wasm_heap_bytes` is the memory of a browser's runtime; `warmup` the calls before the
    timed ones, where the place chose how many; a sample is the mean of `calls_per_sample` calls.
    `reason` is why something is not known, `memory_reason` of the memory alone.
    """

    outputs: Arrays
    executed_on: str
    load_ms: float | None
    first_us: float | None
    samples_us: tuple[float, ...]
    peak_rss_bytes: int | None
    baseline_rss_bytes: int | None
    threads: int | None
    reason: str | None = None
    swap_ms: tuple[float, ...] = ()
    instructions: int | None = None
    counted_on: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    connection: str = "host"
    unsettled: tuple[str, ...] = ()
    call_samples_us: tuple[float, ...] = ()
    call_reason: str | None = None
    wasm_heap_bytes: int | None = None
    warmup: int | None = None
    calls_per_sample: int = 1
    memory_reason: str | None = None


@dataclass(frozen=True)
class PairedTimes:
    """Times of two artifacts that were called in turn in one process, in microseconds, and where each ran."""

    executed_on: tuple[str, str]
    first_us: tuple[float, ...]
    second_us: tuple[float, ...]
    threads: tuple[int | None, int | None]
