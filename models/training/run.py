"""From an interaction file to a checkpoint folder: everything that cocorr-train does but talk."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from models import checkpoint, replacing
from models.checkpoint import Checkpoint, CheckpointError
from models.checkpoint_files import MAX_BYTES, WEIGHTS
from models.forward_ofa.compared import finetune
from models.forward_ofa.supernet import Supernet
from models.spec import ModelSpec, require_module
from models.training import loop, next_item
from models.training.data import Interactions, read_interactions
from models.training.device import find_device
from models.training.gather import DataError
from models.training.golden import CASES, SHORTENED, golden_cases
from models.training.loop import DivergedError, Trained, require_finite
from models.training.progress import Report, after
from models.training.resume import SELECTION, Resume, check_place, describe
from models.training.settings import Request, SettingsError
from models.training.sub_networks import is_collapsed
from models.zoo import load_spec
from safeio import catalogue
from safeio.errors import OutputError

BELOW_POPULARITY = (
    "warning: in the test the model ranks worse than the number of clicks of each item does (test_by_popularity); train"
    " longer, try another --learning-rate, or take more data"
)
COLLAPSED = (
    "warning: the controller gives one structure to more than 90 % of the test's users (share_of_most_frequent), and so"
    " chooses for nobody; try another --compactness or --temperature, or train longer"
)
_HEADER_BYTES = 1 << 20


def run(request: Request, report: Report) -> Checkpoint:
    """Train and write the checkpoint; a run that was interrupted goes on after its last whole epoch.

    Raises DataError, CheckpointError, OutputError or SettingsError before any epoch for what can be known by then, and
    ValueError for an architecture that is none. A run that diverges, DivergedError, leaves no progress: gone on with,
    or begun anew, it would diverge again.
    """
    device = find_device(request.device)
    request = replace(request, device=device.type)  # what `auto` has found
    settings = request.settings
    if settings.initial_std is not None and (request.next_item or request.start_from):
        raise SettingsError("--initial-std is for runs that start from nothing, and not for ofa")
    checkpoint.check_destination(request.output)  # before the hours of training, not after
    progress = _progress_file(request.output)
    check_place(progress)
    interactions = read_interactions(request.data, settings.seed, request.filters, request.columns)
    items = _items(request.data, interactions)
    spec = load_spec(request.model)
    architecture = _architecture(request, spec, interactions)
    made_from = replacing.File(interactions.sha256, request.data.name)
    made = replacing.Facts(spec.name, architecture, made_from, replacing.ids_of(items, ordered=False))
    replacing.check(request.output, made, request.force)
    lender = None if request.start_from is None else _lender(request.start_from, interactions.sha256, settings.seed)
    start = None if lender is None else _origin(lender)
    facts = {"command": request.command, "data_sha256": interactions.sha256, "torch": torch.__version__, "start": start}
    resume = Resume(progress, describe(facts), settings.epochs)
    notes = _notes(interactions)
    model = _model(request, spec, architecture, lender)
    _check_room(request, model, progress)
    try:
        trained = _train(request, model, interactions, after(notes, report), resume, device)
        trained.model.cpu()
        golden = golden_cases(trained.model, trained.test, settings.seed)
        require_finite("the scores of the golden cases are", [torch.from_numpy(golden["scores"])])
    except DivergedError:
        resume.remove()
        raise
    state = trained.model.state_dict()
    if request.next_item is not None:
        state = {name: tensor.half() for name, tensor in state.items()}
    training = {
        **_training(request, interactions, trained),
        "left_out": [*notes, *trained.negatives.notes],
        "start_from": start,
    }
    config = _config(request, spec.name, architecture, training, trained)
    metrics = {
        **trained.metrics,
        "test_negatives": trained.negatives.test,
        "command": request.command,
        "epochs": trained.log,
    }
    written = checkpoint.write(request.output, config, state, golden, metrics, items)
    resume.remove()
    if training["below_popularity"]:
        report(0, 0, BELOW_POPULARITY)
    if training.get("structure_collapse"):
        report(0, 0, COLLAPSED)
    return written


def _progress_file(output: Path) -> Path:
    """Return where the progress of a run to a checkpoint folder is saved: beside it."""
    place = Path(os.path.realpath(output))
    return place.with_name(f"{place.name}.resume")


def _notes(interactions: Interactions) -> list[str]:
    """Return what of the data takes no part, and why."""
    untested = int((np.diff(interactions.starts) < 3).sum())
    return [*interactions.notes, *([f"{untested} users with fewer than 3 clicks are not tested"] if untested else [])]


def _items(data: Path, interactions: Interactions) -> bytes:
    """Return items.tsv, the items' ids as the data has them with their clicks there; raises DataError."""
    clicks = np.bincount(interactions.items, minlength=interactions.vocabulary)
    try:
        items = catalogue.to_bytes(interactions.names, clicks.tolist())
    except catalogue.CatalogueError as error:
        raise DataError(f"{data} {error}; take it out of the id, or leave the item out") from error
    if len(items) > catalogue.MAX_BYTES:
        raise DataError(
            f"{data}: the ids of its {interactions.vocabulary - 1} items take {len(items)} bytes, more than the"
            f" {catalogue.MAX_BYTES} of a checkpoint; leave rare ones out with --min-item-clicks, or shorten the ids"
        )
    return items


