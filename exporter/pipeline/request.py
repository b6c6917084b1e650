"""What the command line and the API ask for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn
    from torch.export import ExportedProgram

    from exporter.core.precision import Asked, Fold
    from exporter.core.types import Arrays

Embeddings = Literal["shipped", "cached"]
AUTO = "auto"
"""In place of a structure: the best that is predicted to keep the budget of latency."""


@dataclass(frozen=True)
class ProgramChoice:
    """Which program of which trained model; None stands for the model's own choice.

    `history` is a list of ids or a file of them (`pipeline.ids`), `structure` one digit per block; both choose a
    sub-network. With the structure AUTO, `predictor` is the file of a latency predictor. With `untrained`, weights and
    golden histories are drawn, for the costs of an architecture and its parity. `batch` is how many users a call takes,
    of a program that runs in the cloud.
    """

    model: str
    program: str | None = None
    checkpoint: Path | None = None
    history: str | None = None
    structure: str | None = None
    predictor: Path | None = None
    embeddings: Embeddings = "shipped"
    untrained: bool = False
    batch: int = 1


@dataclass(frozen=True)
class SavedProgram:
    """A program that torch.export.save wrote, and its golden inputs: an .npz with an array per input, cases first.

    `ranking` names the output whose order parity keeps, `outputs` names all of them in order; None: as the file does.
    """

    file: Path
    inputs: Path
    ranking: str | None = None
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class GivenModule:
    """A torch module or ExportedProgram in memory, and its golden inputs by name, [cases, *shape] each.

    `name` is the first part of the artifact's place; `ranking` and `outputs` are those of SavedProgram.
    """

    name: str
    module: "nn.Module | ExportedProgram"
    inputs: "Arrays"
    ranking: str | None = None
    outputs: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ExportRequest:
    """What shall be exported, for a target or `all`, under a device profile, and the folder for the artifacts.

    `precision` None stands for the profile's, "auto" for the mildest scheme whose size and memory fit the budgets.
    With `force`, an artifact that stands at the place is replaced even where it is another one: of another
    precision, structure, checkpoint or device. `without_passes` are left out; `fold` says by how much the artifact
    may grow for tables of computed rows, and `connection` where it is run, as of `parity`; None as the profile says.
    """

    choice: ProgramChoice | SavedProgram | GivenModule
    target: str
    output: Path
    profile: str = "generic"
    precision: "Asked | None" = None
    force: bool = False
    without_passes: frozenset[str] = frozenset()
    fold: "Fold | None" = None
    connection: str | None = None
