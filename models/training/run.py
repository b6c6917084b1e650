"""From an interaction file to a checkpoint folder: everything that cocorr-train does but talk."""

from collections.abc import Mapping
from pathlib import Path

import torch

from models import checkpoint
from models.training.data import read_interactions
from models.training.golden import SHORTENED, golden_cases
from models.training.loop import SELECTION, TEST_NEGATIVES, TRAIN_NEGATIVES, Report, Settings, train
from models.zoo import load_spec


def run(
    model: str, architecture: Mapping[str, int], data: Path, output: Path, settings: Settings, report: Report
) -> checkpoint.Checkpoint:
    """Train `model` on `data` and write its checkpoint to `output`; raises DataError or CheckpointError."""
    checkpoint.check_destination(output)  # before the hours of training, not after
    interactions = read_interactions(data, settings.seed)
    architecture = {"vocabulary": interactions.vocabulary, **architecture}
    trained = train(load_spec(model), architecture, interactions, settings, report)
    golden = golden_cases(trained.model, trained.test, settings.seed)
    config = {
        "schema_version": checkpoint.SCHEMA_VERSION,
        "model": model,
        "architecture": architecture,
        "history_length": settings.history,
        "training": {
            "command": _command(model, data, output, settings),
            "data": data.name,
            "data_sha256": interactions.sha256,
            "users": interactions.users,
            "items": interactions.vocabulary - 1,
            "interactions": len(interactions.items),
            "seed": settings.seed,
            "epochs": settings.epochs,
            "best_epoch": trained.best_epoch,
            "selected_by": f"validation {SELECTION}",
            "learning_rate": settings.learning_rate,
            "weight_decay": settings.weight_decay,
            "batch_size": settings.batch_size,
            "train_negatives": TRAIN_NEGATIVES,
            "test_negatives": TEST_NEGATIVES,
            "test_users": len(trained.test.item_ids),
            "torch": torch.__version__,
            "golden_cases": len(golden["scores"]),
            "golden_cases_shortened": min(SHORTENED, len(golden["scores"])),
        },
        "metrics": trained.metrics,
    }
    return checkpoint.write(output, config, trained.model.state_dict(), golden)


def _command(model: str, data: Path, output: Path, settings: Settings) -> str:
    """Return the command that repeats the run, with file names in place of paths."""
    return (
        f"cocorr-train {model} --data {data.name} --output {output.name} --seed {settings.seed}"
        f" --epochs {settings.epochs} --learning-rate {settings.learning_rate} --weight-decay {settings.weight_decay}"
        f" --batch-size {settings.batch_size} --history {settings.history}"
    )
