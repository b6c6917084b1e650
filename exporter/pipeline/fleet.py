"""`cocorr-export fleet`: every user of a file of clicks, judged one by one with one artifact."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.core.errors import ArtifactError, BadInputError, CheckpointError, RuntimeMissingError
from exporter.core.extras import LOWER, require
from exporter.core.precision import MILDEST_FIRST, has_own_tables
from exporter.pipeline import source as sources
from exporter.pipeline.job import Job
from exporter.pipeline.lengths import Lowering, Report
from exporter.pipeline.listing import require_model
from exporter.pipeline.reach import way_of
from exporter.pipeline.request import ProgramChoice
from exporter.targets import TARGETS
from safeio.progress import PassingLine

if TYPE_CHECKING:
    import numpy as np

    from exporter.artifact.results import FleetResult
    from exporter.core.precision import Asked
    from exporter.fleet.engine import Task
    from exporter.fleet.store import Document, Run
    from exporter.pipeline.fleet_summary import Pace
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint
    from models.training.users import Users

SHARD = 1_000
"""Users of a shard: a second or so of work, which is what a kill costs at most, and a file of some 50 kB."""
_SAMPLE = 6
"""What follows the seed of the training where users are drawn: another stream than those of the training itself."""


@dataclass(frozen=True)
class FleetRequest:
    """What `cocorr-export fleet` was asked for.

    `sample` is how many users are judged, None for all; `workers` is None for one per processor. With `force` another
    run that stands at `output` is replaced.
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


