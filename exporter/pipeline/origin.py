"""Where an artifact comes from: the program as it was lowered, from the checkpoint that its manifest names."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError, BadInputError
from exporter.pipeline import lengths, places
from exporter.pipeline.request import ProgramChoice
from exporter.targets import TARGETS
from models import zoo

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.pipeline.source import Source


def source_of(manifest: "Manifest", model: str | None, checkpoint: Path | None) -> "Source":
    """Return the program of an artifact; raises BadInputError where it is not from this checkpoint.

    `model` is FILE.py:SPEC of one that is not known by its name; without a checkpoint it is the one that ships.
    """
    from exporter.core.extras import LOWER, require
    from exporter.pipeline import source as sources

    require("torch", LOWER)  # the models themselves are imported next
    model, program = model or manifest.model, manifest.program
    if not zoo.is_known(model):
        raise ArtifactError(f"{model}/{program} is not known here; give its model: --model FILE.py:SPEC")
    spec = zoo.load_spec(model)
    if spec.name != manifest.model or program not in spec.programs:
        raise ArtifactError(f"{manifest.model}/{program} is not a program of {model}")
    structure = manifest.selection.structure if manifest.selection else None
    choice = ProgramChoice(
        model, program, checkpoint, structure=structure, untrained=manifest.source.untrained, batch=manifest.batch or 1
    )
    source = sources.load(choice, manifest.history_length, manifest.candidates, places.top_of(manifest))
    if source.checkpoint.sha256 != manifest.source.checkpoint_sha256:
        raise BadInputError(f"{source.checkpoint.folder} is not the checkpoint of this artifact; give it: --checkpoint")
    return _selected(source, manifest)


def _selected(source: "Source", manifest: "Manifest") -> "Source":
    """Return the program for the user whose clicks chose its blocks, where the manifest names them."""
    selection, select = manifest.selection, source.spec.select
    if selection is None or not selection.history or select is None or source.selection is None:
        return source
    rows, vocabulary = list(selection.history), int(source.checkpoint.architecture["vocabulary"])
    if not all(1 <= row < vocabulary for row in rows):
        raise ArtifactError("manifest.json names clicks that are no items of the checkpoint; export the artifact again")
    with zoo.foreign(source.name):
        chosen = select(source.model, source.checkpoint.golden, rows, selection.structure)
    return replace(source, selection=chosen)


def check_checkpoint(artifact: Path, manifest: "Manifest", checkpoint: Path | None) -> None:
    """Raise BadInputError where a checkpoint is given for an artifact that comes from none."""
    if checkpoint is None or manifest.source.checkpoint_sha256 is not None:
        return
    weights = "drawn weights" if manifest.source.untrained else "the weights of a program that was handed over"
    raise BadInputError(f"{artifact}: this artifact has {weights}; leave --checkpoint out")


def lowering_of(manifest: "Manifest") -> lengths.Lowering:
    """Return how an artifact was lowered."""
    kept = {effect.name for effect in manifest.passes or () if effect.reason is None}
    without = frozenset(TARGETS[manifest.target].passes) - kept
    fold = "same_size" if manifest.fold is None else manifest.fold.used
    return lengths.Lowering(manifest.target, manifest.precision, manifest.options, without, fold)
