"""An artifact that somebody names: opened only where its target and options are known here."""

from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import ArtifactError
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.store import Opened


def open_known(folder: Path) -> "Opened":
    """Open an artifact; raises ArtifactError, also where its target, options or model file are not known here."""
    from exporter import profiles
    from exporter.artifact import store

    opened = store.open_artifact(folder)
    manifest = opened.manifest
    target, options = manifest.target, manifest.options
    if target not in TARGETS:
        raise ArtifactError(f"{folder}: made for the target {target!r}, which is not known here")
    if profiles.known_options(target, options) != options:
        raise ArtifactError(f"{folder}: made with options for {target} that are not known here; export it again")
    own = TARGETS[target].model_file
    if manifest.model_file != own or not any(entry.path.partition("/")[0] == own for entry in manifest.files):
        raise ArtifactError(
            f"{folder}: manifest.json says that the model file is {manifest.model_file!r}; for {target} it is {own!r},"
            " and one of 'files'; export it again"
        )
    return opened


def read_manifest(folder: Path) -> "Manifest":
    """Return the manifest of an artifact; raises as `open_known`."""
    return open_known(folder).manifest


def require_unchanged(opened: "Opened") -> tuple[str, ...]:
    """Return what a user added to an artifact; raises ArtifactError where a file is not as its manifest lists it."""
    from exporter.artifact import store

    changed = changed_file(opened)
    if changed:
        raise ArtifactError(f"{opened.folder}: {changed}; export the artifact again")
    return store.added_files(opened.folder, opened.manifest)


def changed_file(opened: "Opened") -> str | None:
    """Return what of an artifact is not as its manifest lists it, or None where all of it is."""
    from exporter.artifact import store

    beside = TARGETS[opened.manifest.target].read_beside
    return store.changed_file(opened.folder, opened.manifest, beside)
