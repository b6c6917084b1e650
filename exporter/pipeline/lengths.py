"""What one more click costs: the same program lowered for several lengths of the history, counted and run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError, DeviceError, LoweringError
from exporter.core.precision import MILDEST_FIRST, body_of, has_own_tables, tables_of
from exporter.targets import TARGETS
from models import zoo

if TYPE_CHECKING:
    from exporter.connections.running import Ran
    from exporter.core.precision import Fold, Precision
    from exporter.core.protocols import Connection
    from exporter.core.sections import GrowthPoint
    from exporter.core.types import Captured, DataFile, GraphForm, Options, PassChoice
    from exporter.graph import Twin
    from exporter.pipeline.exportable import Exportable
    from exporter.pipeline.source import Source
    from safeio.places import Facts

Report = Callable[[str], None]

NO_HISTORY = "no input of this program has the length of the history"
NO_OTHER = "of the other lengths that are measured, this program takes none"
ONE_LENGTH = "a program that was handed over has one length; for others export its model: --model FILE.py:SPEC"


@dataclass(frozen=True)
class Lowering:
    """How a program is lowered for a target, at its own length and at others alike."""

    target: str
    precision: "Precision"
    options: "Options"
    without: frozenset[str] = frozenset()
    """The passes that are left out of those that the target has."""
    fold: "Fold" = "same_size"
    """By how much the artifact may grow for tables of computed rows."""
    is_mildest: bool = False
    """Whether the precision is the mildest that fits, and not one that was asked for."""

    @property
    def facts(self) -> "Facts":
        """Return what tells artifacts of the same program at one place apart."""
        return {
            "precision": "auto" if self.is_mildest else self.precision,
            "options": dict(self.options),
            "passes left out": sorted(self.without),
            "fold": self.fold,
        }

    def check(self) -> None:
        """Raise BadInputError where the target has not this precision."""
        having = TARGETS[self.target].precisions
        if self.precision not in having:
            other = "choose another --precision or --target"
            raise BadInputError(f"{self.target} has no {self.precision}, it has {', '.join(having)}; {other}")
        refusal = TARGETS[self.target].refusal(self.precision, self.options)
        if refusal is not None:
            raise BadInputError(f"{self.target} has no {self.precision} here: {refusal}")

    def captured(self, source: "Exportable", history: int | None = None) -> "Captured":
        """Return the program of `source`, for its own history length or another, in the form that the target wants."""
        target = TARGETS[self.target]
        return source.captured(target.external_weights, self._form, self._passes, history, target.any_batch)

    def twin(self, source: "Exportable") -> "Twin | None":
        """Return the program of `source` in fp32 with its tables and its weights package as they are stored.

        None where they are as all else. Raises BadInputError where it has no table that could be.
        """
        if not has_own_tables(self.precision):
            return None
        twin = source.twin(self._form, self._passes)
        twin = twin._replace(stored=(*twin.stored, *source.stored_weights))
        if not twin.stored:
            raise BadInputError(
                f"{source.name}/{source.program.name} has no table that only lookups read, so that"
                f" {tables_of(self.precision)} changes nothing; export it with --precision {body_of(self.precision)}"
            )
        return twin

    def exact(self, source: "Exportable", tables_too: bool) -> "Captured":
        """Return what `captured` gives before its numbers are rounded to 16 bits: the same operations, in fp32.

        With `tables_too`, its tables are as they were before the scheme stored them in fewer bits.
        """
        form: GraphForm = "within_half" if self._form == "half" else self._form
        passes = replace(self._passes, tables="fp32") if tables_too else self._passes
        target = TARGETS[self.target]
        return source.captured(target.external_weights, form, passes, any_batch=target.any_batch)

    def milder_first(self, source: "Exportable") -> "Iterator[Lowering]":
        """Yield this lowering in each scheme that the target has for the program of `source`, the mildest first."""
        target = TARGETS[self.target]
        for precision in MILDEST_FIRST:
            other = replace(self, precision=precision)
            if precision not in target.precisions or target.refusal(precision, self.options) is not None:
                continue
            try:
                other.twin(source)
            except BadInputError:  # it has no table, or one with numbers that the scheme cannot hold
                continue
            yield other

    @property
    def _form(self) -> "GraphForm":
        return TARGETS[self.target].fp16_form(self.options) if body_of(self.precision) == "fp16" else "captured"

    @property
    def _passes(self) -> "PassChoice":
        from exporter.core.types import PassChoice

        tables = tables_of(self.precision) if has_own_tables(self.precision) else "fp32"
        return PassChoice(TARGETS[self.target].passes, self.without, self.fold, tables)


def lower(
    source: "Exportable", lowering: Lowering, folder: Path, report: Report, history: int | None = None
) -> "tuple[Captured, Path, Lowering]":
    """Lower a program into an empty folder; as it was captured where the target refuses what passes made of it.

    The third that is returned is how it was lowered at last. `history` is another length than its own.
    """
    from exporter.pipeline.explaining import about
    from safeio.staging import empty

    target = TARGETS[lowering.target]
    captured = replace(lowering.captured(source, history), about=about(source))
    try:
        return captured, target.lower(captured, lowering.precision, lowering.options, folder), lowering
    except LoweringError as error:
        if not any(effect.applied for effect in captured.passes):
            raise
        refusal = f"{target.name} refuses the graph that passes made: {error}"
    report(f"{target.name}: lowering the graph without passes, which it refuses")
    empty(folder)
    effects = tuple(
        replace(effect, applied=False, nodes_after=effect.nodes_before, reason=effect.reason or refusal)
        for effect in captured.passes
    )
    plain = replace(lowering, without=frozenset(target.passes))
    captured = replace(plain.captured(source, history), about=about(source), passes=effects)
    return captured, target.lower(captured, plain.precision, plain.options, folder), plain


def points(
    source: "Exportable",
    lowering: Lowering,
    lengths: Sequence[int],
    timed: tuple[int, int] | None,
    threads: int,
    report: Report,
    connection: "Connection | None" = None,
) -> "list[GrowthPoint]":
    """Return the figures of the program at each length; `timed` are the calls to warm up and to measure, or None.

    They run over `connection`, or on this host.
    """
    from exporter.connections.running import Ran
    from exporter.measure import figures, flops
    from exporter.targets import reading
    from safeio.files import writing
    from safeio.staging import ROOM, scratch

    target = TARGETS[lowering.target]
    measured = []
    for length in lengths:
        report(f"{lowering.target}: lowering for {length} tokens")
        with scratch("growth") as folder:
            with writing(folder, ROOM):
                captured, model_file, _ = lower(source, lowering, folder, report, length)
            lowered = reading.read(target, model_file)
            ran = Ran(None, "unverified", "not run")
            if timed is not None:
                report(f"{lowering.target}: running for {length} tokens")
                ran = _timed(lowering, captured, model_file, lowered.data, timed, threads, connection)
            memory = figures.memory(lowered, [spec.name for spec in captured.inputs], ran.result, ran.reason)
            latency = figures.latency(ran.result, ran.reason, timed[0] if timed else 0)
            measured.append(figures.point(length, flops.count(lowered.operations), memory, latency))
    return measured


def _timed(
    lowering: Lowering,
    captured: "Captured",
    model_file: Path,
    data: "DataFile | None",
    timed: tuple[int, int],
    threads: int,
    connection: "Connection | None",
) -> "Ran":
    """Run what was lowered on its example inputs."""
    from exporter.connections import running
    from exporter.connections.host import HostConnection
    from exporter.connections.running import Ran

    subject = running.Subject(
        target=TARGETS[lowering.target],
        model_file=model_file,
        options=lowering.options,
        outputs=captured.outputs,
        threads=threads,
        connection=connection or HostConnection(),
        data=data,
        label=f"{captured.model}/{captured.program} for other histories",
    )
    inputs = {spec.name: captured.examples[spec.name][None] for spec in captured.inputs}
    try:
        return running.run(subject, inputs, *timed)
    except DeviceError as error:  # it is gone, and what it gave before is there
        return Ran(None, "unverified", str(error))


def lengthened(source: "Source", length: int) -> "Source":
    """Return `source` with room for `length` clicks; a model whose table of positions is shorter comes untrained.

    Only what it computes counts then, not what comes out.
    """
    known = source.checkpoint.architecture
    if known.get("history_length", length) >= length:
        return source
    import torch

    architecture = {**known, "history_length": length}
    torch.manual_seed(0)
    with zoo.foreign(source.name):
        model = source.spec.build(architecture).eval()
    return replace(source, model=model, checkpoint=replace(source.checkpoint, architecture=architecture))
