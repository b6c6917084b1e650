"""Train a model by binary cross-entropy on one positive and sampled negatives, and measure it by leave-one-out."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.spec import ModelSpec
from models.training.data import Interactions, Split, histories, leave_one_out, training_positions
from models.training.metrics import ndcg, ranks, summary
from models.training.readers import DataError
from models.training.resume import SELECTION, Progress, Resume
from models.training.sampling import clicked, sample_negatives
from models.training.settings import Settings
from safeio.errors import BadInputError

TRAIN_NEGATIVES = 4
TEST_NEGATIVES = 100


class DivergedError(BadInputError):
    """A training whose numbers are no longer finite; repeating it ends in the same way, since it is deterministic."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} not finite: the training has diverged; take a lower --learning-rate or --weight-decay"
        )


@dataclass(frozen=True)
class Cases:
    """Users to be ranked for: histories [U, N], and candidates [U, 1 + negatives] with the positive in column 0."""

    item_ids: np.ndarray
    candidate_ids: np.ndarray


@dataclass(frozen=True)
class Trained:
    """The model with the weights of its best epoch, what was measured, the test cases, and a row for each epoch."""

    model: nn.Module
    best_epoch: int
    metrics: Mapping[str, Mapping[str, float]]
    test: Cases
    log: Sequence[Mapping[str, float]]


Report = Callable[[int, int, str], None]
Score = Callable[[Tensor, Tensor], Tensor]
LossOf = Callable[[np.ndarray], Tensor]
"""Maps indices of samples to the mean loss of these."""
StartEpoch = Callable[[], LossOf]
"""Draws what an epoch draws anew, and returns the loss of its samples."""


def train(
    spec: ModelSpec,
    architecture: Mapping[str, int | str],
    interactions: Interactions,
    settings: Settings,
    report: Report,
    resume: Resume | None = None,
    frozen: Mapping[str, Tensor] | None = None,
) -> Trained:
    """Train, keep the epoch of best validation NDCG@10 and test it; `report` gets batches done, all batches, a note.

    An SCN with a GCN is trained by its corrected scores, as the paper does. Weights in `frozen`, by name, stay as they
    are given. Raises DataError where the data is too small to train on or to test with 100 negatives per user, and
    DivergedError.
    """
    split = split_to_train_on(interactions)
    trained_on = training_positions(interactions, split)
    # Each part has a generator of its own, so that the test does not depend on how long the training was.
    validation = ranking_cases(interactions, split.validation, settings.history, [settings.seed, 1])
    test = ranking_cases(interactions, split.test, settings.history, [settings.seed, 2])
    rng = np.random.default_rng([settings.seed, 3])
    model = _model_to_train(spec, architecture, settings, frozen)
    score: Score = model.corrected if architecture.get("gcn") else model
    start_epoch = _sampled_epochs(score, interactions, split, settings.history, rng)

    def validate() -> float:
        scores = score_cases(score, validation)
        require_finite("the scores of the validation are", [torch.from_numpy(scores)])
        return ndcg(ranks(scores), 10)

    fitted = fit(model, settings, rng, len(split.train), start_epoch, validate, report, resume)
    metrics = {"test": summary(score_cases(model, test)), "validation": summary(score_cases(model, validation))}
    if score is not model:
        metrics["test_corrected"] = summary(score_cases(score, test))
        metrics["validation_corrected"] = summary(score_cases(score, validation))
    metrics["test_by_popularity"] = summary(_popularity(interactions, trained_on, test, settings.seed))
    return Trained(model, fitted.best_epoch, metrics, test, fitted.log)


def _model_to_train(
    spec: ModelSpec, architecture: Mapping[str, int | str], settings: Settings, frozen: Mapping[str, Tensor] | None
) -> Any:
    """Return the model with the seed's weights, of `initial_std` where that is stated, and with `frozen` ones fixed."""
    torch.manual_seed(settings.seed)
    model: Any = spec.build(architecture)
    if settings.initial_std is not None:
        model.reset(settings.initial_std)
    if frozen is not None:
        model.load_state_dict({**model.state_dict(), **frozen})
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name not in frozen)
    return model


def _sampled_epochs(
    score: Score, interactions: Interactions, split: Split, history: int, rng: np.random.Generator
) -> StartEpoch:
    """Return what draws new negatives for all training targets, for `fit`."""
    # Training must not know the held-out clicks, not even by sparing them as negatives.
    excluded = clicked(interactions, training_positions(interactions, split))
    users = interactions.owners[split.train]
    item_ids = histories(interactions, split.train, history)

    def start_epoch() -> LossOf:
        negatives = sample_negatives(rng, excluded, users, TRAIN_NEGATIVES)
        candidate_ids = np.concatenate([interactions.items[split.train][:, None], negatives], axis=1)
        return lambda chosen: _loss(score(torch.from_numpy(item_ids[chosen]), torch.from_numpy(candidate_ids[chosen])))

    return start_epoch


