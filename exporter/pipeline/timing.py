"""Artifacts to time: the first golden case of one, and two of them called in turn."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, CocorrError

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.connections.running import Subject
    from exporter.core.protocols import Connection
    from exporter.core.sections import Comparison
    from exporter.core.types import Arrays

    Case = tuple[Subject, Arrays]

LEAST_PAIRS = 20
_PROCESSES = 3


def first_case(folder: Path, manifest: "Manifest", connection: "Connection | None" = None) -> "Case":
    """Return an artifact, to run over `connection` or on this host, and its first golden case; raises ArtifactError."""
    from exporter.artifact import store
    from exporter.pipeline.subjects import golden_problem, subject_of

    golden = store.read_golden(folder)
    wrong = golden_problem(manifest, golden)
    if wrong is not None:
        raise ArtifactError(f"{folder}: {wrong}; export the artifact again")
    first = {tensor.name: golden.inputs[tensor.name][:1] for tensor in manifest.inputs}
    return subject_of(folder, manifest, connection), first


def in_turn(first: str, case: "Case", second: str, rival: "Case", timed: tuple[int, int]) -> "Comparison":
    """Call two artifacts in turn, `timed` times to warm up and to time; null and the reason where one cannot run."""
    from exporter.connections import running
    from exporter.core.sections import Comparison
    from exporter.measure import figures

    try:
        times = running.compare_times(case, rival, *timed)
    except CocorrError as error:
        return Comparison(first=first, second=second, ratio=None, reason=str(error))
    return figures.comparison(first, second, times)


def in_turn_anew(first: str, case: "Case", second: str, rival: "Case", timed: tuple[int, int]) -> "Comparison":
    """Compare as `in_turn` does in three processes, each in another order than the one before; as far as all agree.

    Where the memory of a process lies moves all of its times by a few percent, which its own interval cannot show: the
    same file, three times, gave 0.97, 0.99 and 1.00. So the interval is that of all of them together.
    """
    from exporter.measure import figures

    rounds = [in_turn(first, case, second, rival, timed)]
    while rounds[-1].ratio is not None and len(rounds) < _PROCESSES:
        if len(rounds) % 2:
            rounds.append(figures.swapped(in_turn(second, rival, first, case, timed)))
        else:
            rounds.append(in_turn(first, case, second, rival, timed))
    return rounds[-1] if rounds[-1].ratio is None else figures.together(rounds)
