"""All figures of an artifact: counted in its file, measured in a fresh process, per click, and over the network."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, BadInputError, CocorrError
from exporter.pipeline import budgets, lengths, origin, timing
from exporter.pipeline.opening import open_known, require_unchanged
from exporter.pipeline.reach import by_devices, reach
from models import zoo

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Result, Unread
    from exporter.artifact.store import Opened
    from exporter.connections.running import Ran, Subject
    from exporter.core.protocols import Connection
    from exporter.core.sections import DeviceRun, Growth, Latency, Memory, Network, Parity
    from exporter.core.types import Arrays, Verdict
    from exporter.measure.flops import FlopCount
    from exporter.pipeline.timing import Case

_WARMUP = 20
MOST_ITERATIONS = 1_000_000
_WORSE: "tuple[Verdict, ...]" = ("pass", "unverified", "fail")


@dataclass(frozen=True)
class ProfileRequest:
    """What `cocorr-export profile` was asked for; `against` is another artifact to be compared with.

    `connection` is the name of one, or of a profile whose device runs it.

    `checkpoint` is where the artifact comes from, None for the one that ships; other lengths are lowered from it. One
    that cannot be used leaves these out, and is told of.
    `model` is FILE.py:SPEC for one that has its model there. Without `write` nothing in the artifact's folder changes.
    """

    artifact: Path
    iterations: int
    samples: bool = False
    against: Path | None = None
    checkpoint: Path | None = None
    connection: str = "host"
    model: str | None = None
    write: bool = True


def profile_by(request: ProfileRequest, devices: int, report: lengths.Report) -> "list[Result | Unread]":
    """Measure an artifact on so many phones, one after the other, as `profile` does on each.

    Where there are several, `devices` of the manifest has them all, and its other sections are those of the last. One
    that fails takes nothing from those before it, and no other is asked for; raises as `profile` where it is the first.
    """
    from exporter.artifact import store
    from exporter.artifact.results import Unread

    results: list[Result] = []
    failed: list[Unread] = []
    for _ in by_devices(request.connection, devices):
        try:
            results.append(profile(request, report))
        except CocorrError as error:
            if not results:
                raise
            failed.append(Unread(str(request.artifact), str(error), error.exit_code))
            break
    if devices > 1 and request.write:
        opened, _ = _open(request.artifact)
        runs = tuple(_device_run(result.manifest) for result in results)
        store.update_manifest(opened, replace(opened.manifest, devices=runs))
    return [*results, *failed]


def _device_run(manifest: "Manifest") -> "DeviceRun":
    from exporter.core.sections import DeviceRun, Latency

    memory = manifest.memory
    return DeviceRun(manifest.parity, manifest.latency or Latency(), None if memory is None else memory.wasm_heap_bytes)


def profile(request: ProfileRequest, report: lengths.Report) -> "Result":
    """Measure an artifact, write the figures into its manifest where asked to, and return it.

    The result has the raw samples and the comparison where they were asked for. Its verdict is the manifest's, or that
    of this run where that is worse: what does not run has not passed. Raises ArtifactError for a folder that is not as
    it was exported.
    """
    from exporter.artifact import store
    from exporter.artifact.results import Result

    if request.against is not None and request.iterations < timing.LEAST_PAIRS:
        raise BadInputError(f"a comparison needs --iterations {timing.LEAST_PAIRS} or more")
    way = reach(request.connection)
    opened, added = _open(request.artifact)
    if request.write:
        store.check_writable(opened)
    origin.check_checkpoint(request.artifact, opened.manifest, request.checkpoint)
    rival = None if request.against is None else (request.against, _open(request.against)[0].manifest)
    case = timing.first_case(opened.folder, opened.manifest, way)
    manifest, ran = _measured(request, opened, case, report)
    if request.write:
        store.update_manifest(opened, manifest)
    else:
        store.require_same(opened)
    comparison = None
    if rival is not None:
        report(f"calling it and {rival[0]} in turn")
        other = timing.first_case(*rival)
        comparison = timing.in_turn(str(request.artifact), case, str(rival[0]), other, (_WARMUP, request.iterations))
    samples = (ran.result.samples_us if ran.result else ()) if request.samples else None
    shown = replace(manifest, parity=_shown(manifest.parity, ran))
    return Result(shown, str(request.artifact), samples, comparison, added)


def _measured(
    request: ProfileRequest, opened: "Opened", case: "Case", report: lengths.Report
) -> "tuple[Manifest, Ran]":
    """Count, run and time an artifact; return its manifest with the figures, and the run."""
    from exporter.core.calling import clicks_per_call
    from exporter.measure import figures, flops
    from exporter.targets import reading

    manifest, (subject, inputs) = opened.manifest, case
    report("counting the operations of the file")
    lowered = reading.read(subject.target, subject.model_file)
    where = "a page" if subject.connection.name == "browser" else "a process of its own"
    report(f"running {request.iterations} times in {where}")
    ran, parity = _run(subject, inputs, request, opened, report)
    if ran.verdict == "unverified" and request.connection != "host":  # asked for by name: figures that are there stay
        raise BadInputError(f"nothing could be measured over {request.connection}: {ran.reason}")
    counted = flops.count(lowered.operations)
    memory = figures.memory(lowered, [tensor.name for tensor in manifest.inputs], ran.result, ran.reason)
    latency = figures.latency(ran.result, ran.reason, _WARMUP)
    clicks = clicks_per_call(manifest.state, manifest.inputs)
    per_click = _growth(request, manifest, (counted, memory, latency), report, subject.connection)
    manifest = replace(
        manifest,
        parity=parity,
        memory=memory,
        latency=latency,
        growth=per_click,
        flops=figures.flops(lowered, counted, figures.per_token(clicks, counted, per_click)),
        network=_network(manifest, latency),
    )
    limits = {row.budget: row.limit for row in manifest.budgets or ()}
    return replace(manifest, budgets=budgets.section(limits, manifest)), ran


def _run(
    subject: "Subject", inputs: "Arrays", request: ProfileRequest, opened: "Opened", report: lengths.Report
) -> "tuple[Ran, Parity]":
    """Run and time an artifact; return the run, and the verdict: the manifest's, or the page's that ran it.

    A phone is at hand once, and its user wants to know both of it.
    """
    from exporter.connections import running
    from exporter.pipeline.parity import run_golden

    if subject.connection.name != "browser":
        return running.run(subject, inputs, _WARMUP, request.iterations), opened.manifest.parity
    timed = _WARMUP, request.iterations
    parity, ran = run_golden(opened.folder, opened.manifest, report, subject.connection, timed)
    if ran is None:
        raise ArtifactError(f"{request.artifact}: {parity.reason}; export the artifact again")
    return ran, parity


def _open(folder: Path) -> "tuple[Opened, tuple[str, ...]]":
    """Open an artifact whose files are as it lists them; return it with the names of what a user added."""
    opened = open_known(folder)
    return opened, require_unchanged(opened)


def _shown(parity: "Parity", ran: "Ran") -> "Parity":
    """Return the parity section to show: the manifest's, unless the artifact did worse when it was run now."""
    from exporter.core.sections import Parity

    if _WORSE.index(ran.verdict) > _WORSE.index(parity.verdict):
        return Parity(verdict=ran.verdict, reason=ran.reason or "")
    return parity


