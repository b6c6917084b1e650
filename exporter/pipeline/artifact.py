"""What can be done with an artifact from its folder alone, without the checkpoint: judge it again, swap its weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.core.errors import ArtifactError, BadInputError
from exporter.core.types import ExternalWeights
from exporter.pipeline.export import Document, Report
from exporter.targets import TARGETS

if TYPE_CHECKING:
    from exporter.artifact.store import Opened
    from exporter.connections.running import Subject
    from exporter.core.protocols import Connection
    from exporter.core.types import Arrays, TensorSpec


def parity(folder: Path, report: Report, connection: str = "host") -> Document:
    """Judge an artifact again from its folder alone; return its document with the new verdict.

    `connection` is one that needs no more than its name, or a profile whose device shall run it: an artifact may come
    from anywhere, so it does not choose. Raises ArtifactError.
    """
    from exporter.artifact import store
    from exporter.parity import section
    from exporter.pipeline.reach import reach

    way = reach(connection)
    opened = open_known(folder)
    report("comparing the files with the manifest")
    changed = store.changed_file(opened.folder, opened.manifest)
    verdict = section.unjudged("fail", changed) if changed else _judge(opened.folder, opened.manifest, report, way)
    store.require_same(opened)
    return {**opened.manifest, "artifact": str(folder), "parity": verdict}


def swap(folder: Path, package_file: Path, output: Path, report: Report) -> Document:
    """Write at `output` the artifact in `folder` with the weights of a package in place of its own, and judge it.

    Nothing is lowered again. Raises BadInputError where the artifact takes no weights from outside, where it is not as
    it was exported, and where the package is damaged or for another sub-network.
    """
    from exporter.artifact import store, weights
    from exporter.pipeline.subjects import subject_of
    from safeio import files

    opened = open_known(folder)
    manifest = dict(opened.manifest)
    external = manifest.get("external")
    if external is None:
        raise BadInputError(f"{folder}: {manifest['program']} has its weights inside; export its form subnet_external")
    report("comparing the files with the manifest")
    require_unchanged(opened)
    shapes = {entry["name"]: tuple(entry["shape"]) for entry in external["tensors"]}
    tensors = weights.read(package_file, shapes, external["metadata"])
    data = subject_of(opened.folder, manifest).data
    with store.staging(output) as new:
        report("writing the weights")
        store.copy_listed(opened, new)
        own = new / (weights.FILE if data is None else data.name)
        if data is None:
            content = weights.to_bytes(ExternalWeights(tensors, external["metadata"]))
        else:
            content = weights.patch(own.read_bytes(), data, tensors)
        own.unlink(missing_ok=True)
        files.write_new(own, content)
        manifest["files"] = store.list_files(new)
        manifest["parity"] = _judge(new, manifest, report)
        store.write_manifest(new, manifest)
    return {**manifest, "artifact": str(output)}


def run_package(package: Path, inputs: Path, outputs: Path, intermediates: bool) -> list[str]:
    """Compute a Core ML program with the reference interpreter; return warnings. See `interpret.run_package`."""
    from exporter.mil import interpret

    return interpret.run_package(package, inputs, outputs, intermediates)


def _judge(folder: Path, manifest: dict[str, Any], report: Report, connection: "Connection | None" = None) -> Document:
    """Run the golden cases and return the parity section.

    Where golden cases carry weights of their own, those that ship run too: nothing is known of what they should give,
    but numbers they must be.
    """
    import numpy as np

    from exporter.artifact import store, weights
    from exporter.connections import running
    from exporter.parity import section
    from exporter.pipeline.subjects import parity_of, specs, subject_of

    inputs, outputs = store.read_golden(folder)
    subject = subject_of(folder, manifest, connection)
    wrong = golden_problem(subject, manifest, inputs, outputs)
    if wrong is not None:
        return section.unjudged("fail", wrong)
    report("running the golden cases")
    ordered = {spec.name: inputs[spec.name] for spec in _fed(subject, manifest)}
    external, ranking, precision = manifest.get("external"), manifest["ranking"], manifest["precision"]
    if external is None:
        return parity_of(running.run(subject, ordered, 0, 0), outputs, ranking, precision)
    shapes = {spec.name: spec.shape for spec in specs(external["tensors"])}
    ships = weights.beside(folder, subject.data, shapes, external["metadata"])
    cases = len(next(iter(ordered.values())))
    also = {
        name: np.broadcast_to(ships[name], array.shape) if name in ships else array for name, array in ordered.items()
    }
    both = {name: np.concatenate([array, also[name]]) for name, array in ordered.items()}
    ran, shipped = running.run(subject, both, 0, 0).split(cases)
    strange = [name for name, array in shipped.items() if not np.isfinite(array).all()]
    if strange:
        return section.unjudged("fail", f"the weights that ship give values of {strange[0]!r} that are not finite")
    return parity_of(ran, outputs, ranking, precision)


def golden_problem(subject: "Subject", manifest: Document, inputs: "Arrays", outputs: "Arrays") -> str | None:
    """Say which array of the golden cases is missing or not of the type and shape that the manifest states."""
    for arrays, specs in ((inputs, _fed(subject, manifest)), (outputs, subject.outputs)):
        for spec in specs:
            array = arrays.get(spec.name)
            if array is None or array.shape[1:] != spec.shape or array.dtype.name != spec.dtype:
                return f"golden.npz has no {spec.name!r} of {spec.dtype} {list(spec.shape)} per case"
    return None


def _fed(subject: "Subject", manifest: Document) -> "tuple[TensorSpec, ...]":
    """Return what a run is given: the inputs, and the weights that are written into a data file."""
    from exporter.pipeline.subjects import specs

    own = () if subject.data is None else specs(manifest["external"]["tensors"])
    return (*specs(manifest["inputs"]), *own)


def open_known(folder: Path) -> "Opened":
    """Open an artifact; raises ArtifactError, also where its target or options are not known here."""
    from exporter import profiles
    from exporter.artifact import store

    opened = store.open_artifact(folder)
    target, options = opened.manifest["target"], opened.manifest["options"]
    if target not in TARGETS:
        raise ArtifactError(f"{folder}: made for the target {target!r}, which is not known here")
    if profiles.known_options(target, options) != options:
        raise ArtifactError(f"{folder}: made with options for {target} that are not known here; export it again")
    return opened


def require_unchanged(opened: "Opened") -> None:
    """Raise ArtifactError where a file of an artifact is not as its manifest lists it."""
    from exporter.artifact import store

    changed = store.changed_file(opened.folder, opened.manifest)
    if changed:
        raise ArtifactError(f"{opened.folder}: {changed}; export the artifact again")
