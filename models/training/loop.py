"""Train a model by binary cross-entropy on one positive and sampled negatives, and measure it by leave-one-out."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from models.training.data import Interactions, Split, histories, training_positions
from models.training.evaluation import (
    CPU,
    Cases,
    Negatives,
    Score,
    popularity_scores,
    ranking_cases,
    score_cases,
    split_to_train_on,
)
from models.training.metrics import ndcg, ranks, summary
from models.training.progress import Report, Watch, after, watching
from models.training.resume import SELECTION, Progress, Resume
from models.training.sampling import clicked, sample_negatives
from models.training.settings import Settings
from safeio.errors import BadInputError


class DivergedError(BadInputError):
    """A training whose numbers are no longer finite; repeating it ends in the same way, since it is deterministic."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} not finite: the training has diverged; take a lower --learning-rate or --weight-decay"
        )


@dataclass(frozen=True)
class Trained:
    """The model with the weights of its best epoch, what was measured, the test cases, and a row for each epoch.

    Also how many negatives there were.
    """

    model: nn.Module
    best_epoch: int
    metrics: Mapping[str, Mapping[str, float]]
    test: Cases
    log: Sequence[Mapping[str, float]]
    negatives: Negatives


LossOf = Callable[[np.ndarray], Tensor]
"""Maps indices of samples to the mean loss of these."""
StartEpoch = Callable[[], LossOf]
"""Draws what an epoch draws anew, and returns the loss of its samples."""


def train(
    model: nn.Module,
    interactions: Interactions,
    settings: Settings,
    report: Report,
    resume: Resume | None = None,
    corrected: bool = False,
    device: torch.device = CPU,
) -> Trained:
    """Train, keep the epoch of best validation NDCG@10 and test it; `report` gets batches done, all batches, a note.

    With `corrected` an SCN is trained by the scores that its GCN corrects, as the paper does. Raises DataError where
    the data is too small to train on or to test, and DivergedError.
    """
    split, negatives = split_to_train_on(interactions)
    report = after(negatives.notes, report)
    trained_on = training_positions(interactions, split)
    # Each part has a generator of its own, so that the test does not depend on how long the training was.
    validation, test = (
        ranking_cases(interactions, targets, settings.history, [settings.seed, part], negatives.test)
        for part, targets in ((1, split.validation), (2, split.test))
    )
    rng = np.random.default_rng([settings.seed, 3])
    scorer: Any = model.to(device)
    score: Score = scorer.corrected if corrected else scorer
    start_epoch = _sampled_epochs(score, interactions, split, settings, negatives.train, rng, device)

    def validate(watch: Watch) -> float:
        scores = score_cases(score, validation, device=device, watch=watch)
        require_finite("the scores of the validation are", [torch.from_numpy(scores)])
        return ndcg(ranks(scores), 10)

    fitted = fit(model, settings, rng, len(split.train), start_epoch, validate, report, resume)
    parts = {"test": (model, test), "validation": (model, validation)}
    if corrected:
        parts |= {"test_corrected": (score, test), "validation_corrected": (score, validation)}
    metrics = {
        part: summary(score_cases(scoring, cases, device=device, watch=watching(report, 1, 1, f"measuring {part}")))
        for part, (scoring, cases) in parts.items()
    }
    metrics["test_by_popularity"] = summary(popularity_scores(interactions, trained_on, test, settings.seed))
    return Trained(model, fitted.best_epoch, metrics, test, fitted.log, negatives)


def _sampled_epochs(
    score: Score,
    interactions: Interactions,
    split: Split,
    settings: Settings,
    negatives: int,
    rng: np.random.Generator,
    device: torch.device,
) -> StartEpoch:
    """Return what draws new negatives for all training targets, for `fit`."""
    # Training must not know the held-out clicks, not even by sparing them as negatives.
    excluded = clicked(interactions, training_positions(interactions, split))
    users = interactions.owners[split.train]
    item_ids = histories(interactions, split.train, settings.history)

    def start_epoch() -> LossOf:
        drawn = sample_negatives(rng, excluded, users, negatives)
        candidate_ids = np.concatenate([interactions.items[split.train][:, None], drawn], axis=1)

        def loss_of(chosen: np.ndarray) -> Tensor:
            return _loss(score(*(torch.from_numpy(ids[chosen]).to(device) for ids in (item_ids, candidate_ids))))

        return loss_of

    return start_epoch


def fit(
    model: nn.Module,
    settings: Settings,
    rng: np.random.Generator,
    samples: int,
    start_epoch: StartEpoch,
    validate: Callable[[Watch], float],
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
        done = (progress.epoch + 1) * batches
        reached = validate(watching(report, done, total, f"validating epoch {progress.epoch + 1}"))
        _record(progress, float(loss), reached, model, started)
        if resume:
            resume.save(progress, model, optimiser, rng)
        note = f"epoch {progress.epoch}: loss {loss:.4f}, validation {SELECTION} {reached:.4f}"
        report(done, total, note)
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


def _loss(logits: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits [B, 1 + negatives] with the positive in column 0."""
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    return functional.binary_cross_entropy_with_logits(logits, labels)
