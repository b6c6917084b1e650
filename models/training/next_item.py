"""Train Forward-OFA and the methods it is compared with on the next item, and rank the test item among all items.

The loss is the cross-entropy over all items plus lambda times the compact constraint (eqs. 10-12). A sample is one
target and the clicks before it: a user's weights must not be generated from the click that they are to predict.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.forward_ofa.compared.rare_gem import Masks
from models.forward_ofa.supernet import Supernet
from models.training.data import Interactions, Split, histories, training_positions
from models.training.evaluation import CPU, popularity, ranking_cases, split_to_train_on
from models.training.loop import DivergedError, LossOf, Trained, fit, require_finite
from models.training.metrics import by_rank, ndcg
from models.training.progress import Report, Watch, after, unwatched, watching
from models.training.resume import Resume
from models.training.settings import NextItem, Settings, SettingsError
from models.training.sub_networks import sub_networks

VALIDATION_USERS = 4000
RANKING_BATCH = 256


def train(
    model: Supernet,
    interactions: Interactions,
    settings: Settings,
    options: NextItem,
    report: Report,
    resume: Resume | None = None,
    device: torch.device = CPU,
    is_trained: bool = False,
) -> Trained:
    """Train, keep the epoch of best validation NDCG@10 and test it with its weights rounded to fp16, as they ship.

    Validation is on VALIDATION_USERS drawn users, the test on all; ranks are among all items, clicked ones too.
    What users fine-tune is trained as DeviceRec, or not at all where it `is_trained`, and tested before and after that.
    Raises DataError where the data is too small, and DivergedError.
    """
    split, negatives = split_to_train_on(interactions, sampled=False)
    report = after(negatives.notes, report)
    test = ranking_cases(interactions, split.test, settings.history, [settings.seed, 2], negatives.test)
    draw = np.random.default_rng([settings.seed, 1])
    validation = np.sort(draw.permutation(split.validation)[:VALIDATION_USERS])
    rng = np.random.default_rng([settings.seed, 3])
    model.dropout.p = options.dropout
    steps, model.steps = model.steps, 0
    model.masks = _masks(model, options, settings.epochs)
    model.to(device)
    owners = interactions.owners[split.train]

    def start_epoch() -> LossOf:
        if model.masks is not None:
            model.masks.start_epoch()
        drawn = split.train[_some(rng, owners, options.targets_per_user)]
        item_ids = histories(interactions, drawn, settings.history)
        targets = torch.from_numpy(interactions.items[drawn].astype(np.int64))
        return lambda chosen: loss(
            model, torch.from_numpy(item_ids[chosen]).to(device), targets[chosen].to(device), options
        )

    samples = len(_some(rng, owners, options.targets_per_user))
    validate = partial(_validate, model, interactions, validation)
    fitted = None if is_trained else fit(model, settings, rng, samples, start_epoch, validate, report, resume)
    _settle(model.eval())
    model.load_state_dict(_rounded(model))
    before = {"test_before": by_rank(full_ranks(model, interactions, split.test))} if steps else {}
    model.steps = steps
    metrics = {
        "test": by_rank(full_ranks(model, interactions, split.test, watching(report, 1, 1, "measuring test"))),
        **before,
        "validation": by_rank(full_ranks(model, interactions, validation)),
        "test_by_popularity": by_rank(_popularity_ranks(interactions, split, settings.seed)),
        "sub_networks": sub_networks(model, histories(interactions, split.test, settings.history)),
    }
    best_epoch, log = (fitted.best_epoch, fitted.log) if fitted else (0, [])
    return Trained(model, best_epoch, metrics, test, log, negatives)


def _masks(model: Supernet, options: NextItem, epochs: int) -> Masks | None:
    """Return the masks that a Rare Gem is trained under; raises SettingsError where there is no epoch for a part."""
    if options.sparsity is None:
        return None
    if epochs < 2:
        raise SettingsError("--method rare_gem finds a mask and then trains under it: give --epochs 2 or more")
    return Masks(model.backbone.shapes, len(model.backbone.blocks), options.sparsity, epochs)


def _settle(model: Supernet) -> None:
    """Leave zeros in the weights where masks do not keep them, and no masks."""
    if model.masks is not None:
        with torch.no_grad():
            model.own_weights.copy_(model.masks(model.own_weights))
        model.masks = None


def _validate(model: Supernet, interactions: Interactions, targets: np.ndarray, watch: Watch) -> float:
    """Return NDCG@10 of the items at target positions among all items; raises DivergedError."""
    require_finite("the weights, rounded to the 16 bits in which they ship, are", _rounded(model).values())
    rank, finite = _full_ranks(model, interactions, targets, watch)
    if not finite:
        raise DivergedError("the scores of the validation are")
    return ndcg(rank, 10)


def loss(model: Supernet, item_ids: Tensor, targets: Tensor, options: NextItem) -> Tensor:
    """Return cross-entropy + lambda * sum_l -log alpha_l1 for histories [B, N] and next items [B].

    For a gated network the second term is lambda times the share of gates that are open.
    """
    # Generating and applying half a megabyte of weights per sample is most of the work; in bf16 it takes half the time.
    with torch.autocast(item_ids.device.type, torch.bfloat16):
        user, cost = model.sample_user_state(item_ids, options.temperature)
    logits = user.float() @ model.items.weight[1:].T  # [B, V - 1]: padding is no item
    return functional.cross_entropy(logits, targets - 1) + options.compactness * cost


def full_ranks(
    model: Supernet, interactions: Interactions, targets: np.ndarray, watch: Watch = unwatched
) -> np.ndarray:
    """Return the 0-based ranks [U] of the items at target positions among all items; a tie or NaN counts against."""
    return _full_ranks(model, interactions, targets, watch)[0]


def _full_ranks(
    model: Supernet, interactions: Interactions, targets: np.ndarray, watch: Watch
) -> tuple[np.ndarray, bool]:
    """Return the ranks, and whether all scores are finite."""
    ranks, finite, device = [], True, model.items.weight.device
    for number, part in enumerate(_batches(targets)):
        watch(number * RANKING_BATCH, len(targets))
        item_ids = torch.from_numpy(histories(interactions, part, model.history_length)).to(device)
        target = torch.from_numpy(interactions.items[part].astype(np.int64)).to(device)[:, None] - 1
        with torch.no_grad():
            scores = model.user_state(item_ids, model.structure(item_ids)) @ model.items.weight[1:].T
        ranks.append((~(scores < scores.gather(1, target))).sum(1) - 1)  # itself is not below itself
        finite &= bool(torch.isfinite(scores).all())
    return np.asarray(torch.cat(ranks).cpu().numpy()), finite


def _rounded(model: Supernet) -> dict[str, Tensor]:
    """Return a model's weights as they are after they were written in fp16."""
    return {name: tensor.half().float() for name, tensor in model.state_dict().items()}


def _some(rng: np.random.Generator, owners: np.ndarray, most: int | None) -> np.ndarray:
    """Return indices of up to `most` drawn entries of each owner in `owners`, which is sorted; all for None."""
    if most is None:
        return np.arange(len(owners))
    order = np.lexsort((rng.random(len(owners)), owners))
    first = np.searchsorted(owners, owners)  # where each owner's entries begin
    return np.sort(order[np.arange(len(owners)) - first < most])


def _batches(rows: np.ndarray) -> Sequence[np.ndarray]:
    return [rows[start : start + RANKING_BATCH] for start in range(0, len(rows), RANKING_BATCH)]


def _popularity_ranks(interactions: Interactions, split: Split, seed: int) -> np.ndarray:
    """Return the ranks [U] of the test items where items are ordered by how often they were trained on."""
    clicks = popularity(interactions, training_positions(interactions, split))
    noise = np.random.default_rng([seed, 4]).random(len(clicks))  # breaks ties
    order = np.argsort(-(clicks + noise)[1:])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return np.asarray(rank[interactions.items[split.test] - 1])
