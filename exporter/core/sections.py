"""The sections of a manifest as frozen values: what is judged, counted and measured of an artifact.

The types say what each field may be, and `artifact.manifest` holds what it reads to them. None stands for what could
not be measured; the section's `reason` says why.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from exporter.core.precision import Body, FewerBits, Precision, Weights
from exporter.core.types import BudgetName, DataFile, StoredTable, TensorSpec, Verdict

MAX_NUMBER = 2**63 - 1

Count = Annotated[int, Field(ge=0, le=MAX_NUMBER)]
Difference = Annotated[int, Field(ge=-MAX_NUMBER, le=MAX_NUMBER)]
Number = Difference | Annotated[float, Field(ge=-1e300, le=1e300)]  # which infinity and NaN are not
Rate = Annotated[float, Field(ge=1, le=1e15)]
Extent = Annotated[int, Field(gt=0, lt=1 << 31)]


@dataclass(frozen=True)
class Tensor:
    """An input or output of a program: its shape without a cases axis."""

    name: str
    shape: tuple[Extent, ...]
    dtype: Literal["int32", "float32"]

    @property
    def spec(self) -> TensorSpec:
        """Return it as what a runtime is asked for."""
        return TensorSpec(self.name, self.shape, self.dtype)


@dataclass(frozen=True)
class WeightsFile:
    """The file beside a program that holds its external weights: byte offset and dtype of each tensor, by name."""

    name: str
    tensors: Mapping[str, tuple[Count, Literal["float32", "float16"]]]

    @property
    def layout(self) -> DataFile:
        """Return it as what a runtime is told of it."""
        return DataFile(self.name, self.tensors)


@dataclass(frozen=True)
class External:
    """Weights outside the program: `metadata` is that of their weights package; without a data file they are inputs.

    `stored` is what their package has them in; a data file and inputs have what that gives in fp32.
    """

    metadata: Mapping[str, str]
    tensors: tuple[Tensor, ...]
    data_file: WeightsFile | None = None
    stored: Weights = "fp32"

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor by name, in the order of the program's inputs."""
        return {tensor.name: tensor.shape for tensor in self.tensors}


@dataclass(frozen=True, kw_only=True)
class Port:
    """How an app meets one input or output: `position`, `own_name` and `listed_at` as in core.types.Place.

    `meaning` is "" where nobody stated it; with `holds_items` the numbers are rows of the item table.
    """

    name: str
    position: Count
    own_name: str | None = None
    listed_at: Count | None = None
    meaning: str = ""
    holds_items: bool = False


@dataclass(frozen=True)
class Interface:
    """What a program is for, and its inputs and outputs as an app meets them."""

    description: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]


@dataclass(frozen=True)
class Exchange:
    """Names of the tensors that cross the network with each call: up to the cloud, down to the device."""

    up: tuple[str, ...]
    down: tuple[str, ...]


@dataclass(frozen=True)
class Link:
    """A network link of the device profile: bytes per second each way, the round trip in milliseconds."""

    name: str
    up_bytes_per_s: Rate
    down_bytes_per_s: Rate
    round_trip_ms: Annotated[float, Field(ge=0, le=1e9)] | None = None


@dataclass(frozen=True)
class Source:
    """Where an artifact comes from: the checkpoint's SHA-256, its architecture, versions.

    Without a checkpoint the weights were drawn, or they came with a program: `program_sha256` is that of its .pt2, or
    of its graph and weights where it came from memory.
    """

    checkpoint_sha256: str | None = None
    untrained: bool = False
    architecture: Mapping[str, int | str] = field(default_factory=dict)
    versions: Mapping[str, str | None] = field(default_factory=dict)
    program_sha256: str | None = None


@dataclass(frozen=True)
class Tolerance:
    """What was asked for: for each output, by name, the largest absolute error that any of its cases was allowed, and
    the mean top-10 overlap.
    """

    max_abs_error: Mapping[str, Number]
    top10_overlap: Number | None


@dataclass(frozen=True)
class Scheme:
    """What tables are stored in and what all else is, and each table that is stored so, then a package's weights."""

    tables: FewerBits
    body: Body
    stored: Annotated[tuple[StoredTable, ...], Field(min_length=1)]


@dataclass(frozen=True)
class PassedOver:
    """A milder scheme that was tried first, and the budgets that it exceeds, in words."""

    precision: Precision
    reason: str


@dataclass(frozen=True, kw_only=True)
class Positives:
    """How the candidates that were clicked next are ranked in fp32 and with stored tables; a few cases judge nothing.

    `ndcg10_change` is the mean of the second less the first over the first, `low` and `high` its 95 % interval, by
    `method`.
    """

    cases: Count
    ndcg10_fp32: Number
    ndcg10: Number
    hit10_fp32: Number
    hit10: Number
    ndcg10_change: Number | None
    low: Number | None
    high: Number | None
    method: str


