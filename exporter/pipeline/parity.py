"""`cocorr-export parity`: artifacts judged again from their folders alone, without the checkpoint."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import CocorrError
from exporter.pipeline.finding import artifact_folders
from exporter.pipeline.lengths import Report
from exporter.pipeline.opening import changed_file, open_known
from exporter.pipeline.reach import by_devices, reach
from exporter.pipeline.telling import tell_device

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Result, Unread
    from exporter.connections.running import Ran
    from exporter.core.protocols import Connection
    from exporter.core.sections import Parity


def parity(folder: Path, report: Report, connection: str = "host") -> "Result":
    """Judge an artifact again from its folder alone; return it with the new verdict.

    `connection` is one that needs no more than its name, or a profile whose device shall run it: an artifact may come
    from anywhere, so it does not choose. Raises ArtifactError.
    """
    from exporter.artifact import store
    from exporter.artifact.results import Result
    from exporter.core.sections import Parity

    way = reach(connection)
    opened = open_known(folder)
    report("comparing the files with the manifest")
    changed = changed_file(opened)
    failed = Parity(verdict="fail", reason=changed)
    judged = failed if changed else run_golden(opened.folder, opened.manifest, report, way)[0]
    store.require_same(opened)
    added = store.added_files(opened.folder, opened.manifest)
    return Result(replace(opened.manifest, parity=judged), str(folder), added=added)


def parity_of_all(
    folders: Sequence[Path], report: Report, connection: str = "host", devices: int = 1
) -> "list[Result | Unread]":
    """Judge artifacts in turn, each as `parity` does; a folder that holds artifacts stands for all of them.

    One that cannot be read keeps the others from nothing. Raises what `parity` does where there is only one artifact.
    `devices` is how many phones judge all of them, one phone after the other.
    """
    found = artifact_folders(folders)
    judged: list[Result | Unread] = []
    for _ in by_devices(connection, devices):  # what is wrong with it is wrong for all
        alone = len(found) == 1 and not judged
        judged += [parity(found[0], report, connection)] if alone else _each(found, report, connection)
    return judged


def _each(found: Sequence[Path], report: Report, connection: str) -> "list[Result | Unread]":
    from exporter.artifact.results import Unread

    judged: list[Result | Unread] = []
    for folder in found:
        try:
            judged.append(parity(folder, partial(_report_of, report, folder), connection))
        except CocorrError as error:
            words = str(error) if str(folder) in str(error) else f"{folder}: {error}"
            judged.append(Unread(str(folder), words, error.exit_code))
    return judged


def _report_of(report: Report, folder: Path, step: str) -> None:
    report(f"{folder}: {step}")


def judge_golden(folder: Path, manifest: "Manifest", report: Report) -> "Parity":
    """Run the golden cases on this host and return the parity section."""
    return run_golden(folder, manifest, report)[0]


def run_golden(
    folder: Path,
    manifest: "Manifest",
    report: Report,
    connection: "Connection | None" = None,
    timed: tuple[int, int] = (0, 0),
) -> "tuple[Parity, Ran | None]":
    """Run the golden cases, and case 0 as often as `timed` says (to warm up, to time); return parity and the run.

    Where golden cases carry weights of their own, those that ship run too: nothing is known of what they should give,
    but numbers they must be.
    """
    import numpy as np

    from exporter.artifact import store, weights
    from exporter.connections import running
    from exporter.core.sections import Parity
    from exporter.pipeline.subjects import fed, golden_problem, in_one_call, parity_of, subject_of

    golden = store.read_golden(folder)
    wrong = golden_problem(manifest, golden)
    if wrong is not None:
        return Parity(verdict="fail", reason=wrong), None
    report("running the golden cases")
    judged = partial(
        parity_of,
        golden=golden,
        ranking=manifest.ranking,
        precision=manifest.precision,
        ranked=manifest.ranked,
        scheme=manifest.scheme,
        untrained=manifest.source.untrained,
    )
    subject, external = subject_of(folder, manifest, connection), manifest.external
    ordered = {spec.name: golden.inputs[spec.name] for spec in fed(manifest)}
    if external is None:
        ran = running.run(subject, ordered, *timed)
        verdict = judged(ran)
        if manifest.any_batch is not None:
            report("running them in one call")
            verdict = in_one_call(verdict, subject, golden, manifest.ranking, manifest.precision, manifest.ranked)
        return _told(verdict, ran, timed, connection), ran
    shipped = weights.beside(folder, subject.data, external.shapes, external.metadata)
    cases = len(next(iter(ordered.values())))
    with_shipped = {
        name: np.broadcast_to(shipped[name], array.shape) if name in shipped else array
        for name, array in ordered.items()
    }
    both = {name: np.concatenate([array, with_shipped[name]]) for name, array in ordered.items()}
    ran, given = running.run(subject, both, *timed).split(cases)
    strange = [name for name, array in given.items() if not np.isfinite(array).all()]
    verdict = judged(ran)
    if strange:
        verdict = Parity(
            verdict="fail", reason=f"the weights that ship give values of {strange[0]!r} that are not finite"
        )
    return _told(verdict, ran, timed, connection), ran


def _told(parity: "Parity", ran: "Ran", timed: tuple[int, int], connection: "Connection | None") -> "Parity":
    """Return the parity section, of which the device has been told."""
    from exporter.measure import figures

    if connection is not None:
        tell_device(connection, parity, figures.latency(ran.result, ran.reason, timed[0]))
    return parity
