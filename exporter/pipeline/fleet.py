"""`cocorr-export fleet`: every user of a file of clicks, judged one by one with one artifact."""

import time
from dataclasses import dataclass
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
    from exporter.pipeline.fleet_kind import Kind
    from exporter.pipeline.fleet_summary import Pace
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint
    from models.training.users import Users

_SAMPLE = 6
"""What follows the seed of the training where users are drawn: another stream than those of the training itself."""


@dataclass(frozen=True)
class Shards:
    """The users that are judged, rising, cut into shards; the cases of one depend on no other."""

    users: "Users"
    order: "np.ndarray | range"
    history: int

    @property
    def count(self) -> int:
        """Return how many shards there are."""
        return -(-len(self.order) // SHARD)

    def of(self, shard: int) -> "np.ndarray":
        """Return the users of a shard."""
        return self.at(shard * SHARD, (shard + 1) * SHARD)

    def at(self, first: int, last: int) -> "np.ndarray":
        """Return the users at places from `first` up to `last`."""
        import numpy as np

        users = self.order[first:last]
        return np.arange(users.start, users.stop) if isinstance(users, range) else users

    def ranked(self, shard: int) -> "np.ndarray":
        """Return those users of a shard who can be ranked for."""
        return self.able(self.of(shard))

    def able(self, users: "np.ndarray") -> "np.ndarray":
        """Return those of some users who can be ranked for."""
        chosen: np.ndarray = users[self.are_able(users)]
        return chosen

    def are_able(self, users: "np.ndarray") -> "np.ndarray":
        """Tell of each of some users whether they can be ranked for, [n] bool."""
        from models.training.users import RANKED, STATUSES

        able: np.ndarray = self.users.status[users] == STATUSES.index(RANKED)
        return able

    def task(self, shard: int) -> "Task":
        """Return the cases of those users of a shard who can be ranked for."""
        from exporter.fleet.engine import Task

        cases = self.users.cases(self.ranked(shard), self.history)
        return Task(shard, {"item_ids": cases.item_ids, "candidate_ids": cases.candidate_ids})


def fleet(request: FleetRequest, report: Report) -> "FleetResult":
    """Judge all users, or go on where a run of the same plan was ended; return the summary.

    Raises BadInputError before anything is written, OutputError where another run stands at the place, and
    RuntimeFailureError for a worker that dies; whole shards stay, and the same command goes on behind them.
    """
    from exporter.artifact.results import FleetResult
    from exporter.fleet import store
    from exporter.pipeline import fleet_plan
    from exporter.pipeline.source import items_of

    lowering, profile = _asked(request)
    store.check(request.output)
    report("loading the checkpoint")
    checkpoint = _checkpoint(request)
    report("reading the clicks")
    users = _users(request, checkpoint, profile)
    if users.ids == "rows":
        report(str(items_of(checkpoint).note))
    profile = profile.model_copy(update={"candidates": users.negatives + 1})
    history = profile.history_length or checkpoint.history_length
    kind = _kind(request, checkpoint, Shards(users, _order(users, request.sample), history))
    kind.check()
    asked = {**fleet_plan.plan_of(request, lowering, profile, checkpoint, users, history), **kind.facts}
    plan = fleet_plan.held(request, asked, kind.names_made, report)
    kind.check_beside(asked)
    if plan is None:
        with store.begun(request.output) as folder:
            plan = {**asked, **kind.made(lowering, profile, folder, report)}
            plan[fleet_plan.EXPORTED] = store.exported_sha256(folder)
            store.write_plan(folder, plan)
    with store.opened(request.output, plan) as run, kind.opened(run):
        pace = _judge(run, request, kind, report)
        report("adding up")
        document = kind.summary(run, pace)
        run.write_summary(document, kind.page(document, plan))
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
    """Return the checkpoint, of a model that ranks candidates for a history."""
    from exporter.pipeline.fleet_ofa import cloud_of
    from exporter.pipeline.source import folder_of
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    spec = load_spec(request.model)
    program = spec.programs[spec.default_program]
    selects = spec.select is not None and spec.cloud is None
    if selects or program.ranking is None or [one.name for one in program.inputs] != _INPUTS:
        raise BadInputError(f"fleet is for models that rank candidates for a history, which {request.model} does not")
    if spec.cloud is None and (request.packages or request.stored or request.parity_sample):
        raise BadInputError(
            f"--packages, --stored and --parity-sample are for models with a network for each user, and {request.model}"
            " has one for all; leave them out"
        )
    try:
        found = checkpoints.read(folder_of(ProgramChoice(request.model, checkpoint=request.checkpoint)))
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    if spec.cloud is not None:
        cloud_of(request.model, found)  # refuses one without packages, before the clicks are read
    return found


_INPUTS = ["item_ids", "candidate_ids"]


def _kind(request: FleetRequest, checkpoint: "Checkpoint", shards: Shards) -> "Kind":
    """Return how the users of a model are judged."""
    from exporter.pipeline.fleet_kind import OneNetwork
    from exporter.pipeline.fleet_ofa import OneEach
    from models.zoo import load_spec

    kind = OneNetwork if load_spec(request.model).cloud is None else OneEach
    return kind(request, checkpoint, shards)


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


def _order(users: "Users", sample: int | None) -> "np.ndarray | range":
    """Return the users that are judged, rising."""
    import numpy as np

    everybody = len(users.names)
    if sample is None or sample >= everybody:
        return range(everybody)
    chosen: np.ndarray = np.sort(np.random.default_rng([users.seed, _SAMPLE]).choice(everybody, sample, replace=False))
    return chosen


def _judge(run: "Run", request: FleetRequest, kind: "Kind", report: Report) -> "Pace":
    """Judge the shards that are not there yet and write each as soon as it is; return how fast that went."""
    from exporter.connections.host import settings
    from exporter.fleet.engine import Work
    from exporter.pipeline.fleet_engine import Engine
    from exporter.pipeline.fleet_summary import Pace, earlier_pace
    from safeio.staging import scratch

    shards = kind.shards
    done = run.done(shards.count) & kind.done(run)
    left = [shard for shard in range(shards.count) if shard not in done]
    if not left:
        return earlier_pace(run)
    count = sum(len(shards.of(shard)) for shard in left)
    threads = int(cast("int", run.plan["threads"]))
    engine = Engine(request.ray, request.workers, threads)
    started, judged, line = time.monotonic(), 0, PassingLine()
    with scratch("fleet") as folder:
        work = Work(kind.worker, kind.settings(run), settings(threads), folder, kind.paths)
        # Closed before the folder goes: with it end all workers, also where a part cannot be written.
        with engine.computed(work, map(kind.task, left), len(left), report) as (workers, computed):
            report(f"judging {count:,} users in shards of {SHARD:,}, {workers} at once")
            for number, figures in computed:
                kind.keep(run, number, figures)
                judged += len(shards.of(number))
                line.show(f"{judged:,} of {count:,} users")
    line.end()
    return Pace(judged, time.monotonic() - started, workers)
