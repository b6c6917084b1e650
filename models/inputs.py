"""What programs of several models take in, how it comes from a checkpoint's golden ids, and the program all have."""

import torch

from models.spec import Arrays, InputSpec, ProgramSpec, Selection

ITEM_IDS = InputSpec("item_ids", "int32", lambda _architecture, history, _candidates: (1, history))
CANDIDATE_IDS = InputSpec("candidate_ids", "int32", lambda _architecture, _history, candidates: (1, candidates))
CACHED_EMBEDDINGS = (
    InputSpec(
        "history_embeddings", "float32", lambda architecture, history, _candidates: (1, history, _width(architecture))
    ),
    InputSpec("history_length", "int32", lambda _architecture, _history, _candidates: (1, 1)),
    InputSpec(
        "candidate_embeddings",
        "float32",
        lambda architecture, _history, candidates: (1, candidates, _width(architecture)),
    ),
)
"""What replaces both kinds of ids where no catalogue ships: embeddings, zero where padded, and the count of clicks."""

RERANK = ProgramSpec(
    name="rerank",
    description="Score the candidates for a history",
    runs_on="device",
    inputs=(ITEM_IDS, CANDIDATE_IDS),
    outputs=("scores",),
    ranking="scores",
    build=lambda model, _selection=None: model,
)
"""The model itself."""


def _width(architecture: Arrays) -> int:
    return int(architecture["dimension"])


def histories_only(_model: torch.nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return item_ids [cases, 1, N]."""
    return {"item_ids": golden["item_ids"][:, None]}


def cached_embeddings(model: torch.nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return the CACHED_EMBEDDINGS of all cases, looked up in `model.items`."""
    with torch.no_grad():
        history, candidates = (
            model.items(torch.from_numpy(golden[name][:, None])).numpy() for name in ("item_ids", "candidate_ids")
        )
    length = (golden["item_ids"] != 0).sum(-1, dtype="int32")[:, None, None]
    return {"history_embeddings": history, "history_length": length, "candidate_embeddings": candidates}