def _architecture(request: Request, spec: ModelSpec, interactions: Interactions) -> dict[str, int | str]:
    """Return the sizes of the model to be trained; raises DataError or SettingsError where no checkpoint holds it."""
    history = request.settings.history
    architecture = spec.sized(interactions.vocabulary, history) | dict(request.architecture)
    if architecture.get("gcn") and history % (size := int(architecture["mini_batch"])):
        raise SettingsError(f"a GCN corrects mini-batches of {size} clicks: give a multiple of {size} as --history")
    for name, size in architecture.items():
        sized = isinstance(size, int) and 1 <= size <= checkpoint.MAX_SIZE
        if name not in ("vocabulary", *checkpoint.NAMES) and not sized:
            raise SettingsError(f"{name} must be a whole number from 1 to {checkpoint.MAX_SIZE}, not {str(size)[:40]}")
    weight_bytes = spec.weights(architecture) * (4 if request.next_item is None else 2)
    if interactions.vocabulary > checkpoint.MAX_VOCABULARY or weight_bytes > MAX_BYTES[WEIGHTS]:
        raise DataError(
            f"{request.data} has {interactions.vocabulary - 1} items, more than a checkpoint of {request.model} holds;"
            " leave rare ones out with --min-item-clicks"
        )
    return architecture


def _model(
    request: Request, spec: ModelSpec, architecture: Mapping[str, int | str], lender: Checkpoint | None
) -> torch.nn.Module:
    """Return the model with the seed's weights and those of the lender; an SCN's that it lends stay as they are."""
    settings = request.settings
    frozen = None if lender is None or request.next_item is not None else _frozen(lender, spec, architecture)
    torch.manual_seed(settings.seed)
    model = spec.build(architecture)
    require_module(spec.name, model)
    if settings.initial_std is not None:
        cast(Any, model).reset(settings.initial_std)
    if frozen is not None:
        model.load_state_dict({**model.state_dict(), **frozen})
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    elif lender is not None:
        _lend(lender, spec, cast(Supernet, model))
    return model


def _check_room(request: Request, model: torch.nn.Module, progress: Path) -> None:
    """Raise DataError where no checkpoint takes the weights, and OutputError where the disk has no room for them."""
    weights = sum(tensor.nbytes for tensor in model.state_dict().values())
    written = weights if request.next_item is None else weights // 2
    if written > MAX_BYTES[WEIGHTS] - _HEADER_BYTES:
        raise DataError(
            f"{request.data} has more items than a checkpoint of {request.model} holds: its weights would take"
            f" {written} bytes; leave rare items out with --min-item-clicks"
        )
    learned = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    saved = 2 * weights + 2 * learned  # now, at the best epoch, and the optimiser's two averages
    needed = saved + (saved if request.settings.epochs > 1 else written)  # a new one is written beside the old one
    place = next(folder for folder in progress.parents if folder.exists())
    there = progress.stat().st_size if progress.exists() else 0
    free = shutil.disk_usage(place).free + there
    if free < needed:
        raise OutputError(
            f"{place} has room for {free} bytes, and the progress of this training takes {needed}; make room or choose"
            " another --output"
        )


def _train(
    request: Request,
    model: torch.nn.Module,
    interactions: Interactions,
    report: Report,
    resume: Resume,
    device: torch.device,
) -> Trained:
    """Train in the way that the request wants."""
    settings, options = request.settings, request.next_item
    if options is None:
        corrected = bool(request.architecture.get("gcn"))
        return loop.train(model, interactions, settings, report, resume, corrected, device)
    supernet, is_given = cast(Supernet, model), request.start_from is not None
    is_trained = is_given and supernet.method.tuned
    return next_item.train(supernet, interactions, settings, options, report, resume, device, is_trained)


