"""What the command line asks for."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from exporter.core.types import Precision

Embeddings = Literal["shipped", "cached"]


@dataclass(frozen=True)
class ProgramChoice:
    """Which program of which trained model; None stands for the model's own choice.

    `history` is a list of ids or a file of them (`pipeline.ids`), `structure` one digit per block; both choose a
    sub-network. With `untrained`, weights and golden histories are drawn, for the costs of an architecture and its
    parity.
    """

    model: str
    program: str | None = None
    checkpoint: Path | None = None
    history: str | None = None
    structure: str | None = None
    embeddings: Embeddings = "shipped"
    untrained: bool = False


@dataclass(frozen=True)
class ExportRequest:
    """What `cocorr-export MODEL` was asked for: the program, the target or `all`, the device profile, and the place.

    `precision` None stands for the profile's. With `force`, an artifact that stands at the place is replaced even where
    it is another one: of another precision, structure, checkpoint or device.
    """

    choice: ProgramChoice
    target: str
    output: Path
    profile: str = "generic"
    precision: Precision | None = None
    force: bool = False
