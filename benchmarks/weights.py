"""Whose weights a benchmark exports: those of a folder that it is given, the shipped ones, or drawn ones."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import nn

from exporter import pipeline
from exporter.pipeline import source as sources
from models import checkpoint as checkpoints


def request_for(
    model: str, target: str, program: str, precision: str, checkpoints: Path, output: Path
) -> tuple[str, pipeline.ExportRequest]:
    """Return "own" for weights in `checkpoints`/model, "shipped" or "untrained", and the request to export them."""
    own = checkpoints / model
    checkpoint = own if (own / "config.json").exists() else None
    weights = "own" if checkpoint else "shipped" if (sources.PRETRAINED / model).exists() else "untrained"
    choice = pipeline.ProgramChoice(model, program, checkpoint, untrained=weights == "untrained")
    return weights, pipeline.ExportRequest(choice, target, output, precision=precision)


def write_drawn(
    folder: Path,
    model: nn.Module,
    architecture: Mapping[str, int | str],
    item_ids: np.ndarray,
    candidates: int,
    rng: np.random.Generator,
) -> None:
    """Write a checkpoint of an SCN with golden histories [cases, N] and so many drawn candidates for each."""
    items = int(architecture["vocabulary"]) - 1
    drawn = [rng.choice(items, candidates, replace=False) + 1 for _ in item_ids]
    golden = {"item_ids": item_ids, "candidate_ids": np.array(drawn, np.int32)}
    with torch.no_grad():
        scores = model(*map(torch.from_numpy, golden.values())).numpy()
    config = {"schema_version": checkpoints.SCHEMA_VERSION, "model": "scn", "architecture": dict(architecture)}
    config |= {"history_length": item_ids.shape[1], "training": {}, "metrics": {}}
    checkpoints.write(folder, config, model.state_dict(), {**golden, "scores": scores})
