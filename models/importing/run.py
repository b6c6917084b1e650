"""From a file of weights to a checkpoint folder: everything that `cocorr-export import` does but talk."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import checkpoint, replacing
from models.checkpoint import MAX_SIZE, Checkpoint
from models.importing import golden, weights_file
from models.importing.convert import convert
from models.importing.origin import Origin
from models.importing.weights_file import ImportingError
from models.untrained import CANDIDATES, draw_golden
from models.zoo import load_spec
from safeio import catalogue, files


@dataclass(frozen=True)
class Request:
    """What is to be imported: a file of weights of an origin, and where the checkpoint shall stand.

    `data` is a file of clicks for the golden cases, which are drawn without one; `items` an items.tsv with the ids of
    the item table's rows. `heads` and `history` are sizes that weights may not show. `force` replaces a checkpoint
    of another model or of other weights.
    """

    file: Path
    origin: Origin
    output: Path
    data: Path | None = None
    items: Path | None = None
    heads: int | None = None
    history: int | None = None
    force: bool = False


@dataclass(frozen=True)
class Imported:
    """The checkpoint that was written, what its golden cases are, and what its user should know."""

    checkpoint: Checkpoint
    golden: str
    notes: tuple[str, ...]


def run(request: Request, report: Callable[[str], None]) -> Imported:
    """Write the checkpoint or nothing; raises ImportingError, DataError, OutputError or CheckpointError."""
    origin = request.origin
    for option, size in (("heads", request.heads), ("history", request.history)):
        if size is not None and not 1 <= size <= MAX_SIZE:
            raise ImportingError(f"--{option} must be a whole number from 1 to {MAX_SIZE}, not {size}")
    checkpoint.check_destination(request.output)
    report("reading the weights")
    theirs, sha256 = weights_file.read(request.file, origin)
    spec = load_spec(origin.model)
    try:
        converted = convert(origin, spec, theirs, request.heads, request.history)
    except ImportingError as error:
        raise ImportingError(f"{request.file}: {error}") from error
    vocabulary = converted.architecture["vocabulary"]
    items = None if request.items is None else _read_items(request.items, vocabulary)
    made_from = replacing.File(sha256, request.file.name)
    made = replacing.Facts(origin.model, converted.architecture, made_from, replacing.ids_of(items, ordered=True))
    replacing.check(request.output, made, request.force)
    model = spec.build(converted.architecture).eval()
    model.load_state_dict(converted.state, strict=True)
    report("computing the golden cases")
    cases, described = _golden(request, model, items, vocabulary, converted.history_length)
    if not np.isfinite(cases["scores"]).all():
        raise ImportingError(f"{request.file}: these weights give scores that are not finite; train them again")
    config = {
        "schema_version": checkpoint.SCHEMA_VERSION,
        "model": origin.model,
        "architecture": converted.architecture,
        "history_length": converted.history_length,
        "training": {
            "imported_from": origin.name,
            "file": request.file.name,
            "file_sha256": sha256,
            "notes": converted.notes,
            **described,
            "torch": torch.__version__,
        },
        "metrics": {},
    }
    report("writing the checkpoint")
    written = checkpoint.write(request.output, config, converted.state, cases, items=items)
    return Imported(written, str(described["golden_cases"]), converted.notes)


def _golden(
    request: Request, model: nn.Module, items: bytes | None, vocabulary: int, length: int
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Return the golden cases, and what config.json says of them."""
    if request.data is None:
        cases = draw_golden(model, vocabulary, length, min(CANDIDATES, vocabulary - 1))
        return cases, {"golden_cases": f"{len(cases['item_ids'])} drawn at random"}
    rows = None if items is None else catalogue.parse(items, vocabulary)
    cases, clicks = golden.from_clicks(model, request.data, rows, vocabulary, length)
    described = f"{len(cases['item_ids'])} from the clicks of {request.data.name}"
    return cases, {"golden_cases": described, "data_sha256": clicks.sha256, "left_out": clicks.notes}


def _read_items(path: Path, vocabulary: int) -> bytes:
    """Return an items.tsv as it is, if it lists every row; raises ImportingError."""
    try:
        data = files.read_file(path, catalogue.MAX_BYTES, follow_link=True)
        catalogue.parse(data, vocabulary)
    except files.UnreadableError as error:
        raise ImportingError(f"{path} {error}; write a line for each row but row 0: row, id, clicks") from error
    return data
