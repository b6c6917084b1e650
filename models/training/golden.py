"""The golden.npz of a checkpoint: real histories, candidates, and the scores that torch gives for them."""

import numpy as np
import torch
from torch import nn

from models.checkpoint import POSITIVE
from models.training.evaluation import Cases

CASES = 256
SHORTENED = 64
CANDIDATES = 100


def golden_cases(model: nn.Module, test: Cases, seed: int) -> dict[str, np.ndarray]:
    """Return item_ids [256, N], candidate_ids and scores [256, 100], positive [256, 1]; fewer where fewer users are.

    The first quarter is cut to its latest 1, 2, ... N clicks in turn, so that all lengths occur; the rest is as it was.
    Candidates are the positive and 99 negatives, or as many as the test has, shuffled; `positive` is the column of the
    positive. The model is on the CPU.
    """
    rng = np.random.default_rng([seed, 5])
    chosen = rng.permutation(len(test.item_ids))[:CASES]
    item_ids = test.item_ids[chosen].copy()
    length = item_ids.shape[1]
    for case in range(min(SHORTENED, len(item_ids))):
        clicks = item_ids[case][item_ids[case] != 0][-(case % length + 1) :]
        item_ids[case] = np.pad(clicks, (0, length - len(clicks)))
    candidate_ids = rng.permuted(test.candidate_ids[chosen, :CANDIDATES], axis=1)
    with torch.no_grad():  # one by one, as the exported programs will run them
        pairs = zip(torch.from_numpy(item_ids).split(1), torch.from_numpy(candidate_ids).split(1), strict=True)
        scores = torch.cat([model(*pair) for pair in pairs]).numpy()
    positive = (candidate_ids == test.candidate_ids[chosen, :1]).argmax(axis=1, keepdims=True)
    return {
        "item_ids": item_ids,
        "candidate_ids": candidate_ids,
        "scores": scores,
        POSITIVE: positive.astype(np.int32),
    }
