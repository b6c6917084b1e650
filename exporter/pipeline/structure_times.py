"""Sub-networks of one program, lowered and timed in turn where a profile says."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
    """Median times [S] of structures in microseconds, over which connection they were taken, and what ran them."""

    times_us: "np.ndarray"
    connection: str
    executed_on: str


@dataclass(frozen=True)
class _Case:
    subject: "Subject"
    inputs: "Arrays"


def time_in_rounds(
    sources: Sequence["Source"], lowering: lengths.Lowering, profile: "DeviceProfile", report: lengths.Report
) -> Timed:
    """Lower the program of each structure, and time all of them in every round, each round in another order.

    Raises RuntimeMissingError where their runtime takes no times, and RuntimeFailureError where one does not run.
    """
    import numpy as np

    from exporter.measure.structures import middle
    from safeio.staging import scratch

    rng, rounds = np.random.default_rng(_SEED), np.empty((ROUNDS, len(sources)))
    with scratch("structures") as folder:
        cases: list[_Case] = []
        for number, source in enumerate(sources, 1):
            report(f"{lowering.target}: lowering {source.structure}, {number} of {len(sources)}")
            cases.append(_lowered(source, lowering, profile, folder / source.structure))
            if number == 1:  # where nothing can be timed, nothing else is lowered
                first = _timed(cases[0])
        for at in range(ROUNDS):
            report(f"{lowering.target}: timing {len(cases)} structures, round {at + 1} of {ROUNDS}")
            for column in rng.permutation(len(cases)):
                rounds[at, column] = _timed(cases[column]).times_us[0]
    return replace(first, times_us=middle(rounds))


def _lowered(source: "Source", lowering: lengths.Lowering, profile: "DeviceProfile", folder: Path) -> _Case:
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
    return _Case(subject, {name: array[:1] for name, array in source.inputs.items()})


def _timed(case: _Case) -> Timed:
    """Run a program in a process of its own; return the median of its calls."""
    import numpy as np

    from exporter.connections import running
    from exporter.measure import figures

    ran = running.run(case.subject, case.inputs, WARMUP, CALLS)
    result, latency = ran.required(Path(case.subject.label)), figures.latency(ran.result, ran.reason, WARMUP)
    if latency.p50_us is None or latency.connection is None:
        raise RuntimeMissingError(f"{case.subject.label}: no time was taken: {latency.reason}")
    return Timed(np.array([latency.p50_us]), latency.connection, result.executed_on)