def _growth(
    request: ProfileRequest,
    manifest: "Manifest",
    own: "tuple[FlopCount, Memory, Latency]",
    report: lengths.Report,
    connection: "Connection",
) -> "Growth":
    """Return the figures at several lengths and the lines through them; null and the reason where there are none."""
    from exporter.core.sections import Growth
    from exporter.measure import figures
    from exporter.measure.growth import LENGTHS

    if manifest.source.program_sha256 is not None:
        return Growth(reason=lengths.ONE_LENGTH)
    try:
        source = origin.source_of(manifest, request.model, request.checkpoint)
        with zoo.foreign(request.model or manifest.model):
            hooks = source.module_hook_macs()
    except CocorrError as error:
        # Of no use, and yet asked for by name; the figures of the file are none the worse.
        if request.checkpoint is not None:
            report(f"no other lengths: {error}")
        return Growth(reason=str(error))
    if not source.reads_history:
        return Growth(module_hook_macs_per_token=hooks, reason=lengths.NO_HISTORY)
    length = source.history_length
    lowering = origin.lowering_of(manifest)
    others = [other for other in LENGTHS if other != length and source.takes_history(other)]
    if not others:
        return Growth(module_hook_macs_per_token=hooks, reason=lengths.NO_OTHER)
    longer = lengths.lengthened(source, max(others))
    timed = _WARMUP, request.iterations
    points = lengths.points(longer, lowering, others, timed, manifest.threads, report, connection)
    return replace(figures.growth([figures.point(length, *own), *points]), module_hook_macs_per_token=hooks)


def _network(manifest: "Manifest", latency: "Latency") -> "Network | None":
    """Return the program's exchange with the other side, or None where it has none."""
    from exporter.artifact import weights
    from exporter.measure import figures

    exchange = manifest.exchange
    if exchange is None or not (exchange.up or exchange.down):
        return None
    users = manifest.batch or 1  # a link carries what one of them sends and gets
    # int32 and float32 alone cross the border, but for weights in a package
    sizes = {tensor.name: 4 * math.prod(tensor.shape) // users for tensor in (*manifest.inputs, *manifest.outputs)}
    if (external := manifest.external) is not None:
        sizes |= {
            tensor.name: weights.stored_bytes(tensor.shape, external.stored) // users for tensor in external.tensors
        }
    up, down = ({name: sizes[name] for name in names} for names in (exchange.up, exchange.down))
    return figures.network(up, down, manifest.links or (), latency)
