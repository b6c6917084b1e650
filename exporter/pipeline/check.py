"""`cocorr-export check`: everything that a repository lists is exported, judged, and held to what it committed."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, CheckpointError, ConfigError
from exporter.pipeline import judging, timing
from exporter.pipeline.cache import Cache
from exporter.pipeline.export import export
from exporter.pipeline.gating import Job, at_line, jobs_of
from exporter.pipeline.job import WARMUP
from exporter.pipeline.lengths import Report as Progress
from exporter.pipeline.request import ExportRequest
from safeio.files import UnreadableError

if TYPE_CHECKING:
    from exporter.artifact.results import Checked, Report
    from exporter.core.checks import Counted
    from exporter.core.protocols import Connection
    from exporter.gate.judge import Timed
    from exporter.gate.lock import Lock, Locked
    from exporter.pipeline.judging import Judged

_PAIRS = 500


@dataclass(frozen=True)
class CheckRequest:
    """What `cocorr-export check` was asked for.

    With `update` the baseline is written anew; with `evidence` each artifact comes with what a run of its golden cases
    showed, for a report that draws it.
    """

    config: Path
    update: bool = False
    evidence: bool = False


@dataclass(frozen=True)
class _Made:
    """The artifact of a job, or the words of why there is none."""

    job: Job
    place: Path | None
    error: str | None = None
    is_cached: bool = False


def lock_of(config: Path) -> Path:
    """Return where the lock of a configuration lies."""
    from exporter.gate import lock

    return lock.path_of(config)


def check(request: CheckRequest, report: Progress) -> "Report":
    """Export what changed, judge all of it, and compare it with the baseline; with `update`, write that instead.

    Raises ConfigError where the configuration or the lock cannot be used, and BadInputError where what they name cannot
    be exported at all. A baseline is written only where nothing failed.
    """
    from exporter.artifact.results import Report
    from exporter.gate import config as configs
    from exporter.gate import lock as locks

    config = configs.load(request.config)
    lock_file = lock_of(request.config)
    lock = _baseline(lock_file, request.update, report)
    jobs, versions = jobs_of(config, report)
    baselines, gone = _paired(jobs, lock)
    cache = Cache(request.config)
    with cache.held():
        gate = _Gate(cache, request, str(lock_file), report, lock.versions == versions)
        made = _all_made(config.path, jobs, baselines, cache, report)
        rows = [gate.checked(one, baselines.get(one.job.name)) for one in made]
        # Of what the baseline had of packages that nothing here uses, nobody knows what they are now.
        differing = [name for name in sorted(versions) if lock.versions and lock.versions.get(name) != versions[name]]
        checked = Report(
            artifacts=tuple(row for row, _ in rows),
            config=str(request.config),
            lock=str(lock_file),
            versions={name: (lock.versions.get(name), versions[name]) for name in differing},
            gone=() if request.update else gone,
        )
        if request.update and checked.exit_code != 1:
            lock = locks.Lock({row.name: locked for row, locked in rows if locked is not None}, versions)
            locks.write(lock_file, lock)
        current = {cache.place(job.key) for job in jobs}
        of_baseline = {locked.model_sha256 for locked in lock.artifacts.values()}
        cache.keep_only(current.union(_with_sha256([path for path in cache.all() if path not in current], of_baseline)))
    return checked


def _baseline(lock_file: Path, is_update: bool, report: Progress) -> "Lock":
    """Return the baseline; where it is written anyway, one that is not there or cannot be used is an empty one."""
    from exporter.gate import lock as locks

    try:
        lock = locks.read(lock_file)
    except ConfigError as error:
        if not is_update:
            raise
        report(f"{error}: it is written anew")
        lock = None
    if lock is None and not is_update:
        raise ConfigError(f"{lock_file} does not exist; write it with --update, and commit it")
    return lock or locks.Lock({}, {})


def _with_sha256(places: Collection[Path], wanted: Collection[str]) -> Iterator[Path]:
    """Yield the artifacts whose files are some of `wanted`; what cannot be read is none."""
    for place in places:
        try:
            if judging.as_made(place).model_sha256 in wanted:
                yield place
        except (ArtifactError, UnreadableError):
            continue


def _paired(jobs: Sequence[Job], lock: "Lock") -> "tuple[dict[str, Locked], tuple[str, ...]]":
    """Return the baseline of each job by its name, and the names of the baseline that are no job's.

    A job whose precision is another than before has the baseline of the same program, profile and target, where that
    is the only one which no job has by its name.
    """
    names = {job.name for job in jobs}
    free = {name: locked for name, locked in lock.artifacts.items() if name not in names}
    baselines = {name: lock.artifacts[name] for name in names if name in lock.artifacts}
    for job in jobs:
        alike = [name for name in free if name.startswith(job.stem)]
        if job.name not in baselines and len(alike) == 1:
            baselines[job.name] = free.pop(alike[0])
    return baselines, tuple(sorted(free))


def _all_made(
    config: Path, jobs: Sequence[Job], baselines: "dict[str, Locked]", cache: Cache, report: Progress
) -> "list[_Made]":
    """Return the artifact of each job, in their order; what the cache does not have is made."""
    made = {job.name: _Made(job, cache.place(job.key), is_cached=True) for job in jobs if _is_held(cache, job)}
    missing = [job for job in jobs if job.name not in made]
    if made:
        report(f"{len(made)} of {len(jobs)} artifacts are there as they were made before")
    while missing:
        group = [job for job in missing if job.group == missing[0].group]
        missing = [job for job in missing if job.group != group[0].group]
        known = all(job.name in baselines for job in group)
        made |= {one.job.name: one for one in _exported(config, group, known, cache, report)}
    return [made[job.name] for job in jobs]


def _is_held(cache: Cache, job: Job) -> bool:
    """Say whether the cache has the artifact of a job; one that was changed there is, and fails when it is judged."""
    from exporter.pipeline.opening import read_manifest

    place = cache.place(job.key)
    try:
        made = None if place.is_symlink() else read_manifest(place)
    except ArtifactError:
        return False
    if made is None:
        return False
    of_job = (job.target, job.profile.name, job.precision or job.profile.precision)
    sha256 = made.source.checkpoint_sha256
    return (made.target, made.profile, made.precision) == of_job and sha256 in (None, job.source)


def _exported(config: Path, group: Sequence[Job], are_known: bool, cache: Cache, report: Progress) -> "list[_Made]":
    """Make the artifacts of jobs that differ by their targets alone, and put them into the cache.

    `are_known` says that the baseline has them all: a checkpoint that is there and cannot be used is then what the
    gate is for, and no mistake in the configuration.
    """
    from exporter.artifact.results import Result

    first = group[0]
    with cache.making() as folder:
        request = ExportRequest(
            choice=first.choice,
            target=",".join(job.target for job in group),
            output=folder,
            profile=first.profile_word,
            precision=first.precision,
            without_passes=first.entry.without_passes,
            fold=first.entry.fold,
        )
        try:
            with at_line(config, first.entry):
                results = export(request, report)
        except ConfigError as error:
            if isinstance(error.__cause__, CheckpointError) and are_known:
                return [_Made(job, None, str(error.__cause__)) for job in group]
            raise
        return [
            _Made(job, cache.put(Path(result.place), job.key))
            if isinstance(result, Result)
            else _Made(job, None, result.error)
            for job, result in zip(group, results, strict=True)
        ]


@dataclass(frozen=True)
class _Gate:
    """What artifacts are held to, one after the other."""

    cache: Cache
    request: CheckRequest
    lock: str
    report: Progress
    has_same_versions: bool

    def checked(self, made: _Made, baseline: "Locked | None") -> "tuple[Checked, Locked | None]":
        """Judge one artifact and hold it to its limits; return it, and what a new baseline says of it."""
        from exporter.artifact.results import Checked
        from exporter.connections import connect
        from exporter.gate import judge

        job, limits = made.job, made.job.entry.limits
        if made.place is None:
            named = limits.get("checkpoint", ())
            compared = (
                () if baseline is None else tuple(judge.other_source(each, baseline, job.source) for each in named)
            )
            row = Checked(
                name=job.name, place=None, manifest=None, limits=compared, error=made.error, line=job.entry.line
            )
            return row, None
        connection = connect(*job.profile.connection.chosen())
        if made.is_cached or self.request.evidence:
            self.report(f"{job.name}: judging")
            judged = judging.judge(made.place, connection, self.report)
        else:
            judged = judging.as_made(made.place)
        same = baseline if baseline is not None and baseline.model_sha256 == judged.model_sha256 else None
        counted = self._counted(job, judged, made.place, same if self.has_same_versions else None, connection)
        timed = self._timed(job, judged, made.place, baseline, connection)
        checks = judge.judged(limits, judged.manifest, job.source, baseline, counted, timed, accept=self.request.update)
        if baseline is None and not self.request.update:
            checks = (judge.without_baseline(self.lock), *checks)
        row = Checked(
            name=job.name,
            place=str(made.place),
            manifest=judged.manifest,
            limits=checks,
            line=job.entry.line,
            is_cached=made.is_cached,
            comparison=timed.comparison,
            evidence=judged.evidence if self.request.evidence else None,
        )
        return row, _locked(job, judged, counted, baseline)

    def _counted(
        self, job: Job, judged: "Judged", place: Path, baseline: "Locked | None", connection: "Connection"
    ) -> "Counted":
        """Count the instructions of one call, unless a limit does not ask, or this is the artifact of the baseline."""
        from exporter.connections import running, valgrind
        from exporter.core.checks import Counted

        latency, limits = judged.manifest.latency, job.entry.limits.get("instructions")
        if not limits or judged.manifest.parity.verdict != "pass":
            return Counted(None, None, "it was not run" if limits else None)
        if connection.name != "host":
            number, on = (None, None) if latency is None else (latency.instructions, latency.counted_on)
            why = None if latency is None else latency.reason
            return Counted(number, on, "in a browser nothing counts them" if connection.name == "browser" else why)
        if baseline is not None and valgrind.why_not() is None and valgrind.counter() in baseline.instructions:
            return Counted(None, valgrind.counter(), "it is the artifact of the baseline: not counted again")
        self.report(f"{job.name}: counting instructions")
        return running.count_instructions(*timing.first_case(place, judged.manifest, connection))

    def _timed(
        self, job: Job, judged: "Judged", place: Path, baseline: "Locked | None", connection: "Connection"
    ) -> "Timed":
        """Call the artifact and that of the baseline in turn, where both are here and differ."""
        from exporter.gate.judge import Timed

        if baseline is None or not job.entry.limits.get("latency"):
            return Timed(None, None)
        if baseline.model_sha256 == judged.model_sha256:
            return Timed(None, "it is the file of the baseline", is_same_file=True)
        if judged.manifest.parity.verdict != "pass":
            return Timed(None, "it was not timed: what fails has no time worth having")
        before = next(_with_sha256(self.cache.all(), {baseline.model_sha256}), None)
        if before is None:
            return Timed(None, "the artifact of the baseline is not at hand; keep .cocorr to compare times")
        first = timing.first_case(before, judging.as_made(before).manifest, connection)
        second = timing.first_case(place, judged.manifest, connection)
        self.report(f"{job.name}: calling it and the artifact of the baseline in turn")
        comparison = timing.in_turn_anew("baseline", first, "now", second, (WARMUP, _PAIRS))
        return Timed(comparison, comparison.reason)


def _locked(job: Job, judged: "Judged", counted: "Counted", baseline: "Locked | None") -> "Locked":
    """Return what a new baseline says of an artifact.

    Counts of other processors stay where the artifact is the same.
    """
    from exporter.gate import judge
    from exporter.gate.lock import Locked

    instructions = {} if counted.number is None or counted.by is None else {counted.by: counted.number}
    if baseline is not None and baseline.model_sha256 == judged.model_sha256:
        instructions = {**baseline.instructions, **instructions}
    return Locked(
        source=job.source,
        precision=judged.manifest.precision,
        model_sha256=judged.model_sha256,
        figures=judge.figures_of(judged.manifest),
        instructions=instructions,
    )
