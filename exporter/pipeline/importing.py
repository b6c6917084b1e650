"""`cocorr-export import`: weights that other code trained, made a checkpoint that can be exported."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from exporter.core.errors import MissingExtraError, UnknownNameError
from exporter.pipeline.lengths import Report
from models.importing import ORIGINS
from safeio.errors import one_line
from safeio.packages import missing


@dataclass(frozen=True)
class ImportRequest:
    """What `cocorr-export import` was asked for; see `models.importing.run.Request`."""

    file: Path
    origin: str
    output: Path
    data: Path | None
    items: Path | None
    heads: int | None
    history: int | None
    force: bool


@dataclass(frozen=True)
class Imported:
    """A checkpoint that was written: `checkpoint` is its folder as the user named it.

    `golden_cases` says how many there are and where they are from, `notes` what else the user should know.
    """

    checkpoint: str
    origin: str
    model: str
    architecture: Mapping[str, int]
    history_length: int
    golden_cases: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """Return the document that `--json` prints."""
        return {"schema_version": 1, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """Yield what a person reads."""
        sizes = ", ".join(f"{name} {size}" for name, size in self.architecture.items() if name != "history_length")
        yield f"{self.origin} -> {self.model}: {self.checkpoint}"
        yield f"  {sizes}; histories of {self.history_length} clicks"
        yield f"  golden cases: {one_line(self.golden_cases)}"
        for note in self.notes:
            yield f"  {note}"
        yield f"export it: cocorr-export {self.model} --checkpoint {shlex.quote(self.checkpoint)} --target all"


def origin_names() -> list[str]:
    """Return the names of what can be imported."""
    return sorted(ORIGINS)


def import_weights(request: ImportRequest, report: Report) -> Imported:
    """Write the checkpoint; raises BadInputError for whatever cannot be imported."""
    if request.origin not in ORIGINS:
        raise UnknownNameError("origin", request.origin, ORIGINS)
    absent = missing(("pyarrow", "torch"))
    if absent:
        raise MissingExtraError(absent, "train")
    import torch

    from models.importing.run import Request, run

    torch.set_num_threads(1)  # as for exports: golden scores then do not depend on the machine
    origin = ORIGINS[request.origin]
    whole = Request(
        file=request.file,
        origin=origin,
        output=request.output,
        data=request.data,
        items=request.items,
        heads=request.heads,
        history=request.history,
        force=request.force,
    )
    done = run(whole, report)
    written = done.checkpoint
    return Imported(
        checkpoint=str(request.output),
        origin=origin.name,
        model=origin.model,
        architecture=written.architecture,
        history_length=written.history_length,
        golden_cases=done.golden,
        notes=done.notes,
    )
