"""A run of the fleet: what was asked for, the plan by which runs are told apart, and the artifact made for it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from exporter.core.errors import ArtifactError, BadInputError
from exporter.core.precision import has_own_tables
from exporter.pipeline.job import Job
from exporter.pipeline.lengths import Lowering, Report
from exporter.pipeline.request import ProgramChoice
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.core.precision import Asked, Stored
    from exporter.fleet.store import Document
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint
    from models.training.users import Users

EXPORTED = "exported_sha256"
"""The key of a plan's one SHA-256 over its artifacts, their manifests and golden cases, and torch's programs."""
SHARD = 1_000
"""Users of a shard: a second or so of work, which is what a kill costs at most, and a file of some 10 kB."""


class Entry(TypedDict):
    """The artifact of one structure in a plan: its place below artifact/, and its FLOPs, None where nobody counted."""

    artifact: str
    flops: int | None


@dataclass(frozen=True)
class FleetRequest:
    """What `cocorr-export fleet` was asked for.

    `sample` is how many users are judged, None for all; `workers` is None for one per processor; `ray` is None for
    processes on this machine, `local` for Ray on it, or a cluster's HOST:PORT. With `force` another run that stands at
    `output` is replaced. The last three are for models with a network for each user: the folder for weights packages,
    what they are stored in (None: as the scheme says), and for how many users the artifact is run.
    """

    model: str
    data: Path
    target: str
    output: Path
    precision: "Asked | None" = None
    profile: str = "generic"
    checkpoint: Path | None = None
    columns: str | None = None
    sample: int | None = None
    workers: int | None = None
    force: bool = False
    ray: str | None = None
    packages: Path | None = None
    stored: "Stored | None" = None
    parity_sample: int | None = None


def plan_of(
    request: FleetRequest,
    lowering: Lowering,
    profile: "DeviceProfile",
    checkpoint: "Checkpoint",
    users: "Users",
    history: int,
) -> "dict[str, object]":
    """Return what tells runs apart: with equal plans, shards are equal."""
    from exporter.targets.environment import versions

    return {
        "schema_version": 1,
        "model": request.model,
        "checkpoint_sha256": checkpoint.sha256,
        **lowering.facts,
        "target": request.target,
        "profile": profile.name,
        "threads": profile.threads,
        "data": request.data.name,
        "data_sha256": users.known.sha256,
        "columns": request.columns or "by name",
        "ids": users.ids,
        "users": len(users.names),
        "sample": request.sample if request.sample and request.sample < len(users.names) else "all",
        "shard_users": SHARD,
        "history_length": history,
        "candidates": users.negatives + 1,
        "seed": users.seed,
        "versions": versions(TARGETS[request.target]),
    }


def held(
    request: FleetRequest,
    asked: "dict[str, object]",
    names_made: "Callable[[Document, Path], bool]",
    report: Report,
) -> "Document | None":
    """Return the plan of the run that is to go on, None for a new one; raises BadInputError for another run's.

    `names_made` tells whether a plan says of what was exported into a folder all that there is to say.
    """
    from exporter.fleet import store
    from safeio.places import check_facts

    try:
        plan = store.held_plan(request.output)
        if plan is None:
            return None
        there, new = ({name: _known(facts.get(name)) for name in asked} for facts in (plan, asked))
        check_facts(request.output, "run", there, new)
        _check_exported(request.output, plan.get(EXPORTED))
        if not names_made(plan, request.output):
            raise BadInputError(f"{request.output / store.PLAN} was changed by hand; begin anew with --force")
    except BadInputError:
        if request.force:
            return None
        raise
    report("going on with the run that is there")
    return plan


def _known(value: object) -> object:
    """Return a fact as it is compared: where None stood, it would not be."""
    return "nothing" if value is None else value


def _check_exported(place: Path, sha256: object) -> None:
    """Raise ArtifactError where a run's artifact, or what judges it, is not the one that was made for it."""
    from exporter.fleet import store
    from safeio.files import UnreadableError

    try:
        found = store.exported_sha256(place)
    except (OSError, UnreadableError):
        found = None
    if found is None or found != sha256:
        raise ArtifactError(f"{place}: its artifact is not the one that was made for it; begin anew with --force")


def made(
    request: FleetRequest, lowering: Lowering, profile: "DeviceProfile", folder: Path, report: Report
) -> "dict[str, object]":
    """Export the artifact into a new run's folder, judged by its golden cases; return what the plan says of it."""
    from exporter.core.precision import weights_of
    from exporter.fleet import store
    from exporter.pipeline import source as sources

    stored = weights_of(request.precision or profile.precision)
    choice = ProgramChoice(request.model, checkpoint=request.checkpoint)
    source = sources.load(choice, profile.history_length, profile.candidates, profile.top, stored)
    report(f"capturing {source.name}/{source.program.name}")
    job = Job(folder / store.ARTIFACT, source, profile, lowering, report, force=False)
    export_beside_torch(job, folder / store.REFERENCE)
    return {"artifact": str(job.place.relative_to(folder / store.ARTIFACT))}


def export_beside_torch(job: Job, reference: Path) -> "Manifest":
    """Export an artifact, and where it has tables of its own torch's program with them, to `reference`."""
    import torch

    from exporter.pipeline import origin

    manifest = job.run().manifest
    if has_own_tables(manifest.precision):
        exact = origin.lowering_of(manifest).exact(job.source, tables_too=False)
        torch.export.save(exact.exported, reference)
    return manifest