@dataclass(frozen=True)
class Shards:
    """The users that are judged, rising, cut into shards; the cases of one depend on no other."""

    users: "Users"
    order: "np.ndarray"
    history: int

    @property
    def count(self) -> int:
        """Return how many shards there are."""
        return -(-len(self.order) // SHARD)

    def of(self, shard: int) -> "np.ndarray":
        """Return the users of a shard."""
        return self.order[shard * SHARD : (shard + 1) * SHARD]

    def task(self, shard: int) -> "Task":
        """Return the cases of those users of a shard who can be ranked for."""
        import numpy as np

        from exporter.fleet.engine import Task

        own = self.of(shard)
        cases = self.users.cases(own[np.isin(own, self.users.rankable, assume_unique=True)], self.history)
        return Task(shard, {"item_ids": cases.item_ids, "candidate_ids": cases.candidate_ids})


def fleet(request: FleetRequest, report: Report) -> "FleetResult":
    """Judge all users, or go on where a run of the same plan was ended; return the summary.

    Raises BadInputError before anything is written, OutputError where another run stands at the place, and
    RuntimeFailureError for a worker that dies; whole shards stay, and the same command goes on behind them.
    """
    from exporter.artifact.results import FleetResult
    from exporter.fleet import store
    from exporter.pipeline import fleet_summary

    lowering, profile = _asked(request)
    store.check(request.output)
    report("loading the checkpoint")
    checkpoint = _checkpoint(request)
    report("reading the clicks")
    users = _users(request, checkpoint, profile)
    profile = profile.model_copy(update={"candidates": users.negatives + 1})
    history = profile.history_length or checkpoint.history_length
    asked = _plan(request, lowering, profile, checkpoint, users, history)
    plan = _begun(request, asked, report)
    if plan is None:
        store.begin(request.output, lambda folder: {**asked, **_made(request, lowering, profile, folder, report)})
        plan = cast("Document", store.held_plan(request.output))
    with store.opened(request.output, plan) as run:
        order = _order(users, request.sample)
        shards = Shards(users, order, history)
        pace = _judge(run, request, checkpoint, shards, report)
        report("adding up")
        document = fleet_summary.summary(run, shards.count, pace)
        run.write_summary(document)
    return FleetResult(str(request.output), document)


def _asked(request: FleetRequest) -> "tuple[Lowering, DeviceProfile]":
    """Return how the program is to be lowered, and for which device; raises BadInputError."""
    from exporter import profiles
    from exporter.targets.environment import require_packages

    require_model(request.model)
    if request.target not in TARGETS:
        raise BadInputError(f"--target takes one target, {', '.join(TARGETS)}, not {request.target!r}")
    # This machine computes: a device that is asked for every user of a catalogue would take days.
    profile = profiles.load(request.profile).model_copy(update={"connection": way_of("host")})
    asked = request.precision or profile.precision
    precision = MILDEST_FIRST[0] if asked == "auto" else asked
    options = profile.options_for(request.target)
    lowering = Lowering(request.target, precision, options, fold=profile.fold, is_mildest=asked == "auto")
    lowering.check()
    target = TARGETS[request.target]
    require_packages(target)
    require("pyarrow", "train")
    require("torch", LOWER)
    if (reason := target.unverifiable(options)) is not None:
        raise RuntimeMissingError(reason)
    return lowering, profile


def _checkpoint(request: FleetRequest) -> "Checkpoint":
    """Return the checkpoint, of a model that ranks candidates for a history and has one network for all users."""
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    spec = load_spec(request.model)
    program = spec.programs[spec.default_program]
    if spec.select is not None or program.ranking is None or [one.name for one in program.inputs] != _INPUTS:
        raise BadInputError(
            f"fleet is for models that rank candidates for a history with one network, which {request.model} does not"
        )
    try:
        return checkpoints.read(sources.folder_of(ProgramChoice(request.model, checkpoint=request.checkpoint)))
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from error


_INPUTS = ["item_ids", "candidate_ids"]


def _users(request: FleetRequest, checkpoint: "Checkpoint", profile: "DeviceProfile") -> "Users":
    from models.training.columns import BY_NAME, parse_columns
    from models.training.users import Catalogue, read_users

    training = checkpoint.config.get("training")
    catalogue = Catalogue(
        int(checkpoint.architecture["vocabulary"]), checkpoint.items, training if isinstance(training, dict) else {}
    )
    columns = BY_NAME if request.columns is None else parse_columns(request.columns)
    negatives = None if profile.candidates is None else profile.candidates - 1
    return read_users(request.data, catalogue, negatives, columns)


def _plan(
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
        "sample": request.sample or "all",
        "shard_users": SHARD,
        "history_length": history,
        "candidates": users.negatives + 1,
        "seed": users.seed,
        "versions": versions(TARGETS[request.target]),
    }


def _begun(request: FleetRequest, asked: "dict[str, object]", report: Report) -> "Document | None":
    """Return the plan of the run that is to go on, None for a new one; raises BadInputError for another run's."""
    from exporter.fleet import store
    from safeio.places import check_facts

    try:
        plan = store.held_plan(request.output)
        if plan is None:
            return None
        check_facts(request.output, "run", {name: plan.get(name, "nothing") for name in asked}, asked)
        _check_artifact(request.output, plan)
    except BadInputError:
        if request.force:
            return None
        raise
    report("going on with the run that is there")
    return plan


def _check_artifact(place: Path, plan: "Document") -> None:
    """Raise ArtifactError where the artifact of a run is not the one that was made for it."""
    from exporter.artifact import store as artifacts
    from exporter.fleet import store
    from safeio.files import UnreadableError

    try:
        found = artifacts.shipped_sha256(place / store.ARTIFACT / str(plan.get("artifact")))
    except (OSError, UnreadableError):
        found = None
    if found is None or found != plan.get("artifact_sha256"):
        raise ArtifactError(f"{place}: its artifact is not the one that was made for it; begin anew with --force")


def _made(
    request: FleetRequest, lowering: Lowering, profile: "DeviceProfile", folder: Path, report: Report
) -> "dict[str, object]":
    """Export the artifact into a new run's folder, judged by its golden cases; return what the plan says of it."""
    import torch

    from exporter.artifact import store as artifacts
    from exporter.core.precision import weights_of
    from exporter.fleet import store
    from exporter.pipeline import origin

    stored = weights_of(request.precision or profile.precision)
    choice = ProgramChoice(request.model, checkpoint=request.checkpoint)
    source = sources.load(choice, profile.history_length, profile.candidates, profile.top, stored)
    report(f"capturing {source.name}/{source.program.name}")
    job = Job(folder / store.ARTIFACT, source, profile, lowering, report, force=False)
    manifest = job.run().manifest
    golden = artifacts.read_golden(job.place)
    if has_own_tables(manifest.precision):
        exact = origin.lowering_of(manifest).exact(source, tables_too=False)
        torch.export.save(exact.exported, folder / store.REFERENCE)
    return {
        "artifact": str(job.place.relative_to(folder / store.ARTIFACT)),
        "artifact_sha256": artifacts.shipped_sha256(job.place),
        "golden_scale": float(abs(golden.outputs[cast("str", manifest.ranking)]).max()),
    }


def _order(users: "Users", sample: int | None) -> "np.ndarray":
    """Return the users that are judged, rising."""
    import numpy as np

    everybody = len(users.names)
    if sample is None or sample >= everybody:
        return np.arange(everybody)
    chosen: np.ndarray = np.sort(np.random.default_rng([users.seed, _SAMPLE]).choice(everybody, sample, replace=False))
    return chosen


def _judge(run: "Run", request: FleetRequest, checkpoint: "Checkpoint", shards: Shards, report: Report) -> "Pace":
    """Judge the shards that are not there yet and write each as soon as it is; return how fast that went."""
    from exporter.connections.host import settings
    from exporter.fleet import engine, store
    from exporter.pipeline.fleet_summary import Pace, rows
    from safeio.staging import scratch

    done = run.done(shards.count)
    left = [shard for shard in range(shards.count) if shard not in done]
    threads = int(cast("int", run.plan["threads"]))
    workers = min(request.workers or max(1, len(os.sched_getaffinity(0)) // threads), max(1, len(left)))
    started, judged, line = time.monotonic(), 0, PassingLine()
    if left:
        report(
            f"judging {len(left)} shards of up to {SHARD} users with {workers} {'worker' if workers == 1 else 'workers'}"
        )
        reference = run.folder / store.REFERENCE
        work_settings = {
            "artifact": str(run.folder / store.ARTIFACT / str(run.plan["artifact"])),
            "model": request.model,
            "checkpoint": str(checkpoint.folder.resolve()),
            "reference": str(reference) if reference.exists() else None,
            "golden_scale": run.plan["golden_scale"],
        }
        with scratch("fleet") as folder:
            work = engine.Work("exporter.pipeline.fleet_worker", work_settings, settings(threads), folder)
            for number, figures in engine.run(work, map(shards.task, left), workers):
                run.write(number, rows(shards, number, figures))
                judged += len(shards.of(number))
                line.show(f"{judged:,} of {sum(len(shards.of(shard)) for shard in left):,} users")
        line.end()
    return Pace(users=judged, seconds=time.monotonic() - started, workers=workers if left else 0)