def _config(
    request: Request,
    model: str,
    architecture: Mapping[str, int | str],
    training: Mapping[str, object],
    trained: Trained,
) -> dict[str, object]:
    """Return what config.json holds."""
    return {
        "schema_version": checkpoint.SCHEMA_VERSION,
        "model": model,
        "architecture": architecture,
        "history_length": request.settings.history,
        "training": training,
        "metrics": trained.metrics,
    }


def _training(request: Request, interactions: Interactions, trained: Trained) -> dict[str, object]:
    """Return what config.json says of the training."""
    settings, options = request.settings, request.next_item
    negatives = trained.negatives
    kind: dict[str, object] = {"train_negatives": negatives.train, "test_negatives": negatives.test}
    if options is not None:
        supernet = cast(Supernet, trained.model)
        kind = {
            **asdict(options),
            **_fine_tuning(supernet),
            "validation_users": next_item.VALIDATION_USERS,
            "ranked_among": "all items",
            "autocast": "bfloat16",
            "structure_collapse": is_collapsed(supernet, trained.metrics["sub_networks"]),
        }
    cases = min(CASES, len(trained.test.item_ids))
    return {
        "command": request.command,
        "data": request.data.name,
        "data_sha256": interactions.sha256,
        "users": interactions.users,
        "items": interactions.vocabulary - 1,
        "interactions": len(interactions.items),
        "seed": settings.seed,
        "epochs": settings.epochs,
        "epochs_run": len(trained.log),
        "best_epoch": trained.best_epoch,
        "selected_by": f"validation {SELECTION}",
        "learning_rate": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "batch_size": settings.batch_size,
        "initial_std": settings.initial_std,
        **kind,
        "device": request.device,
        "test_users": len(trained.test.item_ids),
        "below_popularity": _is_below_popularity(trained.metrics),
        "torch": torch.__version__,
        "golden_cases": cases,
        "golden_cases_shortened": min(SHORTENED, cases),
    }


def _fine_tuning(supernet: Supernet) -> dict[str, object]:
    """Return what config.json says of the steps that each user's device takes, where it takes some."""
    if not supernet.steps:
        return {}
    steps = {"steps": supernet.steps, "learning_rate": finetune.LEARNING_RATE, "optimiser": "Adam"}
    return {"fine_tuning": {**steps, "on": "the history before the target: no click that is ranked for"}}


def _is_below_popularity(metrics: Mapping[str, Mapping[str, float]]) -> bool:
    """Tell whether the items that are clicked most would be ranked better than what the model ranks, in the test."""
    reached = metrics.get("test_corrected", metrics["test"])
    return reached[SELECTION] < metrics["test_by_popularity"][SELECTION]


def _lender(folder: Path, data_sha256: str, seed: int) -> Checkpoint:
    """Return a checkpoint to start from; raises CheckpointError where its item ids are not those of this run."""
    lender = checkpoint.read(folder)
    training = lender.config["training"]
    if (training.get("data_sha256"), training.get("seed")) != (data_sha256, seed):
        raise CheckpointError(
            f"{folder} was trained on other data or with another seed: its ids differ; start from one of this --data"
            " and --seed"
        )
    return lender


def _origin(lender: Checkpoint) -> dict[str, object]:
    """Return how a checkpoint that is started from was trained itself."""
    training = lender.config["training"]
    return {"command": training.get("command"), "best_epoch": training.get("best_epoch"), "sha256": lender.sha256}


def _lend(lender: Checkpoint, spec: ModelSpec, supernet: Supernet) -> None:
    """Start from a plain backbone's weights; raises CheckpointError where they do not fit."""
    try:
        supernet.start_from(cast(Supernet, checkpoint.build(lender, spec)))
    except CheckpointError:
        raise
    except ValueError as error:
        raise CheckpointError(f"{lender.folder}: {error}") from error


def _frozen(lender: Checkpoint, spec: ModelSpec, architecture: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Return the weights of an SCN that stay as they are; raises CheckpointError for one of other sizes."""
    checkpoint.build(lender, spec)
    theirs, ours = ({k: v for k, v in sizes.items() if k != "gcn"} for sizes in (lender.architecture, architecture))
    if theirs != ours:
        raise CheckpointError(f"{lender.folder} has other sizes than this run: {theirs}, not {ours}")
    return {name: tensor for name, tensor in lender.state.items() if not name.startswith("gcn.")}
