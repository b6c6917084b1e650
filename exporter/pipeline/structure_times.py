"""Sub-networks of one program, lowered and timed in turn where a profile says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import RuntimeMissingError
from exporter.pipeline import lengths
from exporter.pipeline.job import WARMUP
from exporter.targets import TARGETS

if TYPE_CHECKING:
    import numpy as np

    from exporter.connections.running import Subject
    from exporter.core.types import Arrays
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile

ROUNDS, CALLS = 3, 500
_SEED = 0


@dataclass(frozen=True)
class Timed:
    """Median times [S] of structures in microseconds, and what ran them."""

    times_us: "np.ndarray"
    executed_on: str


@dataclass(frozen=True)
class Case:
    """A program that was lowered, and the inputs of one call."""

    subject: "Subject"
    inputs: "Arrays"


def time_in_rounds(
    sources: Sequence["Source"], lowering: lengths.Lowering, profile: "DeviceProfile", report: lengths.Report
) -> Timed:
    """Lower the program of each structure, and time all of them in every round, each round in another order.

    Each is called in turn with the first of them, so that what slows the machine slows both; a time is the median of
    the ratios, times what the first one takes when it is called alone. Raises RuntimeMissingError where their runtime
    takes no times, and RuntimeFailureError where one does not run.
    """
    from safeio.staging import scratch

    with scratch("structures") as folder:
        cases: list[Case] = []
        for number, source in enumerate(sources, 1):
            report(f"{lowering.target}: lowering {source.structure}, {number} of {len(sources)}")
            cases.append(_lowered(source, lowering, profile, folder / source.structure))
            if number == 1:  # where nothing can be timed, nothing else is lowered
                _alone(cases[0])
        return times_of(cases, report)


def times_of(cases: "Sequence[Case]", report: lengths.Report) -> Timed:
    """Time programs that were lowered, as `time_in_rounds` does."""
    import numpy as np

    rng, shape = np.random.default_rng(_SEED), (ROUNDS, len(cases))
    alone, ratios = np.empty(ROUNDS), np.ones(shape)
    for at in range(ROUNDS):
        report(f"timing {len(cases)} structures, round {at + 1} of {ROUNDS}")
        alone[at], executed_on = _alone(cases[0])
        for column in rng.permutation(len(cases) - 1) + 1:
            ratios[at, column] = _ratio(cases[column], cases[0], is_first=at % 2 == 0)
    return Timed(np.median(ratios, axis=0) * np.median(alone), executed_on)


def _lowered(source: "Source", lowering: lengths.Lowering, profile: "DeviceProfile", folder: Path) -> Case:
    """Lower a program into a new folder."""
    from exporter.connections import connect
    from exporter.connections.running import Subject
    from exporter.targets import reading
    from safeio.files import writing
    from safeio.staging import ROOM

    target = TARGETS[lowering.target]
    with writing(folder, ROOM):
        folder.mkdir()
        captured, model_file, _ = lengths.lower(source, lowering, folder, lambda _: None)
    data = None if source.external is None else reading.read(target, model_file).data
    subject = Subject(
        target=target,
        model_file=model_file,
        options=lowering.options,
        outputs=captured.outputs,
        threads=profile.threads,
        connection=connect(*profile.connection.chosen()),
        data=data,
        label=f"{source.name}/{source.program.name} {folder.name}",
    )
    return Case(subject, {name: array[:1] for name, array in source.inputs.items()})


def _alone(case: Case) -> tuple[float, str]:
    """Run a program in a process of its own; return the median of its calls in microseconds, and what ran it."""
    from exporter.connections import running
    from exporter.measure import figures

    ran = running.run(case.subject, case.inputs, WARMUP, CALLS)
    result, latency = ran.required(Path(case.subject.label)), figures.latency(ran.result, ran.reason, WARMUP)
    if latency.p50_us is None:
        raise RuntimeMissingError(f"{case.subject.label}: no time was taken: {latency.reason}")
    return latency.p50_us, result.executed_on


def _ratio(case: Case, other: Case, is_first: bool) -> float:
    """Call two programs in turn in one process; return the median of the first's times over the other's."""
    import numpy as np

    from exporter.connections import running

    own, others = (case.subject, case.inputs), (other.subject, other.inputs)
    if is_first:
        times = running.compare_times(own, others, WARMUP, CALLS)
        return float(np.median(np.divide(times.first_us, times.second_us)))
    times = running.compare_times(others, own, WARMUP, CALLS)
    return float(np.median(np.divide(times.second_us, times.first_us)))
