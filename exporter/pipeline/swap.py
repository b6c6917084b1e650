"""`cocorr-export swap`: another user's weights in an artifact; nothing is lowered again."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.pipeline import places
from exporter.pipeline.explaining import explain
from exporter.pipeline.lengths import Report
from exporter.pipeline.opening import open_known, require_unchanged
from exporter.pipeline.parity import judge_golden

if TYPE_CHECKING:
    from exporter.artifact.results import Result
    from exporter.artifact.weights import Package
    from exporter.core.sections import External


def swap(folder: Path, package_file: Path, output: Path, report: Report, force: bool = False) -> "Result":
    """Write at `output` the artifact in `folder` with a weights package in place of its own weights, and judge it.

    Nothing is lowered again; a package in any form is stored as the artifact's scheme says. Raises BadInputError where
    the artifact takes no weights from outside, where it is not as it was exported, and where the package is damaged
    or for another sub-network; OutputError where another artifact stands at `output`, unless `force` is given.
    """
    from exporter.artifact import store, weights
    from exporter.artifact.results import Result

    opened = open_known(folder)
    external = opened.manifest.external
    if external is None:
        program = opened.manifest.program
        raise BadInputError(f"{folder}: {program} has its weights inside; export its form subnet_external")
    selection = opened.manifest.selection
    if selection is not None:  # whose weights the package has is not known
        selection = replace(selection, history=None)
    manifest = replace(opened.manifest, selection=selection)
    places.check(output, places.facts_of(manifest), force)
    report("comparing the files with the manifest")
    added = require_unchanged(opened)
    package = weights.read(package_file, external.shapes, external.metadata).in_form(external.stored)
    if opened.manifest.latency is not None:
        report("times and memory stay those measured when the artifact was exported; nothing is timed again")
    with store.staging(output) as new:
        report("writing the weights")
        store.copy_listed(opened, new)
        _replace_weights(new, external, package)
        manifest = replace(manifest, files=store.list_files(new))
        manifest = explain(new, replace(manifest, parity=judge_golden(new, manifest, report)))
        store.write_manifest(new, manifest)
    return Result(manifest, str(output), added=added)


def _replace_weights(folder: Path, external: "External", package: "Package") -> None:
    """Write a user's weights where an artifact's own lie: as a weights package, or into the file that it reads."""
    from exporter.artifact import weights
    from safeio import files

    data = external.data_file
    own = folder / (weights.FILE if data is None else data.name)
    content = package.to_bytes() if data is None else weights.patch(own.read_bytes(), data.layout, package.tensors)
    own.unlink(missing_ok=True)
    files.write_new(own, content)
