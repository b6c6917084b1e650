"""From an interaction file to a checkpoint folder: everything that cocorr-train does but talk."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import cast

import torch

from models import checkpoint
from models.forward_ofa.supernet import Supernet
from models.spec import ModelSpec
from models.training import loop, next_item
from models.training.data import read_interactions
from models.training.golden import SHORTENED, golden_cases
from models.training.loop import SELECTION, TEST_NEGATIVES, TRAIN_NEGATIVES, Report, Settings
from models.training.next_item import NextItem
from models.zoo import load_spec


def run(
    model: str,
    architecture: dict[str, int | str],
    data: Path,
    output: Path,
    settings: Settings,
    report: Report,
    next_item_options: NextItem | None = None,
    start_from: Path | None = None,
) -> checkpoint.Checkpoint:
    """Train `model` on `data` and write its checkpoint to `output`; raises DataError or CheckpointError.

    `architecture` has the sizes and names that are not the model's default ones.
    With `next_item_options` it learns the next item among all, without it one positive among sampled negatives; the
    first kind is for `ofa`, and its weights are written in fp16. `start_from` is a checkpoint of an `ofa` without a
    mapper, trained on the same data with the same seed, that lends its embeddings and blocks. Raises ValueError for an
    architecture that is none.
    """
    checkpoint.check_destination(output)  # before the hours of training, not after
    interactions = read_interactions(data, settings.seed)
    spec = load_spec(model)
    architecture = spec.sized(interactions.vocabulary, settings.history) | architecture
    kind: dict[str, object]
    if next_item_options is None:
        trained = loop.train(spec, architecture, interactions, settings, report)
        kind = {"train_negatives": TRAIN_NEGATIVES, "test_negatives": TEST_NEGATIVES}
    else:
        torch.manual_seed(settings.seed)
        supernet = cast(Supernet, spec.build(architecture))
        start = None if start_from is None else _start(supernet, spec, start_from, interactions.sha256, settings.seed)
        trained = next_item.train(supernet, interactions, settings, next_item_options, report)
        kind = {
            **asdict(next_item_options),
            "validation_users": next_item.VALIDATION_USERS,
            "ranked_among": "all items",
            "autocast": "bfloat16",
            "start_from": start,
        }
    golden = golden_cases(trained.model, trained.test, settings.seed)
    state = trained.model.state_dict()
    if next_item_options is not None:
        state = {name: tensor.half() for name, tensor in state.items()}
    config = {
        "schema_version": checkpoint.SCHEMA_VERSION,
        "model": model,
        "architecture": architecture,
        "history_length": settings.history,
        "training": {
            "command": _command(model, architecture, data, output, settings, next_item_options, start_from),
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
            **kind,
            "test_users": len(trained.test.item_ids),
            "torch": torch.__version__,
            "golden_cases": len(golden["scores"]),
            "golden_cases_shortened": min(SHORTENED, len(golden["scores"])),
        },
        "metrics": trained.metrics,
    }
    return checkpoint.write(output, config, state, golden)


def _start(supernet: Supernet, spec: ModelSpec, folder: Path, data_sha256: str, seed: int) -> dict[str, object]:
    """Start from a checkpoint's weights and return how those were trained; raises CheckpointError."""
    lender = checkpoint.read(folder)
    model = cast(Supernet, checkpoint.build(lender, spec))
    training = lender.config["training"]
    if (training.get("data_sha256"), training.get("seed")) != (data_sha256, seed):
        raise checkpoint.CheckpointError(f"{folder} was trained on other data or with another seed: its ids differ")
    try:
        supernet.start_from(model)
    except ValueError as error:
        raise checkpoint.CheckpointError(f"{folder}: {error}") from error
    return {"command": training.get("command"), "best_epoch": training.get("best_epoch"), "sha256": lender.sha256}


def _command(
    model: str,
    architecture: Mapping[str, int | str],
    data: Path,
    output: Path,
    settings: Settings,
    options: NextItem | None,
    start_from: Path | None,
) -> str:
    """Return the command that repeats the run, with file names in place of paths."""
    command = (
        f"cocorr-train {model} --data {data.name} --output {output.name} --seed {settings.seed}"
        f" --epochs {settings.epochs} --learning-rate {settings.learning_rate} --weight-decay {settings.weight_decay}"
        f" --batch-size {settings.batch_size} --history {settings.history}"
    )
    if options is None:
        return command
    words = {name: architecture.get(name) for name in ("backbone", "method", "kept_blocks")} | asdict(options)
    words["start_from"] = start_from and start_from.name
    given = {name: value for name, value in words.items() if value is not None}
    return command + "".join(f" --{name.replace('_', '-')} {value}" for name, value in given.items())
