"""`cocorr-export compare`: artifacts of one program side by side, and which of them to take."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError
from exporter.pipeline import budgets
from exporter.pipeline.finding import artifact_folders
from exporter.pipeline.opening import open_known, require_unchanged

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.artifact.results import Compared

LEAST_OVERLAP = 0.99
RULE = (
    f"the smallest of those that pass, are within their budgets, and have at least {LEAST_OVERLAP} of torch's top 10 in"
    " fp32, where they rank"
)


def compare(named: Sequence[Path]) -> "Compared":
    """Return artifacts with the one that RULE names; raises BadInputError where they are not of one program.

    A folder that holds artifacts stands for all of them, and one that is named twice counts once.
    Nothing is run: all figures are those of the manifests, and times were taken when each was exported or profiled.
    """
    from exporter.artifact.results import Compared

    folders = artifact_folders(named)
    if len(folders) < 2:
        raise BadInputError("compare takes two different artifacts or more")
    manifests = []
    for folder in folders:
        opened = open_known(folder)
        require_unchanged(opened)
        manifests.append(opened.manifest)
    first = _program_of(manifests[0])
    for folder, manifest in zip(folders, manifests, strict=True):
        if _program_of(manifest) != first:
            raise BadInputError(
                f"{folder} is of another program or checkpoint than {folders[0]}; compare artifacts of one"
            )
    fitting = [at for at, manifest in enumerate(manifests) if _fits(manifest)]
    best = min(fitting, key=lambda at: manifests[at].size_bytes, default=None)
    return Compared(tuple(map(str, folders)), tuple(manifests), best, RULE)


def _program_of(manifest: "Manifest") -> tuple[object, ...]:
    source = manifest.source
    return manifest.model, manifest.program, source.checkpoint_sha256, source.program_sha256, source.untrained


def _fits(manifest: "Manifest") -> bool:
    """Say whether an artifact may be taken by RULE."""
    parity = manifest.parity
    overlap = parity.top10_overlap if parity.scheme is None else parity.scheme.top10_overlap
    ranks_alike = manifest.ranking is None or overlap is None or overlap >= LEAST_OVERLAP
    return parity.verdict == "pass" and not budgets.over(manifest.budgets or ()) and ranks_alike
