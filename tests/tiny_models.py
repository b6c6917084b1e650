"""Small checkpoints of CoCorrRec's models, with weights that are random everywhere, norms and biases too."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from models import checkpoint
from models.zoo import load_spec

VOCABULARY, LENGTH, CANDIDATES, CASES = 120, 6, 16, 14
SIZES = {
    "scn": {"dimension": 16, "heads": 2, "mini_batch": LENGTH, "gcn": 1},
    "din": {"dimension": 16},
    "gru4rec": {"dimension": 16},
    "sasrec": {"dimension": 16, "heads": 2, "history_length": LENGTH},
    "bert4rec": {"dimension": 16, "heads": 2, "blocks": 2, "history_length": LENGTH},
    "mamba4rec": {"dimension": 16, "blocks": 2, "state": 6},
}


def build(name: str, **sizes: int) -> nn.Module:
    """Return a model of random weights; `sizes` are other ones than those above."""
    model = load_spec(name).build({"vocabulary": VOCABULARY, **SIZES[name], **sizes}).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.3
            keeps = "norm" in parameter_name or parameter_name.endswith(("A_log", ".D"))
            # Where SCN's scale of a mini-batch's last token is not above zero, nothing goes over the border behind it.
            noise = noise.abs() if parameter_name == "token_scale_offset" else noise
            parameter.copy_(parameter + noise if keeps else noise)
        model.items.weight[0] = 0
    return model


def golden(model: nn.Module, length: int = LENGTH) -> dict[str, np.ndarray]:
    """Return histories of all lengths, distinct candidates and the model's scores."""
    rng = np.random.default_rng(0)
    item_ids = rng.integers(1, VOCABULARY, (CASES, length), dtype=np.int32)
    item_ids[np.arange(length) > np.arange(CASES)[:, None]] = 0
    candidate_ids = np.array([rng.choice(VOCABULARY - 1, CANDIDATES, replace=False) + 1 for _ in item_ids], np.int32)
    with torch.no_grad():
        scores = model(torch.from_numpy(item_ids), torch.from_numpy(candidate_ids)).numpy()
    return {"item_ids": item_ids, "candidate_ids": candidate_ids, "scores": scores}


def write(name: str, folder: Path, length: int = LENGTH, model: nn.Module | None = None, **sizes: int) -> Path:
    """Write a checkpoint for histories of `length` clicks, of random weights or of those of `model`."""
    model = model or build(name, **sizes)
    architecture = {"vocabulary": VOCABULARY, **SIZES[name], **sizes}
    config = {"schema_version": 1, "model": name, "architecture": architecture, "history_length": length}
    config |= {"training": {}, "metrics": {}}
    return checkpoint.write(folder, config, model.state_dict(), golden(model, length)).folder
