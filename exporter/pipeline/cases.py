"""The golden cases of a checkpoint: brought to the sizes that a profile asks for, and held against the weights."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from exporter.core.errors import CheckpointError, ProfileError
from exporter.core.sections import Drawn

if TYPE_CHECKING:
    from torch import nn

    from models.checkpoint import Checkpoint

MAX_DRAWN_CANDIDATES = 5_000
_MOST_DRAWN = 64 * MAX_DRAWN_CANDIDATES
"""Candidates of all cases together: where lists get so long that they would be more, the first cases are kept."""
_SEED = 0
_BATCH = 16


def check_sizes(checkpoint: "Checkpoint", history_length: int | None, candidates: int | None) -> None:
    """Raise ProfileError for sizes that the golden cases have not and cannot be given, and say why."""
    history, held = (checkpoint.golden[name].shape[1] for name in ("item_ids", "candidate_ids"))
    room, items = checkpoint.architecture.get("history_length"), checkpoint.architecture["vocabulary"] - 1
    if history_length is not None and history_length > history:
        if room is not None and history_length > room:
            raise ProfileError(
                f"history_length: the profile asks for {history_length}, and this {checkpoint.model} takes {room}"
                " at most: it has learned nothing of the positions behind them; ask for that or fewer, or train it"
                f" with --history {history_length}"
            )
        if not checkpoint.golden["item_ids"].any():
            raise ProfileError(
                f"history_length: the profile asks for {history_length}, and the golden histories of"
                f" {checkpoint.folder} have no click to make them longer with; ask for {history} or fewer"
            )
    if candidates is not None and candidates > held:
        most, why = items, f"{checkpoint.folder} has {items} items"
        if items > MAX_DRAWN_CANDIDATES:
            most, why = MAX_DRAWN_CANDIDATES, f"lists are drawn of up to {MAX_DRAWN_CANDIDATES}"
        if candidates > max(most, held):
            raise ProfileError(
                f"candidates: the profile asks for {candidates}, and {why}; ask for {max(most, held)} or fewer"
            )


def sized(
    checkpoint: "Checkpoint", history_length: int | None, candidates: int | None
) -> "tuple[Checkpoint, Drawn | None]":
    """Return the checkpoint with golden cases of these sizes, and what was drawn for them, None for nothing.

    Shorter histories are the latest clicks, shorter lists the first candidates. The golden scores are not those of the
    new cases. `check_sizes` has said that the sizes can be had.
    """
    item_ids, candidate_ids = (checkpoint.golden[name] for name in ("item_ids", "candidate_ids"))
    clicks, held = item_ids.shape[1], candidate_ids.shape[1]
    history_length, candidates = history_length or clicks, candidates or held
    rng = np.random.default_rng(_SEED)
    kept, methods = len(item_ids), []
    if candidates > held:
        kept = min(kept, max(1, _MOST_DRAWN // candidates))
    as_they_were = kept
    candidate_ids = candidate_ids[:kept, :candidates]
    if history_length < clicks:
        item_ids = _latest(item_ids, history_length)
    elif history_length > clicks:
        item_ids = _longer(item_ids[:kept], history_length, rng)
        as_they_were = -(-kept // 2)
        methods.append(
            f"{kept - as_they_were} of {kept} histories have clicks of the golden histories before them in front of"
            " their own"
        )
    if candidates > held:
        candidate_ids = _more(candidate_ids, candidates, checkpoint.architecture["vocabulary"], rng)
        as_they_were = 0
        methods.append(f"{candidates - held} of the {candidates} candidates of each case are drawn from the catalogue")
    golden = {**checkpoint.golden, "item_ids": item_ids[:kept], "candidate_ids": candidate_ids}
    resized = replace(checkpoint, config={**checkpoint.config, "history_length": history_length}, golden=golden)
    method = f"{'; '.join(methods)}; seed {_SEED}; torch scored them"
    return resized, Drawn(kept, as_they_were, method) if methods else None


def _latest(item_ids: np.ndarray, length: int) -> np.ndarray:
    """Return the latest clicks [cases, length] of histories [cases, N], length < N, which are padded on the right."""
    end = ((item_ids != 0) * np.arange(1, item_ids.shape[1] + 1)).max(1)
    start = np.maximum(end - length, 0)
    latest: np.ndarray = np.take_along_axis(item_ids, start[:, None] + np.arange(length), 1)
    return latest


def _longer(item_ids: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return histories [cases, length] for [cases, N], N < length: every second one as it was, with more padding.

    The others have more than N clicks, every second of them `length`: what all golden histories have one after the
    other, round the end, up to and with the case's own.
    """
    cases, held = item_ids.shape
    own = (item_ids != 0).sum(1)
    clicks, end = item_ids[item_ids != 0], own.cumsum()
    longer = np.zeros((cases, length), item_ids.dtype)
    longer[::2, :held] = item_ids[::2]
    sizes = rng.integers(held + 1, length + 1, cases)
    sizes[1::4] = length
    for case in range(1, cases, 2):
        longer[case, : sizes[case]] = clicks[np.arange(end[case] - sizes[case], end[case]) % len(clicks)]
    return longer


def _more(candidate_ids: np.ndarray, count: int, vocabulary: int, rng: np.random.Generator) -> np.ndarray:
    """Return lists [cases, count] that begin with those of [cases, C], C < count; all ids of a list are distinct."""
    cases, held = candidate_ids.shape
    more = np.empty((cases, count), candidate_ids.dtype)
    more[:, :held] = candidate_ids
    for row in more:
        # those that are missing, and as many more as the list has, which may be the same
        drawn = rng.choice(vocabulary - 1, count, replace=False) + 1
        row[held:] = drawn[~np.isin(drawn, row[:held])][: count - held]
    return more


def check_scores(model: "nn.Module", checkpoint: "Checkpoint") -> None:
    """Compute the golden scores with the whole model; raises CheckpointError where those of the file are stale."""
    import torch

    from exporter.parity.verdict import golden_scores_off

    golden = checkpoint.golden
    with torch.no_grad():
        pairs = (torch.from_numpy(golden[name]).split(_BATCH) for name in ("item_ids", "candidate_ids"))
        scores = torch.cat([model(*pair) for pair in zip(*pairs, strict=True)]).numpy()
    off = golden_scores_off(golden["scores"], scores)
    if off is not None:
        raise CheckpointError(
            f"{checkpoint.folder}: golden.npz is stale: its 'scores' differ from what the weights give by up to"
            f" {off:.3g}; write the checkpoint again"
        )