@dataclass(frozen=True, kw_only=True)
class SchemeCost:
    """What the stored tables change, by torch in fp32 with them and with the tables as they were.

    `error_to_spread` has for each output of floats the root mean square of its change over its standard deviation,
    which for a ranking is that within its cases, None where what changes does not vary; `allowed` is the most that
    passes of a ranking. The others are those of `parity.compare`. What is not judged is `unverified`, with the reason.
    All are of `cases` golden cases: those of the artifact, and further ones where a case is too large to be kept.
    """

    verdict: Verdict
    reason: str
    error_to_spread: Mapping[str, Number | None]
    allowed: Number
    top10_overlap: Number | None
    top10_asked: Number | None
    top10_changed: Count | None
    kendall_tau: Number | None
    positives: Positives | None = None
    cases: Count | None = None


@dataclass(frozen=True, kw_only=True)
class InOneCall:
    """All golden cases as the users of one call, each held to what torch gives for it alone; as in Parity."""

    users: Count
    verdict: Verdict
    reason: str
    max_abs_error: Number | None


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The verdict, why, and the figures that it rests on: those of `parity.compare`, None where nothing was compared.

    `unsettled` has a line for each choice behind the outputs that only another machine could settle. Where a scheme
    stores tables in fewer bits, the figures compare with torch with the same tables, whose verdict is `lowering`,
    `scheme` says what these change, and the verdict is of both. So it is with `in_one_call`, where a call takes any
    number of users.
    """

    verdict: Verdict
    reason: str | None = None
    executed_on: str | None = None
    cases: Count | None = None
    max_abs_error: Number | None = None
    max_rel_error: Number | None = None
    output_errors: Mapping[str, Number | None] | None = None
    top10_overlap: Number | None = None
    kendall_tau: Number | None = None
    flip_margin: Number | None = None
    twice_max_error: Number | None = None
    could_flip: Count | None = None
    unsettled: tuple[str, ...] | None = ()
    ranking_reason: str | None = None
    tolerance: Tolerance | None = None
    lowering: Verdict | None = None
    scheme: SchemeCost | None = None
    in_one_call: InOneCall | None = None


@dataclass(frozen=True)
class Uncounted:
    """How often an operation without a formula stands in the graph."""

    operation: str
    count: Count


@dataclass(frozen=True)
class Delegate:
    """What one delegate took, operations by their native names, and their FLOPs; None is the runtime itself."""

    delegate: str | None
    operations: Mapping[str, Count]
    flops: Count


@dataclass(frozen=True)
class OperationCost:
    """The cost of one operation of the lowered graph; `operation` is its native name, `kind` that of core.kinds."""

    name: str
    operation: str
    kind: str
    delegate: str | None
    flops: Count
    macs: Count
    moved_bytes: Count


@dataclass(frozen=True, kw_only=True)
class PerToken:
    """The FLOPs of one more click of history, how they were found, or why they are not known."""

    per_token: Number | None
    per_token_method: str | None
    per_token_reason: str | None


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Counts of the artifact's own file, in `unit`, for one call; the last three are those of PerToken."""

    unit: str
    total: Count
    macs: Count
    moved_bytes: Count
    uncounted: tuple[Uncounted, ...]
    by_kind: Mapping[str, Count]
    delegates: tuple[Delegate, ...]
    by_operation: tuple[OperationCost, ...] = ()
    per_token: Number | None
    per_token_method: str | None
    per_token_reason: str | None


@dataclass(frozen=True)
class StoredTwice:
    """Two constants of at least two axes with the same bytes in different places of the artifact."""

    names: tuple[str, str]
    bytes: Count


@dataclass(frozen=True)
class Expanded:
    """Stored tables that every run computes another form of: `operation` writes `bytes`; at most 16 are named."""

    constants: tuple[str, ...]
    operation: str
    bytes: Count


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of constants by their use, of the planned activations, and of the process that ran the artifact."""

    constant_bytes: Count | None = None
    embedding_bytes: Count | None = None
    body_bytes: Count | None = None
    head_bytes: Count | None = None
    stored_twice: tuple[StoredTwice, ...] = ()
    expanded: tuple[Expanded, ...] = ()
    planned_activation_bytes: Count | None = None
    plan_method: str | None = None
    peak_rss_bytes: Count | None = None
    baseline_rss_bytes: Count | None = None
    artifact_rss_bytes: Difference | None = None
    rss_method: str | None = None
    wasm_heap_bytes: Count | None = None
    wasm_heap_method: str | None = None
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Times of single calls of case 0, in the units of their names; `conditions` are what the device said of itself.

    `call_us` is the part of them that a call of the runtime takes whatever it computes, found as `call_method` says.
    Where a clock is too coarse for single calls, each of the `iterations` is the mean of `calls_per_sample` of them.
    `instructions` are of one call, on the processor `counted_on`.
    """

    connection: str | None = None
    threads: Count | None = None
    warmup: Count | None = None
    iterations: Count | None = None
    load_ms: Number | None = None
    first_us: Number | None = None
    p50_us: Number | None = None
    p90_us: Number | None = None
    p99_us: Number | None = None
    call_us: Number | None = None
    call_method: str | None = None
    calls_per_sample: Count | None = None
    instructions: Count | None = None
    counted_on: str | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True)
