"""`cocorr-export explain`: where the error of an artifact comes from, constant by constant and value by value."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, BadInputError
from exporter.pipeline import origin
from exporter.pipeline.opening import open_known, require_unchanged
from exporter.targets import TARGETS
from models import zoo

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Explained
    from exporter.core.explanation import ForeignConstant, Located, Losses
    from exporter.core.types import Arrays, Captured, Constant
    from exporter.graph.watching import Watch
    from exporter.pipeline.lengths import Lowering
    from exporter.pipeline.source import Source

CASES = 8
"""Golden cases that are computed, at the most; where an error comes from shows on few."""
_VALUE_BYTES = 256 << 20  # of all values of all cases, in fp32; one case is computed whatever it takes

_LOSSES = "torch in fp32, one constant at a time as it is stored"


@dataclass(frozen=True)
class ExplainRequest:
    """What `cocorr-export explain` was asked for; `operations` is how many of the costliest are shown beside it.

    `checkpoint` is where the artifact comes from, None for the one that ships; `model` is FILE.py:SPEC for one that has
    its model there.
    """

    artifact: Path
    checkpoint: Path | None = None
    model: str | None = None
    operations: int = 0


@dataclass(frozen=True)
class _Subject:
    """An artifact that is explained, with the program that it was lowered from; `cases` are golden inputs."""

    folder: Path
    manifest: "Manifest"
    source: "Source"
    lowering: "Lowering"
    captured: "Captured"
    cases: "Arrays"

    @property
    def model_file(self) -> Path:
        """Return the artifact's own file."""
        return self.folder / self.manifest.model_file


def explain(request: ExplainRequest, report: Callable[[str], None]) -> "Explained":
    """Say where the error of an artifact comes from; raises BadInputError without the checkpoint that it comes from.

    Nothing of the artifact is changed.
    """
    from exporter.artifact.results import Explained

    opened = open_known(request.artifact)
    added = require_unchanged(opened)
    manifest = opened.manifest
    origin.check_checkpoint(request.artifact, manifest, request.checkpoint)
    _check(request.artifact, manifest)
    report("capturing the program that it was lowered from")
    source = origin.source_of(manifest, request.model, request.checkpoint)
    with zoo.foreign(request.model or manifest.model):
        subject = _subject(opened.folder, manifest, source)
        own = _own_outputs(subject, report)
        losses = _losses(subject, own, report)
        located = _located(subject, own, report)
    costly = sorted(
        manifest.flops.by_operation if manifest.flops else (), key=lambda row: (-row.flops, -row.moved_bytes)
    )
    return Explained(
        place=str(request.artifact),
        manifest=manifest,
        cases=len(next(iter(subject.cases.values()))),
        losses=losses,
        located=located,
        operations=tuple(costly[: request.operations]),
        added=added,
    )


def _check(artifact: Path, manifest: "Manifest") -> None:
    """Raise ArtifactError for an artifact whose program nobody here has, or whose weights lie in another file."""
    if manifest.source.program_sha256 is not None:
        raise ArtifactError(
            f"{artifact}: made of a program that was handed over, which has no checkpoint to be explained from; export"
            " its model: --model FILE.py:SPEC"
        )
    if manifest.external is not None and manifest.external.data_file is not None:
        raise ArtifactError(
            f"{artifact}: its weights lie in {manifest.external.data_file.name}, outside of the program; explain the"
            " form of the program that has them inside"
        )


