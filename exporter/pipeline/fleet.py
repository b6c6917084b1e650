"""`cocorr-export fleet`: every user of a file of clicks, judged one by one with one artifact."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from exporter.core.errors import BadInputError, CheckpointError, RuntimeMissingError
from exporter.core.precision import MILDEST_FIRST
from exporter.pipeline.fleet_plan import SHARD, FleetRequest
from exporter.pipeline.lengths import Lowering, Report
from exporter.pipeline.listing import require_model
from exporter.pipeline.reach import way_of
from exporter.pipeline.request import ProgramChoice
from exporter.targets import TARGETS
from safeio.progress import PassingLine

if TYPE_CHECKING:
    import numpy as np

    from exporter.artifact.results import FleetResult
    from exporter.fleet.engine import Task
    from exporter.fleet.store import Run
    from exporter.pipeline.fleet_summary import Pace
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint
    from models.training.users import Users

_WORKER = f"{__package__}.fleet_worker"
_SAMPLE = 6
"""What follows the seed of the training where users are drawn: another stream than those of the training itself."""


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
    from exporter.pipeline import fleet_plan, fleet_summary

    lowering, profile = _asked(request)
    store.check(request.output)
    report("loading the checkpoint")
    checkpoint = _checkpoint(request)
    report("reading the clicks")
    users = _users(request, checkpoint, profile)
    profile = profile.model_copy(update={"candidates": users.negatives + 1})
    history = profile.history_length or checkpoint.history_length
    asked = fleet_plan.plan_of(request, lowering, profile, checkpoint, users, history)
    plan = fleet_plan.held(request, asked, report)
    if plan is None:
        with store.begun(request.output) as folder:
            plan = {**asked, **fleet_plan.made(request, lowering, profile, folder, report)}
            store.write_plan(folder, plan)
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
    from exporter.core.extras import LOWER, require
    from exporter.fleet import ray_cluster
    from exporter.targets.environment import require_packages

    if request.ray is not None:
        ray_cluster.check(request.ray)
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
    from exporter.pipeline.source import folder_of
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    spec = load_spec(request.model)
    program = spec.programs[spec.default_program]
    if spec.select is not None or program.ranking is None or [one.name for one in program.inputs] != _INPUTS:
        raise BadInputError(
            f"fleet is for models that rank candidates for a history with one network, which {request.model} does not"
        )
    try:
        return checkpoints.read(folder_of(ProgramChoice(request.model, checkpoint=request.checkpoint)))
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
    from exporter.fleet.engine import Work
    from exporter.pipeline.fleet_engine import Engine
    from exporter.pipeline.fleet_summary import Pace, rows
    from safeio.staging import scratch

    done = run.done(shards.count)
    left = [shard for shard in range(shards.count) if shard not in done]
    if not left:
        return Pace(0, 0.0, 0)
    count = sum(len(shards.of(shard)) for shard in left)
    threads = int(cast("int", run.plan["threads"]))
    engine = Engine(request.ray, request.workers, threads)
    started, judged, line = time.monotonic(), 0, PassingLine()
    with scratch("fleet") as folder:
        work = Work(_WORKER, _settings(run, request, checkpoint), settings(threads), folder, _paths(request))
        # Closed before the folder goes: with it end all workers, also where a part cannot be written.
        with engine.computed(work, map(shards.task, left), len(left), report) as (workers, computed):
            report(f"judging {count:,} users in shards of {SHARD:,}, {workers} at once")
            for number, figures in computed:
                run.write(number, rows(shards, number, figures))
                judged += len(shards.of(number))
                line.show(f"{judged:,} of {count:,} users")
    line.end()
    return Pace(judged, time.monotonic() - started, workers)


def _paths(request: FleetRequest) -> tuple[str, ...]:
    """Return which settings of a worker name files."""
    return "artifact", "checkpoint", "reference", *(["model"] if ":" in request.model else [])


def _settings(run: "Run", request: FleetRequest, checkpoint: "Checkpoint") -> dict[str, object]:
    """Return what a worker is told, in JSON; it works in a folder of its own."""
    from exporter.fleet import store

    reference = run.folder / store.REFERENCE
    file, colon, name = request.model.rpartition(":")
    return {
        "artifact": str(run.folder / store.ARTIFACT / str(run.plan["artifact"])),
        "model": f"{Path(file).resolve()}:{name}" if colon else request.model,
        "checkpoint": str(checkpoint.folder.resolve()),
        "reference": str(reference) if reference.exists() else None,
        "golden_scale": run.plan["golden_scale"],
        "versions": run.plan["versions"],
    }
