"""What a worker of the fleet does: it loads an artifact and torch's model once, and judges shards of users.

An artifact takes one user a call, as on a device; torch takes them in batches (see `fleet_torch`).
"""

import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from exporter.core.errors import BadInputError, CheckpointError
from exporter.core.types import Arrays
from exporter.pipeline.fleet_torch import CANDIDATES, HISTORY, Scores, batched, scores_of_program
from exporter.pipeline.loading import started

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.store import Golden
    from exporter.connections.agent.contract import Model
    from exporter.core.precision import Precision
    from exporter.core.protocols import Target
    from models.checkpoint import Checkpoint

PASS, FAIL, UNVERIFIED = range(3)
"""What `verdict` says of a user, as positions in the totals' words."""
Call = Callable[[dict[str, np.ndarray]], tuple[np.ndarray, bool]]
"""The ranking output for one user's inputs by name, and whether something in it is unsettled."""


@dataclass(frozen=True)
class Judge:
    """Judges users: scores of the artifact, of torch, and of torch with the tables that the artifact has.

    `golden_scale` is the largest score of the golden cases.
    """

    artifact: "Artifact"
    torch: Scores
    reference: Scores | None
    golden_scale: float

    def __call__(self, shard: Arrays) -> Arrays:
        """Return figures [n] by name for histories [n, N] and candidates [n, C]."""
        item_ids, candidate_ids = shard[HISTORY], shard[CANDIDATES]
        own, unsettled = self.artifact.scores(item_ids, candidate_ids)
        exact = self.torch(item_ids, candidate_ids)
        held_to = exact if self.reference is None else self.reference(item_ids, candidate_ids)
        figures = judged(own, held_to, exact, self.artifact.manifest.precision, self.golden_scale, unsettled)
        return {**figures, "rank_torch": ranks(exact)}


