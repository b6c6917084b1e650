"""How users are judged, by the kind of their model: one network for all of them, or a network for each."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.pipeline import fleet_plan
from exporter.pipeline.fleet_plan import FleetRequest
from exporter.pipeline.lengths import Lowering, Report

if TYPE_CHECKING:
    from exporter.artifact.results import FleetDocument
    from exporter.core.types import Arrays
    from exporter.fleet.engine import Task
    from exporter.fleet.store import Document, Run
    from exporter.pipeline.fleet import Shards
    from exporter.pipeline.fleet_summary import Pace
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Kind(ABC):
    """A run of one kind of model: what its plan says, what workers are told, and what is kept of their answers."""

    request: FleetRequest
    checkpoint: "Checkpoint"
    shards: "Shards"

    @property
    @abstractmethod
    def worker(self) -> str:
        """Return the module that workers run."""

    def check(self) -> None:  # noqa: B027 - not all kinds have more to check
        """Raise BadInputError for what cannot be asked for, before anything is written."""

    def check_beside(self, asked: "Document") -> None:  # noqa: B027 - not all kinds write something there
        """Raise OutputError where what stands beside the run's own folder is of another plan than `asked`."""

    @property
    def facts(self) -> "Document":
        """Return what tells runs apart beside what those of all kinds have in their plans."""
        return {}

    @abstractmethod
    def made(self, lowering: Lowering, profile: "DeviceProfile", folder: Path, report: Report) -> "Document":
        """Export what is to be judged into a new run's folder; return what the plan says of it."""

    @abstractmethod
    def names_made(self, plan: "Document", folder: Path) -> bool:
        """Tell whether a plan has all that `made` returned for a run's folder, as it is there."""

    @contextmanager
    def opened(self, run: "Run") -> Iterator[None]:
        """Hold what is written beside the run's own folder."""
        yield

    def done(self, run: "Run") -> frozenset[int]:
        """Return the shards of which all is there that is written beside their rows."""
        return frozenset(range(self.shards.count))

    @abstractmethod
    def settings(self, run: "Run") -> dict[str, object]:
        """Return what a worker is told, in JSON; it works in a folder of its own."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Return which settings name files and folders that a worker elsewhere is sent."""
        return "checkpoint", *(["model"] if ":" in self.request.model else [])

    def task(self, shard: int) -> "Task":
        """Return what a worker is given of a shard."""
        return self.shards.task(shard)

    @abstractmethod
    def keep(self, run: "Run", shard: int, figures: "Arrays") -> None:
        """Write what a worker computed of a shard, its rows last."""

    @abstractmethod
    def summary(self, run: "Run", pace: "Pace") -> dict[str, object]:
        """Return the summary of all parts."""

    @abstractmethod
    def page(self, document: "FleetDocument", plan: "Document") -> str:
        """Return the summary as a page."""

    @property
    def told_model(self) -> str:
        """Return the model as a worker finds it, which works in a folder of its own."""
        file, colon, name = self.request.model.rpartition(":")
        return f"{Path(file).resolve()}:{name}" if colon else self.request.model


class OneNetwork(Kind):
    """All users get the same artifact."""

    worker = f"{__package__}.fleet_worker"

    def made(self, lowering: Lowering, profile: "DeviceProfile", folder: Path, report: Report) -> "Document":
        """Export the artifact."""
        return fleet_plan.made(self.request, lowering, profile, folder, report)

    def names_made(self, plan: "Document", folder: Path) -> bool:
        """Tell whether there is an artifact where the plan says."""
        from exporter.fleet import store

        return store.holds_artifact(folder, plan.get("artifact"))

    def settings(self, run: "Run") -> dict[str, object]:
        """Return where the artifact, the checkpoint and torch's program are."""
        from exporter.fleet import store

        reference = run.folder / store.REFERENCE
        return {
            "artifact": str(run.folder / store.ARTIFACT / str(run.plan["artifact"])),
            "model": self.told_model,
            "checkpoint": str(self.checkpoint.folder.resolve()),
            "reference": str(reference) if reference.exists() else None,
            "versions": run.plan["versions"],
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """Return those of all kinds, the artifact, and torch's program."""
        return *super().paths, "artifact", "reference"

    def keep(self, run: "Run", shard: int, figures: "Arrays") -> None:
        """Write the rows of a shard."""
        from exporter.pipeline.fleet_summary import rows

        run.write(shard, rows(self.shards, shard, figures))

    def summary(self, run: "Run", pace: "Pace") -> dict[str, object]:
        """Return the summary of all parts."""
        from exporter.pipeline import fleet_summary

        return fleet_summary.summary(run, self.shards, pace)

    def page(self, document: "FleetDocument", plan: "Document") -> str:
        """Return the summary as a page."""
        from exporter.report.fleet_page import fleet_page

        return fleet_page(document, plan)
