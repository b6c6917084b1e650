"""`cocorr-export report`: any artifacts in one report, run once, so that it shows what they do."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.pipeline import judging
from exporter.pipeline.finding import artifact_folders
from exporter.pipeline.lengths import Report as Progress
from exporter.pipeline.locating import ExplainRequest, explain
from exporter.pipeline.reach import reach

if TYPE_CHECKING:
    from exporter.artifact.results import Checked, Report


@dataclass(frozen=True)
class ReportRequest:
    """What `cocorr-export report` was asked for: artifacts or folders that hold some, where they run, and whether it is
    looked for where their errors come from, which takes the checkpoint and some time.
    """

    artifacts: tuple[Path, ...]
    connection: str = "host"
    explain: bool = False
    checkpoint: Path | None = None
    model: str | None = None


def report_on(request: ReportRequest, progress: Progress) -> "Report":
    """Run, judge and measure artifacts again and return what a report shows of them; raises as `parity` does."""
    from exporter.artifact.results import Report

    folders = artifact_folders(request.artifacts)
    connection = reach(request.connection)
    rows = []
    for folder in folders:
        progress(f"{folder}: judging")
        judged = judging.judge(folder, connection, progress)
        rows.append(_row(folder, judged, request, progress))
    return Report(artifacts=tuple(rows))


def _row(folder: Path, judged: judging.Judged, request: ReportRequest, progress: Progress) -> "Checked":
    from exporter.artifact.results import Checked

    made, evidence = judged.manifest, judged.evidence
    if request.explain and evidence is not None:
        progress(f"{folder}: looking for where its error comes from")
        explained = explain(ExplainRequest(folder, request.checkpoint, request.model, 0), progress)
        evidence = replace(evidence, located=explained.located)
    name = f"{made.model}/{made.program} {made.target} {made.profile} {made.precision}"
    return Checked(name=name, place=str(folder), manifest=made, evidence=evidence)
