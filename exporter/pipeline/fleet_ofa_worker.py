"""What a worker of the fleet does for a model with a network for each user: it is the cloud of many, and their devices.

The cloud computes in batches of one shape, so that a user's package has the same bytes as one that is made alone. An
artifact takes one user a call, with the weights that come out of that user's package.
"""

import platform
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from exporter.core.errors import BadInputError
from exporter.core.types import Arrays
from exporter.pipeline.fleet_torch import CANDIDATES, HISTORY, of_one
from exporter.pipeline.fleet_worker import (
    UNVERIFIED,
    Artifact,
    caller,
    check_versions,
    judged,
    largest_score,
    load_artifact,
    ranks,
    unchanged,
)
from exporter.pipeline.loading import started

if TYPE_CHECKING:
    from exporter.fleet.store import Document
    from models.spec import Cloud, Made, Stored

JUDGED, SHARD = "judged", "shard"
NOT_DRAWN = 3
"""What `verdict` says besides of a user; UNVERIFIED is also one of whose structure there is no artifact."""
Scores = Callable[[np.ndarray, np.ndarray, Arrays], np.ndarray]
"""Scores [n, C] for histories [n, N], candidates [n, C], and weights [n, *shape] by name."""


@dataclass(frozen=True)
class Subnet:
    """An artifact of one structure, and torch's scores with the tables that it has, if these are not in fp32."""

    artifact: Artifact
    reference: Scores | None
    golden_scale: float


@dataclass(frozen=True)
class Judge:
    """Judges users: which structure each has, what it is sent, and what its sub-network says, in torch and lowered.

    `packages` is the folder for archives, None where none are written.
    """

    cloud: "Cloud"
    subnets: Mapping[str, Subnet]
    stored: "Stored"
    packages: Path | None

    def __call__(self, shard: Arrays) -> Arrays:
        """Return figures [n, ...] by name for histories [n, N], candidates [n, C], and who is `judged` [n]."""
        from exporter.fleet import packages, packages_archive

        users = len(shard[HISTORY])
        structures, latents = self.cloud.requests(shard[HISTORY])
        figures = {**_no_figures(users), "structure": structures, "bytes_down": np.zeros(users, np.int64)}
        batches = self._batches(shard, structures, latents, figures)
        if self.packages is None or not users:
            for _ in batches:
                pass
            return figures
        path = packages.archive(self.packages, int(shard[SHARD][0]))
        return {**figures, **packages_archive.write(path, batches, users)}

    def _batches(
        self, shard: Arrays, structures: np.ndarray, latents: np.ndarray, figures: dict[str, np.ndarray]
    ) -> Iterator[tuple[list[int], np.ndarray]]:
        """Yield the packages of a shard, structure by structure, and fill in the figures of their users."""
        for made in self.cloud.packages(structures, latents, self.stored):
            own = made.users
            subnet = self.subnets.get("".join(map(str, structures[own[0]])))
            figures["bytes_down"][own] = made.files.shape[1]
            self._fill(figures, own, made, subnet, {name: array[own] for name, array in shard.items()})
            yield own.tolist(), made.files

    def _fill(
        self, figures: dict[str, np.ndarray], part: np.ndarray, made: "Made", subnet: Subnet | None, shard: Arrays
    ) -> None:
        """Fill in the figures of the users at `part`, of whom `shard` is."""
        item_ids, candidate_ids = shard[HISTORY], shard[CANDIDATES]
        exact = made.scores(item_ids, candidate_ids, as_stored=False)
        stored = exact if self.stored == "fp32" else made.scores(item_ids, candidate_ids, as_stored=True)
        figures["rank_torch"][part], figures["rank_stored"][part] = ranks(exact), ranks(stored)
        figures["stored_error"][part] = np.abs(stored - exact).max(axis=1)
        drawn = np.flatnonzero(shard[JUDGED])
        if not len(drawn):
            return
        if subnet is None:
            figures["verdict"][part[drawn]] = UNVERIFIED
            return
        weights = {name: array[drawn] for name, array in made.tensors().items()}
        own, unsettled = subnet.artifact.scores(item_ids[drawn], candidate_ids[drawn], weights)
        held_to = stored[drawn]
        if subnet.reference is not None:
            held_to = subnet.reference(item_ids[drawn], candidate_ids[drawn], weights)
        precision = subnet.artifact.manifest.precision
        for name, values in judged(own, held_to, exact[drawn], precision, subnet.golden_scale, unsettled).items():
            figures[name][part[drawn]] = values


