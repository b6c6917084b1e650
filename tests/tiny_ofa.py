"""A small Forward-OFA with random weights, whose users differ in their structures."""

from pathlib import Path

import numpy as np
import torch

from exporter import pipeline
from models import checkpoint
from models.forward_ofa.programs import SPEC
from models.forward_ofa.supernet import Supernet

BLOCKS, LENGTH, CANDIDATES, CASES = 3, 6, 20, 24
ARCHITECTURE = {"vocabulary": 300, "dimension": 16, "blocks": BLOCKS, "history_length": LENGTH, "backbone": "sasrec"}


def write(folder: Path, **others: str) -> Path:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    architecture = ARCHITECTURE | others
    model = Supernet(**architecture).eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(0, 0.5)
        if model.mapper is not None:
            model.mapper.linear.weight.normal_(0, 0.1)  # so that users' weights differ as much as their histories
    items = rng.integers(1, ARCHITECTURE["vocabulary"], (CASES, LENGTH), dtype=np.int32)
    for row in range(CASES // 2):
        items[row, row % LENGTH + 1 :] = 0
    candidates = np.stack([rng.permutation(ARCHITECTURE["vocabulary"] - 1)[:CANDIDATES] + 1 for _ in items])
    golden = {"item_ids": items, "candidate_ids": candidates.astype(np.int32)}
    with torch.no_grad():
        golden["scores"] = model(*map(torch.from_numpy, golden.values())).numpy()
    config = {"schema_version": 1, "model": "ofa", "architecture": architecture, "history_length": LENGTH}
    return checkpoint.write(folder, {**config, "training": {}, "metrics": {}}, model.state_dict(), golden).folder


def read(folder: Path) -> tuple[Supernet, dict[str, np.ndarray]]:
    """Return the model and its golden arrays."""
    saved = checkpoint.read(folder)
    return checkpoint.build(saved, SPEC), dict(saved.golden)


def structures(model: Supernet, item_ids: np.ndarray) -> list[str]:
    with torch.no_grad():
        return ["".join(map(str, row)) for row in model.structure(torch.from_numpy(item_ids)).int().tolist()]


def scores(model: Supernet, item_ids: np.ndarray, candidate_ids: np.ndarray) -> np.ndarray:
    """Return torch's own scores [U, 1, C], each user with the user's own blocks and weights."""
    with torch.no_grad():
        pairs = zip(torch.from_numpy(item_ids).split(1), torch.from_numpy(candidate_ids).split(1), strict=True)
        return np.stack([model(*pair).numpy() for pair in pairs])


def export(
    folder: Path, output: Path, program: str, target: str = "all", precision: str | None = None, **chosen: str
) -> dict[str, dict]:
    """Export with nothing but the defaults of the command and a precision; return the documents by target."""
    choice = pipeline.ProgramChoice("ofa", program, folder, **chosen)
    request = pipeline.ExportRequest(choice, target, output, precision=precision)
    documents = [result.to_json() for result in pipeline.export(request, lambda _: None)]
    assert not [document["error"] for document in documents if "error" in document]
    return {document["target"]: document for document in documents}