class DeviceRun:
    """What an artifact did on one of several devices: the verdict there, its times, and its runtime's memory.

    What the device is called stands in `executed_on` of the verdict.
    """

    parity: Parity
    latency: Latency
    wasm_heap_bytes: Count | None


@dataclass(frozen=True)
class Budget:
    """A limit of the device profile and what the artifact needs of it; `within` is None where that is not known."""

    budget: BudgetName
    limit: Number
    value: Number | None
    within: bool | None
    reason: str | None


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How far a smaller sub-network ranks the candidates as the chosen one does."""

    cases: Count | None = None
    top10_overlap: Number | None
    kendall_tau: Number | None
    reason: str | None = None


@dataclass(frozen=True)
class Drawn:
    """What gave golden cases the sizes of a profile: all but `as_they_were` of `cases` were drawn, as `method` says."""

    cases: Count
    as_they_were: Count
    method: str


@dataclass(frozen=True, kw_only=True)
class Searched:
    """How a latency predictor chose the blocks: of those that it has within `limit_us`, the ones of the best `score`.

    `predictor_off_by` is its median relative error, `measured_us` what a call took when the artifact was made, and
    `considered` how many structures had a score. Those of `too_slow` were tried before and took longer than the limit.
    NDCG@10 is that of the golden users with these blocks, and with those that the model chooses for each.
    """

    limit_us: Number
    predicted_us: Number
    predictor_off_by: Number
    measured_us: Number | None
    score: Number
    score_method: str
    considered: Count
    too_slow: tuple[Annotated[str, Field(max_length=64)], ...]
    ndcg10: Number | None
    ndcg10_of_model: Number | None


@dataclass(frozen=True)
class Selection:
    """Which blocks run, a digit each, what the controller chose and said, and which were left out to fit.

    `history` has the rows of the items for whose clicks it was chosen; None where that is not known, as after a swap.
    Where a latency predictor chose, `chosen` is its first choice, and `searched` says how.
    """

    structure: Annotated[str, Field(max_length=64)]
    chosen: str | None
    logits: tuple[Number, ...]
    left_out: tuple[Count, ...]
    agreement_with_chosen: Agreement | None
    history: tuple[Count, ...] | None = None
    searched: Searched | None = None


@dataclass(frozen=True)
class GrowthPoint:
    """The figures of the program lowered for a history of `tokens` clicks."""

    tokens: Count
    flops: Count
    macs: Count
    planned_activation_bytes: Count | None
    artifact_rss_bytes: Difference | None
    p50_us: Number | None
    reason: str | None


@dataclass(frozen=True)
class GrowthLine:
    """The least-squares line of one figure over the lengths (`measure.growth.Line`), and the growth between them."""

    per_token: Number
    at_zero: Number
    r_squared: Number | None
    largest_residual: Number
    steps: tuple[Number, ...]


@dataclass(frozen=True)
class GrowthLines:
    """A line for each figure that all lengths have."""

    flops: GrowthLine
    macs: GrowthLine
    planned_activation_bytes: GrowthLine | None
    artifact_rss_bytes: GrowthLine | None
    p50_us: GrowthLine | None


@dataclass(frozen=True, kw_only=True)
class Growth:
    """What one more click costs: figures at several lengths and the lines through them, or why there are none."""

    method: str | None = None
    points: tuple[GrowthPoint, ...] = ()
    lines: GrowthLines | None = None
    module_hook_macs_per_token: Number | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Transfer:
    """One exchange over one link, in milliseconds; `total_ms` counts a round trip that is not known as 0.

    `device_calls_meanwhile` is how often the device could call the program in that time.
    """

    link: str
    up_ms: Number
    down_ms: Number
    round_trip_ms: Number | None
    total_ms: Number
    device_calls_meanwhile: Number | None


@dataclass(frozen=True, kw_only=True)
class Network:
    """The bytes of a program's exchange by tensor, and its time over each link beside the device's own."""

    method: str
    up: Mapping[str, Count]
    down: Mapping[str, Count]
    up_bytes: Count
    down_bytes: Count
    device_us: Number | None
    links: tuple[Transfer, ...]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which of two artifacts is faster, if the samples allow it; `ratio` is the second's time to the first's."""

    method: str | None = None
    first: str
    second: str
    executed_on: tuple[str, str] | None = None
    threads: tuple[int | None, int | None] | None = None
    p50_us: tuple[float, float] | None = None
    ratio: float | None
    low: float | None = None
    high: float | None = None
    pairs: int | None = None
    faster: str | None = None
    reason: str | None