def fit(
    model: nn.Module,
    settings: Settings,
    rng: np.random.Generator,
    samples: int,
    start_epoch: StartEpoch,
    validate: Callable[[], float],
    report: Report,
    resume: Resume | None,
) -> Progress:
    """Train by AdamW, leave the model with the weights of its best epoch, in eval mode, and return how that went.

    An epoch is over `samples` samples in an order drawn anew; `validate` returns NDCG@10, more is better. Goes on where
    `resume` has been saved, and saves it after every epoch. Raises DivergedError before anything is saved that is not
    finite, so that what is saved can be gone on with.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # Fused, since embeddings and mappers have millions of weights: one pass over them per step in place of ten.
    optimiser = torch.optim.AdamW(learned, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    batches = -(-samples // settings.batch_size)
    total = settings.epochs * batches
    progress = resume.load(model, optimiser, rng) if resume else None
    if progress is None:
        progress = Progress(0, -1.0, 0, _weights(model), [])
    else:
        report(progress.epoch * batches, total, f"going on after epoch {progress.epoch}")
    while progress.epoch < settings.epochs and not _patience_is_over(progress, settings.patience):
        started = time.monotonic()
        loss_of = start_epoch()
        losses = []
        for batch_loss in _steps(model, optimiser, loss_of, np.array_split(rng.permutation(samples), batches)):
            losses.append(batch_loss)
            report(progress.epoch * batches + len(losses), total, "")
        loss = torch.stack(losses).mean()
        _require_sound(progress.epoch + 1, loss, model, optimiser)
        model.eval()
        reached = validate()
        _record(progress, float(loss), reached, model, started)
        if resume:
            resume.save(progress, model, optimiser, rng)
        note = f"epoch {progress.epoch}: loss {loss:.4f}, validation {SELECTION} {reached:.4f}"
        report(progress.epoch * batches, total, note)
    model.load_state_dict(progress.best_state)
    model.eval()
    return progress


def _steps(
    model: nn.Module, optimiser: torch.optim.Optimizer, loss_of: LossOf, parts: Iterable[np.ndarray]
) -> Iterator[Tensor]:
    """Take one step for each part of the samples, and yield its loss."""
    model.train()
    for chosen in parts:
        loss = loss_of(chosen)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield loss.detach()


def _record(progress: Progress, loss: float, reached: float, model: nn.Module, started: float) -> None:
    """Count an epoch that began at `started`, keep its weights where it is the best one, and add its row to the log."""
    progress.epoch += 1
    if reached > progress.best:
        progress.best, progress.best_epoch, progress.best_state = reached, progress.epoch, _weights(model)
    seconds = round(time.monotonic() - started, 3)
    progress.log.append({"epoch": progress.epoch, "loss": loss, SELECTION: reached, "seconds": seconds})


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def _require_sound(epoch: int, loss: Tensor, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Raise DivergedError where an epoch ended in numbers that are not finite; the last step may do that to weights."""
    require_finite(f"the loss of epoch {epoch} is", [loss])
    require_finite(f"the weights after epoch {epoch} are", model.state_dict().values())
    averages = (tensor for state in optimiser.state.values() for tensor in state.values())
    require_finite(f"the averages of the optimiser after epoch {epoch} are", averages)


def require_finite(what: str, tensors: Iterable[Tensor]) -> None:
    """Raise DivergedError that begins with `what` where a value is NaN or infinite."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise DivergedError(what)


def _patience_is_over(progress: Progress, patience: int | None) -> bool:
    return patience is not None and progress.epoch - progress.best_epoch >= patience


def split_to_train_on(interactions: Interactions) -> Split:
    """Return the split of data that can be trained on and tested; raises DataError."""
    split = leave_one_out(interactions)
    if not len(split.train) or not len(split.test):
        raise DataError("no user has the four clicks that a training, a validation and a test target need")
    return split


def ranking_cases(interactions: Interactions, targets: np.ndarray, history: int, seed: Sequence[int]) -> Cases:
    """Return one case per target position, with 100 negatives from all that its user never clicked."""
    excluded = clicked(interactions, np.arange(len(interactions.items)))
    rng = np.random.default_rng(seed)
    negatives = sample_negatives(rng, excluded, interactions.owners[targets], TEST_NEGATIVES)
    positives = interactions.items[targets][:, None]
    return Cases(histories(interactions, targets, history), np.concatenate([positives, negatives], axis=1))


def score_cases(score: Score, cases: Cases, batch_size: int = 1024) -> np.ndarray:
    """Return the scores [U, 1 + negatives] of a model in eval mode, or of a part of it, for all cases."""
    scores = []
    with torch.no_grad():
        for start in range(0, len(cases.item_ids), batch_size):
            part = slice(start, start + batch_size)
            batch = torch.from_numpy(cases.item_ids[part]), torch.from_numpy(cases.candidate_ids[part])
            scores.append(score(*batch).numpy())
    return np.concatenate(scores)


def _loss(logits: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits [B, 1 + negatives] with the positive in column 0."""
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    return functional.binary_cross_entropy_with_logits(logits, labels)


def _popularity(interactions: Interactions, trained_on: np.ndarray, cases: Cases, seed: int) -> np.ndarray:
    """Return as scores how often each candidate was clicked in training; ties, which are many, are broken at random."""
    counted = popularity(interactions, trained_on)[cases.candidate_ids]
    return np.asarray(counted + np.random.default_rng([seed, 4]).random(cases.candidate_ids.shape))


def popularity(interactions: Interactions, positions: np.ndarray) -> np.ndarray:
    """Return how often each item [V] was clicked at these positions."""
    return np.bincount(interactions.items[positions], minlength=interactions.vocabulary)