def _no_figures(users: int) -> dict[str, np.ndarray]:
    """Return figures that say nothing of anybody."""
    numbers = ("max_abs_error", "allowed_error", "top10_overlap", "top10_overlap_torch", "stored_error")
    return {
        **{name: np.zeros(users, np.int32) for name in ("rank_torch", "rank_stored", "rank_artifact")},
        **{name: np.full(users, np.nan) for name in numbers},
        "could_flip": np.zeros(users, bool),
        "verdict": np.full(users, NOT_DRAWN, np.int8),
    }


def make_judge(settings: dict[str, object]) -> Judge:
    """Return the judge for the engine's settings; raises CocorrError where an artifact or the checkpoint fails."""
    import torch

    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    torch.set_num_threads(1)
    check_versions(str(settings["target"]), cast("dict[str, str]", settings["versions"]))
    packages = cast("dict[str, object] | None", settings["packages"])
    place = None if packages is None else _place(Path(str(packages["place"])), cast("Document", packages["plan"]))
    checkpoint = unchanged(settings, settings["checkpoint_sha256"])
    spec = load_spec(str(settings["model"]))
    assert spec.cloud is not None  # noqa: S101 - the command has looked
    cloud = spec.cloud(checkpoints.build(checkpoint, spec), checkpoint.sha256)
    subnets, top = cast("dict[str, dict[str, object]]", settings["subnets"]), Path(str(settings["artifacts"]))
    return Judge(
        cloud,
        {structure: _subnet(top, structure, entry) for structure, entry in subnets.items()},
        cast("Stored", settings["stored"]),
        place,
    )


def computed_by() -> dict[str, str]:
    """Return what packages have their bytes from beside the model: another one may round otherwise."""
    import torch

    processor = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return {"torch": torch.__version__, "processor": processor}


def _place(folder: Path, plan: "Document") -> Path:
    """Return the folder of packages; raises BadInputError where this machine cannot write the same there."""
    from exporter.fleet import packages

    here = f"a worker's machine, {platform.node()},"
    try:
        held = packages.read(folder).plan
    except BadInputError:
        held = None
    if held != plan:
        raise BadInputError(
            f"{here} does not see {folder} as it is here; give --packages a folder on a disk that all machines share"
        )
    for name, own in computed_by().items():
        if plan[name] != own:
            raise BadInputError(f"{here} computes with {name} {own}, the packages are made with {plan[name]}")
    return folder


def _subnet(top: Path, structure: str, entry: dict[str, object]) -> Subnet:
    from exporter.artifact import store as artifacts
    from exporter.fleet import store

    folder = top / str(entry["artifact"])
    artifact, program = _with_weights(folder), top / structure / store.REFERENCE
    return Subnet(
        artifact,
        _program(program) if program.exists() else None,
        largest_score(artifacts.read_golden(folder), artifact.manifest),
    )


def _with_weights(folder: Path) -> Artifact:
    """Load an artifact that takes weights with each call, also where its runtime reads them from a file.

    Then they are written there and the program is loaded anew for each user, as the agent does on a device.
    """
    from exporter.connections.agent.folder import DataFile
    from exporter.connections.agent.running import place_of
    from exporter.pipeline.opening import open_known
    from exporter.targets import TARGETS

    opened = open_known(folder)
    manifest = opened.manifest
    file = None if manifest.external is None else manifest.external.data_file
    if file is None:
        return load_artifact(folder)
    runtime = started(TARGETS[manifest.target], manifest)
    model_file = opened.folder / manifest.model_file
    data = DataFile(model_file.with_name(file.name), dict(file.tensors))
    # All workers of a machine run in one folder; it goes with the process, or else with the engine's temporary files.
    own = tempfile.TemporaryDirectory(prefix="weights-")

    def call(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        weights = {name: array for name, array in inputs.items() if name in data.tensors}
        others = {name: array for name, array in inputs.items() if name not in data.tensors}
        changed = data.write(weights, Path(own.name))
        return caller(runtime.load(model_file, changed), manifest)(others)

    return Artifact(manifest, call, place_of(runtime))


def _program(file: Path) -> Scores:
    """Return what scores users with a program that takes one at a time."""
    import torch

    score = of_one(torch.export.load(file))

    def scores(item_ids: np.ndarray, candidate_ids: np.ndarray, weights: Arrays) -> np.ndarray:
        found = np.empty(candidate_ids.shape, np.float32)
        with torch.no_grad():
            for user in range(len(item_ids)):
                own = {name: torch.from_numpy(np.ascontiguousarray(array[user])) for name, array in weights.items()}
                found[user] = score(torch.from_numpy(item_ids[user]), torch.from_numpy(candidate_ids[user]), **own)
        return found

    return scores


def main(lifeline: int) -> None:
    """Serve the engine that started this process."""
    from exporter.fleet.worker import serve

    serve(make_judge, lifeline)