@dataclass(frozen=True)
class Artifact:
    """An artifact that was loaded: `call` gives its ranking output for one user, and whether something is unsettled."""

    manifest: "Manifest"
    call: Call
    executed_on: str

    def scores(
        self, item_ids: np.ndarray, candidate_ids: np.ndarray, weights: Arrays | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return scores [n, C], one call a user, and for whom something is unsettled [n].

        `weights` [n, *shape] by name go with each user's call, for an artifact that takes them.
        """
        shapes = {tensor.name: tensor.shape for tensor in self.manifest.inputs}
        given = {HISTORY: item_ids, CANDIDATES: candidate_ids}
        found, unsettled = np.empty(candidate_ids.shape, np.float32), np.zeros(len(item_ids), bool)
        for user in range(len(item_ids)):
            own = {name: array[user].reshape(shapes[name]) for name, array in given.items()}
            own |= {name: array[user] for name, array in (weights or {}).items()}
            scores, unsettled[user] = self.call(own)
            found[user] = scores.reshape(-1)
        return found, unsettled


def judged(
    own: np.ndarray,
    held_to: np.ndarray,
    exact: np.ndarray,
    precision: "Precision",
    golden_scale: float,
    unsettled: np.ndarray,
) -> dict[str, np.ndarray]:
    """Return figures [n] by name of an artifact's scores [n, C].

    They are beside torch with what the artifact has, `held_to`, and for the rest of the top 10 beside torch in fp32,
    `exact`, which may be the same. The positive is the first candidate of each user.
    """
    from exporter.parity.ranking import top_overlap
    from exporter.parity.users import TOP, compare_users

    figures = compare_users(held_to, own, precision, golden_scale)
    overlap = figures.overlap
    if held_to is not exact and exact.shape[1] > TOP and len(exact):
        overlap = top_overlap(exact.astype(np.float64), np.nan_to_num(own).astype(np.float64), TOP)
    return {
        "rank_artifact": ranks(own),
        "max_abs_error": figures.error,
        "allowed_error": figures.allowed,
        "top10_overlap": figures.overlap,
        "top10_overlap_torch": overlap,
        "could_flip": figures.could_flip,
        "verdict": np.where(figures.within, np.where(unsettled, UNVERIFIED, PASS), FAIL).astype(np.int8),
    }


def ranks(scores: np.ndarray) -> np.ndarray:
    """Return the rank [n], 1 for the best, that scores [n, C] give to the first candidate."""
    from exporter.parity.positives import rank_of

    return rank_of(scores, np.zeros(len(scores), np.int64)).astype(np.int32) + 1


def load_artifact(folder: Path) -> Artifact:
    """Load an artifact in this process with its runtime, or with the interpreter where that cannot be here."""
    from exporter.pipeline.opening import open_known
    from exporter.targets import TARGETS

    opened = open_known(folder)
    target = TARGETS[opened.manifest.target]
    model_file = opened.folder / opened.manifest.model_file
    load = _interpreted if target.system not in (None, sys.platform) else _native
    return load(target, opened.manifest, model_file)


def _interpreted(_: "Target", manifest: "Manifest", model_file: Path) -> Artifact:
    from exporter import mil

    program = mil.load(model_file)
    ranking = cast("str", manifest.ranking)

    def call(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        done = program.execute(inputs)
        return done.outputs[ranking], bool(done.unsettled)

    return Artifact(manifest, call, f"reference interpreter (numpy {np.__version__}) on {platform.machine()}")


def _native(target: "Target", manifest: "Manifest", model_file: Path) -> Artifact:
    """Load with the target's own loader, as the agent does.

    Inputs and outputs are prepared once: every loader hands the runtime the arrays that it is given, where they lie.
    """
    from exporter.connections.agent.running import place_of

    runtime = started(target, manifest)
    return Artifact(manifest, caller(runtime.load(model_file, None), manifest), place_of(runtime))


def caller(model: "Model", manifest: "Manifest") -> Call:
    """Return what calls a loaded model; raises RefusalError where its inputs are not those of the manifest."""
    from exporter.connections.agent.signature import check_inputs, keep_case, output_order

    held = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in manifest.inputs}
    check_inputs(model.inputs, {name: array[None] for name, array in held.items()})
    expected = [
        {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype} for tensor in manifest.outputs
    ]
    order = output_order(model.outputs, expected)
    outputs = [np.zeros((1, *tensor.shape), tensor.dtype) for tensor in manifest.outputs]
    ranking = [tensor.name for tensor in manifest.outputs].index(cast("str", manifest.ranking))
    feed = model.prepare(held)

    def call(inputs: dict[str, np.ndarray]) -> tuple[np.ndarray, bool]:
        for name, array in inputs.items():
            held[name][:] = array
        keep_case(model.collect(model.run(feed)), order, expected, outputs, 0)
        return outputs[ranking], False

    return call


def make_judge(settings: dict[str, object]) -> Judge:
    """Return the judge for the engine's settings; raises CocorrError where artifact or checkpoint cannot be used."""
    import torch

    from exporter.artifact import store as artifacts
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    torch.set_num_threads(1)
    artifact = load_artifact(Path(str(settings["artifact"])))
    check_versions(artifact.manifest.target, cast("dict[str, str]", settings["versions"]))
    checkpoint = unchanged(settings, artifact.manifest.source.checkpoint_sha256)
    model = checkpoints.build(checkpoint, load_spec(str(settings["model"])))
    program, golden = settings["reference"], artifacts.read_golden(Path(str(settings["artifact"])))
    reference = None if program is None else scores_of_program(Path(str(program)), golden)
    return Judge(artifact, batched(model), reference, largest_score(golden, artifact.manifest))


def unchanged(settings: dict[str, object], sha256: object) -> "Checkpoint":
    """Read the checkpoint that settings name; raises CheckpointError where it is not the one of this SHA-256."""
    from models import checkpoint as checkpoints

    checkpoint = checkpoints.read(Path(str(settings["checkpoint"])))
    if checkpoint.sha256 != sha256:
        raise CheckpointError(f"{checkpoint.folder} has changed in the meantime; start this command again")
    return checkpoint


def largest_score(golden: "Golden", manifest: "Manifest") -> float:
    """Return the largest absolute score of the golden cases."""
    return float(np.abs(golden.outputs[cast("str", manifest.ranking)]).max())


def check_versions(target: str, planned: dict[str, str]) -> None:
    """Raise BadInputError where a worker's machine has other versions than the run was planned with."""
    from exporter.targets import TARGETS
    from exporter.targets.environment import versions

    here = versions(TARGETS[target])
    for name, version in planned.items():
        if here.get(name) != version:
            raise BadInputError(
                f"a worker's machine, {platform.node()}, has {name} {here.get(name, 'not at all')} where the run is"
                f" planned with {version}; install the same there"
            )


def main(lifeline: int) -> None:
    """Serve the engine that started this process."""
    from exporter.fleet.worker import serve

    serve(make_judge, lifeline)
