"""Lower trained on-device recommenders to phone formats and prove that they still say the same thing there.

    artifact = cocorr.export(module, inputs, target="onnx", ranking="scores")
    artifact.manifest.parity.verdict, artifact.run(inputs)["scores"]

docs/api.md has all of it. The commands of cocorr-export do the same work with the same functions. torch is imported
where something is lowered, and by no one else.
"""

from typing import TYPE_CHECKING

from cocorr.api import Artifact, export, load
from exporter.core.errors import (
    ArtifactError,
    BadInputError,
    CheckpointError,
    CocorrError,
    DeviceError,
    LoweringError,
    MissingExtraError,
    OutputError,
    ProfileError,
    ProgramError,
    RuntimeFailureError,
    RuntimeMissingError,
    UnknownNameError,
)
from models.spec import InputSpec, ModelSpec, ProgramSpec
from safeio.invocation import require_command

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.core.sections import Parity
    from models.checkpoint import write as write_checkpoint
    from models.inputs import CANDIDATE_IDS, ITEM_IDS, RERANK
    from models.layers import ItemEmbedding, inner_product, redraw
    from models.streaming import step_program
    from models.topk import by_table, topk_program

__all__ = [
    "CANDIDATE_IDS",
    "ITEM_IDS",
    "RERANK",
    "Artifact",
    "ArtifactError",
    "BadInputError",
    "CheckpointError",
    "CocorrError",
    "DeviceError",
    "InputSpec",
    "ItemEmbedding",
    "LoweringError",
    "Manifest",
    "MissingExtraError",
    "ModelSpec",
    "OutputError",
    "Parity",
    "ProfileError",
    "ProgramError",
    "ProgramSpec",
    "RuntimeFailureError",
    "RuntimeMissingError",
    "UnknownNameError",
    "by_table",
    "export",
    "inner_product",
    "load",
    "redraw",
    "step_program",
    "topk_program",
    "write_checkpoint",
]

require_command(__name__, __path__)


def __getattr__(name: str) -> object:
    """Import what needs pydantic or torch when it is asked for."""
    match name:
        case "Manifest":
            from exporter.artifact import manifest

            return manifest.Manifest
        case "Parity":
            from exporter.core import sections

            return sections.Parity
        case "RERANK" | "ITEM_IDS" | "CANDIDATE_IDS":
            from models import inputs

            return getattr(inputs, name)
        case "ItemEmbedding" | "inner_product" | "redraw":
            from models import layers

            return getattr(layers, name)
        case "step_program":
            from models import streaming

            return streaming.step_program
        case "by_table" | "topk_program":
            from models import topk

            return getattr(topk, name)
        case "write_checkpoint":
            from models import checkpoint

            return checkpoint.write
        case _:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
