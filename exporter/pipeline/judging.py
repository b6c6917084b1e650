"""An artifact that was made before, judged and counted again as it lies: for the gate and for reports."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.pipeline import budgets
from exporter.pipeline.job import ITERATIONS, WARMUP
from exporter.pipeline.lengths import Report
from exporter.pipeline.opening import changed_file, open_known
from exporter.pipeline.parity import run_golden

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.connections.running import Ran
    from exporter.core.checks import Evidence
    from exporter.core.protocols import Connection

_MOST_POINTS = 2_000


@dataclass(frozen=True)
class Judged:
    """An artifact as it is now: its figures, one SHA-256 over what its runtime loads, and what its run showed."""

    manifest: "Manifest"
    model_sha256: str
    evidence: "Evidence | None" = None


def judge(folder: Path, connection: "Connection", report: Report) -> Judged:
    """Run, judge, count and measure an artifact again; raises ArtifactError where it cannot be read as one.

    What was changed in it since it was made fails, with the size that it has now. Times and memory are of this run;
    what an artifact costs per click needs other lengths, and stays as it was found.
    """
    from exporter.artifact import store
    from exporter.core.sections import Parity
    from exporter.measure import figures, flops
    from exporter.pipeline.subjects import subject_of
    from exporter.targets import reading

    opened = open_known(folder)
    place, manifest = opened.folder, opened.manifest
    manifest = replace(manifest, size_bytes=store.shipped_bytes(place))
    changed = changed_file(opened)
    if changed is not None:
        failed = Parity(verdict="fail", reason=f"{changed}; remove the artifact to have it made again")
        return Judged(_within_budgets(replace(manifest, parity=failed)), "")
    parity, ran = run_golden(place, manifest, report, connection, (WARMUP, ITERATIONS))
    subject = subject_of(place, manifest, connection)
    lowered = reading.read(subject.target, subject.model_file)
    per_click = figures.known_per_token(manifest.flops)
    result, reason = (None, parity.reason) if ran is None else (ran.result, ran.reason)
    manifest = replace(
        manifest,
        parity=parity,
        flops=figures.flops(lowered, flops.count(lowered.operations), per_click),
        memory=figures.memory(lowered, [tensor.name for tensor in manifest.inputs], result, reason),
        latency=figures.latency(result, reason, WARMUP),
    )
    return Judged(_within_budgets(manifest), store.shipped_sha256(place), _evidence(place, manifest, ran))


def as_made(folder: Path) -> Judged:
    """Return an artifact that was made just now, with the figures that its manifest has from then."""
    from exporter.artifact import store

    opened = open_known(folder)
    return Judged(opened.manifest, store.shipped_sha256(opened.folder))


def _within_budgets(manifest: "Manifest") -> "Manifest":
    limits = {row.budget: row.limit for row in manifest.budgets or ()}
    return replace(manifest, budgets=budgets.section(limits, manifest) if manifest.budgets is not None else None)


def _evidence(folder: Path, manifest: "Manifest", ran: "Ran | None") -> "Evidence":
    """Return scores of torch and of the artifact, at most 2,000 pairs evenly among all, and the times of calls."""
    import numpy as np

    from exporter.artifact import store
    from exporter.core.checks import Evidence

    if ran is None or ran.result is None:
        return Evidence(reason=manifest.parity.reason if ran is None else ran.reason)
    result = ran.result
    name = manifest.ranking or next((t.name for t in manifest.outputs if t.dtype == "float32"), None)
    if name is None or manifest.ranked is not None:
        return Evidence(
            samples_us=result.samples_us,
            executed_on=result.executed_on,
            reason="its outputs are items, whose scores do not stand in pairs"
            if name
            else "it has no output of floats",
        )
    expected, found = (array.ravel() for array in (store.read_golden(folder).outputs[name], result.outputs[name]))
    at = np.unique(np.linspace(0, expected.size - 1, min(expected.size, _MOST_POINTS)).astype(int))
    some = f"{len(at):,} of {expected.size:,} values of {name!r}, evenly among them"
    return Evidence(
        torch=tuple(expected[at].tolist()),
        artifact=tuple(found[at].tolist()),
        sampling=some if len(at) < expected.size else f"all {expected.size:,} values of {name!r}",
        samples_us=result.samples_us,
        executed_on=result.executed_on,
    )
