"""Which artifact stands at a place: one that differs from what is made now is not replaced, unless that is asked for.

Precision, structure, checkpoint and options of the target are no part of an artifact's path. They are in its manifest,
where they are compared; so paths stay short, and the same export again replaces its own artifact.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError
from safeio.places import Facts, check_facts

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest


def check(place: Path, facts: Facts, force: bool) -> None:
    """Raise OutputError where an artifact cannot be put at `place`, or would replace one with other facts."""
    from exporter.artifact import store

    store.check_place(place)
    if force:
        return
    try:
        held = facts_of(store.read_manifest(place))
    except ArtifactError:
        return  # none is there, or a damaged one, of which its own message says that it is to be exported again
    check_facts(place, "artifact", held, facts)


def facts_of(manifest: "Manifest") -> dict[str, object]:
    """Return the facts of an artifact."""
    selection, source = manifest.selection, manifest.source
    return {
        "model": manifest.model,
        "program": manifest.program,
        "target": manifest.target,
        "precision": manifest.precision if manifest.passed_over is None else "auto",
        "options": dict(manifest.options),
        "weights": "untrained" if source.untrained else "trained",
        "checkpoint": source.checkpoint_sha256,
        "program file": source.program_sha256,
        "structure": None if selection is None else selection.chosen,
        "history": None if selection is None or selection.history is None else list(selection.history),
        "history length": manifest.history_length,
        "candidates": manifest.candidates,
        "top": top_of(manifest),
        "batch": manifest.batch or 1,
        "passes left out": _left_out(manifest),
        "fold": None if manifest.fold is None else manifest.fold.asked,
    }


def _left_out(manifest: "Manifest") -> list[str] | None:
    """Return the passes that the user left out, None where no pass is told of."""
    from exporter.graph import LEFT_OUT

    effects = manifest.passes
    return None if effects is None else sorted(effect.name for effect in effects if effect.reason == LEFT_OUT)


def top_of(manifest: "Manifest") -> int | None:
    """Return how many of the best items a program gives that finds them itself, None for any other."""
    return next((tensor.shape[-1] for tensor in manifest.outputs if tensor.name == manifest.ranked), None)