def _subject(folder: Path, manifest: "Manifest", source: "Source") -> _Subject:
    """Return the artifact with its program; raises BadInputError where that does not give its golden outputs."""
    from exporter.artifact import store
    from exporter.graph.watching import Watch
    from exporter.pipeline.subjects import fed, golden_problem

    golden = store.read_golden(folder)
    wrong = golden_problem(manifest, golden)
    if wrong is not None:
        raise ArtifactError(f"{folder}: {wrong}; export the artifact again")
    lowering = origin.lowering_of(manifest)
    captured = lowering.captured(source)
    if captured.inputs != fed(manifest):
        raise BadInputError(
            f"{folder}: the checkpoint's program has other inputs than manifest.json says; export the artifact again"
        )
    count = min(CASES, max(_VALUE_BYTES // max(Watch(captured).bytes_per_case(), 1), 1))
    cases = {spec.name: golden.inputs[spec.name][:count] for spec in fed(manifest)}
    subject = _Subject(folder, manifest, source, lowering, captured, cases)
    _require_same(subject, {name: array[:count] for name, array in golden.outputs.items()})
    return subject


def _require_same(subject: _Subject, expected: "Arrays") -> None:
    """Raise BadInputError where the program gives other golden outputs than those that the artifact was held to."""
    from exporter.parity.compare import compare
    from exporter.parity.verdict import judge

    given = _watch(subject).outputs(subject.cases, {})
    names = [name for name, array in expected.items() if array.dtype.kind == "f"]
    if not names:
        raise ArtifactError(f"{subject.folder}: it gives no numbers that could be off; there is nothing to explain")
    figures = compare({name: expected[name] for name in names}, {name: given[name] for name in names}, None)
    judgement = judge(figures, "fp32")
    if judgement.verdict != "pass":
        raise BadInputError(
            f"{subject.folder}: its program gives other golden outputs now than when it was exported"
            f" ({judgement.reason}); export the artifact again"
        )


def _watch(subject: _Subject) -> "Watch":
    """Return the graph that was lowered, to be computed in fp32 with the constants that it had before rounding."""
    from exporter.graph.watching import Watch

    exact = Watch(subject.lowering.exact(subject.source, tables_too=False)).constants()
    return Watch(subject.captured, exact)


def _own_outputs(subject: _Subject, report: Callable[[str], None]) -> "tuple[Arrays | None, str]":
    """Return what the artifact itself gives and where it ran, or None and why it does not run here."""
    from exporter.connections import running
    from exporter.pipeline.subjects import subject_of

    report("running the artifact")
    ran = running.run(subject_of(subject.folder, subject.manifest), subject.cases, 0, 0)
    if ran.result is None:
        return None, ran.reason or "it does not run here"
    return ran.result.outputs, ran.result.executed_on


def _losses(subject: _Subject, own: "tuple[Arrays | None, str]", report: Callable[[str], None]) -> "Losses":
    """Return what the stored form of each constant changes of what is ranked by, or of all outputs of floats."""
    import numpy as np

    from exporter.core.explanation import ConstantLoss, Losses
    from exporter.graph.watching import Watch
    from exporter.parity import locate
    from exporter.targets import reading

    manifest, cases = subject.manifest, subject.cases
    if manifest.precision == "fp32":
        return Losses(method=_LOSSES, reason="fp32 stores every constant as it is")
    report("computing what the stored form of each constant changes")
    watch = Watch(subject.lowering.exact(subject.source, tables_too=True))
    constants, readers = watch.constants(), watch.readers()
    in_file = {one.sha256 for one in reading.read(TARGETS[manifest.target], subject.model_file).constants}
    stored = {  # what the file has in fp32 after all loses nothing
        name: tensor
        for name, tensor in watch.stored(manifest.precision).items()
        if not locate.hashes_of(constants[name].numpy()) & in_file
    }
    before = watch.outputs(cases, {})
    names = [manifest.ranking] if manifest.ranking else [name for name, one in before.items() if one.dtype.kind == "f"]
    changes = {name: locate.change(constants[name].numpy(), tensor.numpy()) for name, tensor in stored.items()}
    finite = {name: tensor for name, tensor in stored.items() if not changes[name][1]}
    together = locate.differences(watch.outputs(cases, finite), before, names)
    rows = []
    for name in stored:
        part = None
        if name in finite:
            part = locate.differences(watch.outputs(cases, {name: finite[name]}), before, names)
        module, operation = readers[name]
        rows.append(
            ConstantLoss(
                name=name.removeprefix("program."),
                module=module,
                read_by=operation,
                shape=tuple(constants[name].shape),
                max_change=changes[name][0],
                overflows=changes[name][1],
                share=None if part is None else locate.share(part, together),
            )
        )
    rows.sort(key=lambda row: (-row.overflows, -abs(row.share or 0.0)))
    shares = [row.share for row in rows if row.share is not None]
    outputs, why = own
    of_artifact = None
    if outputs is not None and all(np.isfinite(outputs[name]).all() for name in names):
        of_artifact = locate.share(together, locate.differences(outputs, before, names))
    return Losses(
        method=_LOSSES,
        outputs=tuple(names),
        constants=tuple(rows),
        modules=locate.by_module(rows),
        left=1 - sum(shares) if shares else None,
        of_artifact=of_artifact,
        reason=_why_no_shares(bool(rows), bool(shares), why if outputs is None else None),
    )


def _why_no_shares(has_rows: bool, has_shares: bool, not_run: str | None) -> str | None:
    if not has_rows:
        return "no constant loses anything in its stored form"
    if not has_shares:
        return "what is stored changes no output, or makes them infinite"
    return None if not_run is None else f"the artifact's own error is not known: {not_run}"


def _located(subject: _Subject, own: "tuple[Arrays | None, str]", report: Callable[[str], None]) -> "Located":
    """Return all values of the artifact beside torch's; None of them, and why, where nothing here shows them."""
    from exporter.core.explanation import Located
    from exporter.parity import locate
    from exporter.parity.matching import match
    from exporter.targets import aten, tracing
    from safeio.files import writing
    from safeio.staging import ROOM, scratch

    manifest, target = subject.manifest, TARGETS[subject.manifest.target]
    way = target.tracing()
    reason = "nothing here looks into such files" if way is None else target.unverifiable(manifest.options)
    if way is None or reason is not None:
        return Located(method="none", reason=reason)
    with scratch("explain") as folder:
        report(f"looking into it: {way.method}")
        with writing(folder, ROOM):
            opened = way.lower(subject.captured, manifest.precision, manifest.options, folder)
        traced = tracing.trace(target, opened or subject.model_file, subject.cases)
        foreign = () if opened is None else _foreign(subject, opened, report)
    watch = _watch(subject)
    known, outputs = watch.values(subject.cases, aten.CAPTURED.get), watch.output_nodes()
    matches = match(known, traced, outputs)
    values = locate.off_values(known, traced, matches, manifest.precision)
    unmatched, not_seen = locate.alone(known, traced, matches)
    given = {known[one.known].name: traced[one.traced].numbers for one in matches}
    return Located(
        method=way.method,
        executed_on=own[1] if own[0] is not None else None,
        values=values,
        first_beyond=next((at for at, value in enumerate(values) if value.is_beyond), None),
        form_error=locate.largest_difference(
            {name: given[node] for name, node in outputs.items() if node in given}, own[0] or {}
        ),
        unmatched=unmatched,
        not_seen=not_seen,
        foreign_constants=foreign,
        reason=None if own[0] is not None else f"the artifact as it is does not run here: {own[1]}",
    )


def _foreign(subject: _Subject, opened: Path, report: Callable[[str], None]) -> "tuple[ForeignConstant, ...]":
    """Return the constants of an artifact that its program, lowered anew, does not have.

    What gives all values may keep constants otherwise: where some differ, the program is lowered as the artifact was.
    """
    from exporter.graph.watching import Watch
    from exporter.parity import locate
    from exporter.targets import reading
    from safeio.files import writing
    from safeio.staging import ROOM, scratch

    target, manifest = TARGETS[subject.manifest.target], subject.manifest
    own = reading.read(target, subject.model_file).constants
    if not locate.strangers(own, reading.read(target, opened).constants):
        return ()
    report("lowering the program again, as constants of the artifact are not those of what gives all values")
    with scratch("explain-again") as folder:
        with writing(folder, ROOM):
            again = target.lower(subject.captured, manifest.precision, manifest.options, folder)
        anew: tuple[Constant, ...] = reading.read(target, again).constants
    watch = Watch(subject.captured)
    contents = {name.removeprefix("program."): tensor.numpy() for name, tensor in watch.constants().items()}
    return locate.foreign(own, anew, contents)
