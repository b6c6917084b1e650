"""The models as a reader of their papers writes them in torch, with the weights of this tool's own: see `plain`.

Layers are torch's own (nn.Embedding, nn.Linear, nn.LayerNorm, nn.GRU), products are matmul and einsum, every position
is computed, and the last valid one is picked at the end. Nothing here knows of a target or of a pass.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from exporter.core.types import Arrays
from exporter.pipeline.source import Source
from plain import din, gru4rec, mamba4rec, ofa, sasrec, scn

WRITTEN: Mapping[str, Callable[[nn.Module], nn.Module]] = {
    "scn": scn.plain,
    "sasrec": sasrec.plain,
    "gru4rec": gru4rec.plain,
    "din": din.plain,
    "mamba4rec": mamba4rec.plain,
    "ofa": ofa.plain,
}
"""A model's default program in plain torch, by the name of the model: each takes that program with its weights."""

AGREE = 1e-4


def plain(source: Source) -> nn.Module:
    """Return the plain module of a model's default program, with its weights, in eval mode.

    Raises AssertionError where its scores are more than 1e-4 from the program's own for a golden case, or for ids that
    are not in the table, no click, one click or a full history.
    """
    module = WRITTEN[source.name](source.module).eval()
    cases = with_odd_ids(source.inputs, source.checkpoint.architecture["vocabulary"])
    error = difference(module, source.module, cases)
    assert error <= AGREE, f"plain {source.name} is {error:.2g} from the tool's own"
    return module


def difference(first: nn.Module, second: nn.Module, cases: Arrays) -> float:
    """Return the largest difference of two modules' scores for cases [cases, 1, ...] of inputs, one after the other."""
    with torch.no_grad():
        rows = zip(*(torch.from_numpy(array) for array in cases.values()), strict=True)
        return max(float((first(*row) - second(*row)).abs().max()) for row in rows)


def with_odd_ids(cases: Arrays, vocabulary: int) -> Arrays:
    """Return cases with four more behind them: no click, one, all there can be, and ids below 0 and past the table."""
    history, candidates = cases["item_ids"], cases["candidate_ids"]
    odd = np.zeros((4, *history.shape[1:]), history.dtype)
    odd[1, :, 0] = odd[2] = vocabulary - 1
    odd[3] = np.resize([1, -1, vocabulary, -(2**31), 2**31 - 1], history.shape[2])
    strange = np.repeat(candidates[:1], 4, 0)
    strange[3, :, :3] = [0, -5, vocabulary]
    return {"item_ids": np.concatenate([history, odd]), "candidate_ids": np.concatenate([candidates, strange])}
