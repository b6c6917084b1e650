"""Whose weights a benchmark exports: those of a folder that it is given, the shipped ones, or drawn ones."""

from pathlib import Path

from exporter import pipeline
from exporter.pipeline import source as sources


def request_for(
    model: str, target: str, program: str, precision: str, checkpoints: Path, output: Path
) -> tuple[str, pipeline.ExportRequest]:
    """Return "own" for weights in `checkpoints`/model, "shipped" or "untrained", and the request to export them."""
    own = checkpoints / model
    checkpoint = own if (own / "config.json").exists() else None
    weights = "own" if checkpoint else "shipped" if (sources.PRETRAINED / model).exists() else "untrained"
    choice = pipeline.ProgramChoice(model, program, checkpoint, untrained=weights == "untrained")
    return weights, pipeline.ExportRequest(choice, target, output, precision=precision)
