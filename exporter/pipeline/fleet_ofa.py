"""`cocorr-export fleet ofa`: a structure and a weights package for each user, and artifacts for a draw of them."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.core.precision import Stored, weights_of
from exporter.pipeline.fleet_kind import Kind
from exporter.pipeline.fleet_plan import Entry, export_beside_torch
from exporter.pipeline.lengths import Lowering, Report
from exporter.pipeline.request import ProgramChoice

if TYPE_CHECKING:
    import numpy as np

    from exporter.artifact.results import FleetDocument
    from exporter.core.types import Arrays
    from exporter.fleet.engine import Task
    from exporter.fleet.packages import Folder
    from exporter.fleet.store import Document, Run
    from exporter.pipeline.fleet_summary import Pace
    from exporter.pipeline.source import Source
    from exporter.profiles import DeviceProfile
    from models.checkpoint import Checkpoint
    from models.spec import Cloud

PARITY_SAMPLE = 1_000
"""Users for whom artifacts are run by default: where a runtime reads weights from a file, each takes it 25 ms."""
MOST_STRUCTURES = 16
"""Artifacts that are made at most, for the commonest structures of those users; each takes some 10 s."""
_DRAW = 8
"""What follows the seed of the training where users for parity are drawn: another stream than those before it."""
_LOTS_AT_ONCE = 1 << 16


class OneEach(Kind):
    """Each user has a structure and weights; there is an artifact for each structure."""

    worker = f"{__package__}.fleet_ofa_worker"

    @cached_property
    def stored(self) -> Stored:
        """Return what packages are stored in; raises BadInputError for a form that the artifacts would change."""
        own = weights_of(self.request.precision or "fp32")
        asked = self.request.stored
        if own != "fp32" and asked not in (None, own):
            scheme = f"--precision {self.request.precision}"
            raise BadInputError(f"{scheme} has packages in {own}, not in {asked}; leave --stored out")
        return asked or own

    @cached_property
    def cloud(self) -> "Cloud":
        """Return the model's cloud; raises BadInputError for a checkpoint that has none."""
        return cloud_of(self.request.model, self.checkpoint)

    @cached_property
    def drawn(self) -> "np.ndarray":
        """Return the users for whom artifacts are run, rising: of those who can be ranked for the ones with the least
        lots, so that of fewer users, or for a smaller sample, the same are drawn first.
        """
        import numpy as np

        everybody, order = len(self.shards.users.names), self.shards.order
        rng = np.random.default_rng([self.shards.users.seed, _DRAW])
        chosen, lots = np.zeros(0, np.int64), np.zeros(0)
        for first in range(0, everybody, _LOTS_AT_ONCE):
            lot = rng.random(min(_LOTS_AT_ONCE, everybody - first))
            own = self.shards.able(self.shards.at(bisect_left(order, first), bisect_left(order, first + len(lot))))
            chosen, lots = np.concatenate([chosen, own]), np.concatenate([lots, lot[own - first]])
            least = np.argsort(lots, kind="stable")[: self.request.parity_sample or PARITY_SAMPLE]
            chosen, lots = chosen[least], lots[least]
        return np.sort(chosen)

    def check(self) -> None:
        """Raise BadInputError for a scheme that is not settled, and for a place where packages cannot be."""
        from exporter.fleet import packages, packages_archive

        if self.request.precision == "auto":
            raise BadInputError("fleet takes one scheme for all sub-networks; give --precision one, fp32 or int8 say")
        place, output = self.request.packages, self.request.output.resolve()
        if place is None:
            return
        if output in (place.resolve(), *place.resolve().parents) or place.resolve() in output.parents:
            raise BadInputError(f"{place} and {self.request.output} lie in each other; {packages_archive.ADVICE}")
        packages.check(place)

    def check_beside(self, asked: "Document") -> None:
        """Raise OutputError where packages of another plan stand, unless they may be replaced."""
        from exporter.fleet import packages

        if self.request.packages is not None and not self.request.force:
            packages.check_plan(self.request.packages, self._package_facts(asked))

    @property
    def facts(self) -> "Document":
        """Return the form of packages, and for how many users artifacts are run."""
        return {"stored": self.stored, "parity_sample": self.request.parity_sample or PARITY_SAMPLE}

    def made(self, lowering: Lowering, profile: "DeviceProfile", folder: Path, report: Report) -> "Document":
        """Export an artifact for each structure that a user has for whom it is run, the commonest ones."""
        import numpy as np

        from exporter.pipeline import fleet_ofa_flops

        # A budget would leave out blocks, where the controller's choice is what users get.
        profile = profile.model_copy(update={"budgets": type(profile.budgets)()})
        structures = []
        for part in np.array_split(self.drawn, max(1, len(self.drawn) // 1000)):
            found, _ = self.cloud.requests(self.shards.users.cases(part, self.shards.history).item_ids)
            structures += ["".join(map(str, row)) for row in found.tolist()]
        counted = Counter(structures).most_common()
        artifacts = {}
        for number, (structure, users) in enumerate(counted[:MOST_STRUCTURES], 1):
            report(f"structure {structure}, {users:,} of {len(self.drawn):,} users drawn: {number} of {len(counted)}")
            source = self._source(structure, lowering, profile)
            artifacts[structure] = self._export(structure, source, lowering, profile, folder, report)
        flops = fleet_ofa_flops.of_blocks(
            {structure: entry["flops"] for structure, entry in artifacts.items()},
            lambda structure: self._source(structure, lowering, profile),
            lowering,
            report,
        )
        latent = int(self.cloud.requests(np.zeros((1, self.shards.history), np.int32))[1].shape[1])
        return {"artifacts": artifacts, "latent": latent, "flops": flops}

    def _source(self, structure: str, lowering: Lowering, profile: "DeviceProfile") -> "Source":
        from exporter.pipeline import source as sources
        from models.zoo import load_spec

        programs = load_spec(self.request.model).programs
        program = next(name for name, one in programs.items() if one.external is not None)
        choice = ProgramChoice(self.request.model, program, self.request.checkpoint, structure=structure)
        stored = weights_of(lowering.precision)
        return sources.load(choice, profile.history_length, profile.candidates, profile.top, stored)

    def _export(
        self,
        structure: str,
        source: "Source",
        lowering: Lowering,
        profile: "DeviceProfile",
        folder: Path,
        report: Report,
    ) -> Entry:
        from exporter.fleet import store
        from exporter.pipeline.job import Job

        top = folder / store.ARTIFACT
        job = Job(top / structure, source, profile, lowering, report, force=False)
        manifest = export_beside_torch(job, top / structure / store.REFERENCE)
        return {
            "artifact": str(job.place.relative_to(top)),
            "flops": None if manifest.flops is None else manifest.flops.total,
        }

    def names_made(self, plan: "Document", folder: Path) -> bool:
        """Tell whether each structure has an artifact where the plan says, and FLOPs and latent are numbers."""
        from exporter.fleet import store

        entries, flops, latent = plan.get("artifacts"), plan.get("flops"), plan.get("latent")
        if not isinstance(entries, dict) or not isinstance(flops, dict) or type(latent) is not int or latent < 1:
            return False
        numbers = [flops.get("base"), flops.get("block")]
        for structure, entry in entries.items():
            if not isinstance(entry, dict) or not str(entry.get("artifact")).startswith(f"{structure}/"):
                return False
            if not store.holds_artifact(folder, entry.get("artifact")):
                return False
            numbers.append(entry.get("flops"))
        return all(number is None or (type(number) is int and abs(number) < 1 << 53) for number in numbers)

    @contextmanager
    def opened(self, run: "Run") -> Iterator[None]:
        """Hold the folder of packages, where they are written."""
        from exporter.fleet import packages

        folder = self._packages(run)
        if folder is None:
            yield
            return
        with packages.opened(folder, self.request.force):
            yield

    def _packages(self, run: "Run") -> "Folder | None":
        from exporter.fleet import packages

        if self.request.packages is None:
            return None
        return packages.Folder(self.request.packages.absolute(), self._package_facts(run.plan))

    def _package_facts(self, plan: "Document") -> "Document":
        """Return what tells packages apart: with equal facts they have the same bytes."""
        from exporter.fleet import packages
        from exporter.pipeline.fleet_ofa_worker import computed_by

        same = ("model", "checkpoint_sha256", "data", "data_sha256", "columns", "ids", "users", "sample", "shard_users")
        return {
            "format": packages.FORMAT,
            **{name: plan[name] for name in (*same, "history_length", "candidates", "seed", "stored")},
            "shards": self.shards.count,
            "order": self._order,
            **computed_by(),
        }

    @cached_property
    def _order(self) -> str:
        """Return by what users are ordered, in the words of a folder of packages."""
        return "numbers" if self.shards.users.names.are_whole_numbers else "text"

    def done(self, run: "Run") -> frozenset[int]:
        """Return the shards whose packages are there, or all where none are written."""
        folder = self._packages(run)
        return super().done(run) if folder is None else folder.done()

    def settings(self, run: "Run") -> dict[str, object]:
        """Return where the artifact of each structure is, and where packages go."""
        from exporter.fleet import store

        folder = self._packages(run)
        return {
            "model": self.told_model,
            "checkpoint": str(self.checkpoint.folder.resolve()),
            "checkpoint_sha256": self.checkpoint.sha256,
            "target": self.request.target,
            "versions": run.plan["versions"],
            "artifacts": str(run.folder / store.ARTIFACT),
            "subnets": run.plan["artifacts"],
            "stored": self.stored,
            "packages": None if folder is None else {"place": str(folder.place.resolve()), "plan": folder.plan},
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """Return those of all kinds, and the artifacts."""
        return *super().paths, "artifacts"

    def task(self, shard: int) -> "Task":
        """Return the cases of a shard, for whom artifacts are run, and which shard it is."""
        import numpy as np

        from exporter.pipeline.fleet_ofa_worker import JUDGED, SHARD

        task = super().task(shard)
        own, users = self.shards.of(shard), self.shards.ranked(shard)
        first, last = np.searchsorted(self.drawn, [own[0], own[-1] + 1])
        drawn = np.isin(users, self.drawn[first:last], assume_unique=True)
        return task._replace(arrays={**task.arrays, JUDGED: drawn, SHARD: np.full(len(users), shard, np.int32)})

    def keep(self, run: "Run", shard: int, figures: "Arrays") -> None:
        """Write the index of a shard's packages, which are there already, and then its rows."""
        from exporter.pipeline import fleet_ofa_summary

        folder = self._packages(run)
        if folder is not None:
            folder.write_index(shard, fleet_ofa_summary.index(self.shards, shard, figures))
        run.write(shard, fleet_ofa_summary.rows(self.shards, shard, figures, run.plan))

    def summary(self, run: "Run", pace: "Pace") -> dict[str, object]:
        """Return the summary of all parts."""
        from exporter.pipeline import fleet_ofa_summary

        return fleet_ofa_summary.summary(run, self.shards, pace, self._packages(run), self.drawn)

    def page(self, document: "FleetDocument", plan: "Document") -> str:
        """Return the summary as a page."""
        from exporter.report.fleet_ofa_page import fleet_ofa_page

        return fleet_ofa_page(document, plan)


def cloud_of(model: str, checkpoint: "Checkpoint") -> "Cloud":
    """Return what generates the weights of each user of a checkpoint; raises BadInputError where nothing does."""
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    spec = load_spec(model)
    if spec.cloud is None:
        raise BadInputError(f"{model} has one network for all users, and no weights packages")
    try:
        return spec.cloud(checkpoints.build(checkpoint, spec), checkpoint.sha256)
    except ValueError as error:
        raise BadInputError(f"{checkpoint.folder}: {error}") from error
