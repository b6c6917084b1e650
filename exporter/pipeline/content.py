"""What torch makes of a model whose code is not ours: one SHA-256 over its captured program and its golden cases."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.pipeline.export import source_of
from exporter.pipeline.lengths import Report
from exporter.pipeline.program import digest_of_program
from exporter.pipeline.request import ExportRequest, ProgramChoice
from models import zoo

if TYPE_CHECKING:
    from exporter.core.precision import Precision


def digest_of(choice: ProgramChoice, profile: str, precision: "Precision | None", report: Report) -> str:
    """Return the SHA-256 of a program as captured, before any pass, and of the inputs and outputs it is held to.

    Raises what an export raises before it lowers anything.
    """
    from exporter import profiles

    request = ExportRequest(choice, target="all", output=Path(), profile=profile, precision=precision)
    source = source_of(request, profiles.load(profile), report)
    with zoo.foreign(choice.model):
        captured = source.captured("inputs", "captured")
        digest = hashlib.sha256(digest_of_program(captured.exported).encode())
        for arrays in (source.inputs, source.outputs):
            for name, array in arrays.items():
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
    return digest.hexdigest()
