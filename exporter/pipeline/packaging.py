"""`cocorr-export package` and `ofa package`: one user's weights package, out of those of a fleet or made alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError, CheckpointError, OutputError
from exporter.pipeline.lengths import Report

if TYPE_CHECKING:
    from exporter.core.precision import Stored
    from exporter.fleet.packages import Folder, Package

_ADVICE = "choose another file"


@dataclass(frozen=True)
class PackageRequest:
    """What `cocorr-export ofa package` was asked for.

    `history` is a list of ids or a file of them (`pipeline.ids`); without a `structure` it is the user's own.
    """

    model: str
    history: str
    output: Path
    structure: str | None = None
    checkpoint: Path | None = None
    stored: "Stored" = "fp32"
    force: bool = False


@dataclass(frozen=True)
class Packed:
    """A package that was written, and its SHA-256 in hexadecimal."""

    place: str
    size_bytes: int
    sha256: str
    structure: str

    def to_json(self) -> dict[str, object]:
        """Return the document that `--json` prints."""
        return {
            "schema_version": 1,
            "package": self.place,
            "bytes": self.size_bytes,
            "sha256": self.sha256,
            "structure": self.structure,
        }


def take_package(folder: Path, user: str, output: Path, force: bool = False) -> Packed:
    """Write the package of a user out of a folder of packages; raises BadInputError for one who has none."""
    from exporter.core.extras import require
    from exporter.fleet import packages

    require("pyarrow", "train")
    require("xxhash", "train")
    _check_file(output, force)
    held = packages.read(folder)
    if output.resolve().parent == held.place.resolve():
        raise OutputError(f"{output} lies among the packages that it is taken from; {_ADVICE}")
    package = held.take(user)
    _check(held, user, package)
    return _written(output, package.data, package.structure)


def _check(folder: "Folder", user: str, package: "Package") -> None:
    """Raise BadInputError unless what an index names is a package of the folder's plan, and of its row's structure.

    The index's hash is of the file alone, and both may be of another hand.
    """
    from exporter.artifact import weights

    source = f"{folder.place}: what its index names for user {user[:80]!r}"
    said = weights.metadata_of(package.data, source)
    wanted = {"structure": package.structure, "checkpoint": folder.plan.get("checkpoint_sha256")}
    for name, value in {**wanted, weights.STORED: folder.plan.get("stored")}.items():
        if said.get(name) != value:
            raise BadInputError(
                f"{source} has {name} {str(said.get(name))[:80]!r}, not {str(value)[:80]!r}; remove its index and "
                "archive, and the same fleet command makes them again"
            )


def make_package(request: PackageRequest, report: Report) -> Packed:
    """Make the package of one user, of the bytes that it has among those of a fleet; raises BadInputError."""
    import numpy as np

    from exporter.core.extras import LOWER, require
    from exporter.pipeline.request import ProgramChoice
    from exporter.pipeline.source import folder_of, items_of

    torch = require("torch", LOWER)
    from models import checkpoint as checkpoints
    from models.zoo import load_spec

    torch.set_num_threads(1)  # as a worker of the fleet computes
    _check_file(request.output, request.force)
    spec = load_spec(request.model)
    try:
        checkpoint = checkpoints.read(folder_of(ProgramChoice(request.model, checkpoint=request.checkpoint)))
        items = items_of(checkpoint)
        if items.note is not None:
            report(items.note)
        rows = items.rows("--history", request.history)
        if spec.package is None:
            raise BadInputError(f"{request.model} has one network for all users, and no weights packages")
        model = checkpoints.build(checkpoint, spec)
        chosen = None
        if request.structure is not None and spec.select is not None:
            chosen = spec.select(model, checkpoint.golden, rows, request.structure).structure
        item_ids = np.zeros((1, checkpoint.history_length), np.int32)
        own = rows[-checkpoint.history_length :]
        item_ids[0, : len(own)] = own
        structure, package = spec.package(model, item_ids, chosen, request.stored, checkpoint.sha256)
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return _written(request.output, package, "".join(map(str, structure)))


def _check_file(output: Path, force: bool) -> None:
    from safeio import places

    places.check_file(output, _ADVICE)
    if output.exists() and not force:
        raise OutputError(f"{output} is there already; {_ADVICE}, or replace it with --force")


def _written(output: Path, data: bytes, structure: str) -> Packed:
    import hashlib

    from safeio import files

    files.replace_file(output, data, _ADVICE)
    return Packed(str(output), len(data), hashlib.sha256(data).hexdigest(), structure)
