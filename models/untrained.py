"""A model without training, for its costs and for parity: weights as its constructor draws them, histories made up."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from models.checkpoint import MAX_SIZE, Checkpoint
from models.layers import ItemEmbedding
from models.spec import ModelSpec, require_module

VOCABULARY = 30_000
"""That of the CoCorrRec paper's Table 4."""
HISTORY_LENGTH, CANDIDATES, CASES = 10, 100, 64
ITEM_STD = 0.5
SEED = 0


def untrained(spec: ModelSpec, history_length: int | None, candidates: int | None) -> tuple[nn.Module, Checkpoint]:
    """Return an untrained model in eval mode and a checkpoint with golden cases for it, which has no sha256.

    All optional parts are there. The cases have 1, 2, ... N clicks in turn. Item embeddings are drawn with a standard
    deviation of 0.5, about that of trained ones, so that scores are far larger than the errors that parity allows.
    Raises ValueError for more candidates than there are items, since those of a case are distinct, and for a history
    longer than any checkpoint's.
    """
    length, count = history_length or HISTORY_LENGTH, candidates or CANDIDATES
    if length > MAX_SIZE:
        raise ValueError(f"history_length: {length} is asked for, the longest history of a model is {MAX_SIZE}")
    if count >= VOCABULARY:
        raise ValueError(f"candidates: {count} are asked for, an untrained model has {VOCABULARY - 1} items")
    architecture = {**spec.sized(VOCABULARY, length), **spec.optional}
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = spec.build(architecture)
        require_module(spec.name, model)
        model.eval()
        for module in model.modules():
            if isinstance(module, ItemEmbedding):
                module.reset(ITEM_STD)
    golden = draw_golden(model, VOCABULARY, length, count)
    config = {"model": spec.name, "architecture": architecture, "history_length": length}
    state = model.state_dict()
    return model, Checkpoint(Path(), spec.name, architecture, config, state, golden, None)


def draw_golden(model: nn.Module, vocabulary: int, length: int, candidates: int) -> dict[str, np.ndarray]:
    """Return golden cases of a model of V rows for drawn histories of 1, 2, ... N clicks in turn, with its scores.

    The candidates of a case are distinct; there must be fewer than V.
    """
    rng = np.random.default_rng(SEED)
    item_ids = rng.integers(1, vocabulary, (CASES, length), dtype=np.int32)
    item_ids[np.arange(length) > np.arange(CASES)[:, None] % length] = 0
    drawn = [rng.choice(vocabulary - 1, candidates, replace=False) + 1 for _ in range(CASES)]
    golden = {"item_ids": item_ids, "candidate_ids": np.array(drawn, np.int32)}
    with torch.no_grad():  # case by case: a long history or list takes its memory once and not for each case
        pairs = zip(*(torch.from_numpy(ids).split(1) for ids in golden.values()), strict=True)
        scores = torch.cat([model(*pair) for pair in pairs]).numpy()
    return {**golden, "scores": scores}
