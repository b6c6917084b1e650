"""What programs of several models take in, how it comes from a checkpoint's golden ids, and the program all have."""

import torch

from models.spec import Arrays, InputSpec, ProgramSpec, Selection

UNKNOWN_ITEM = "a row that is not in the table (below 0, or past the last) counts as an item of which nothing is known"
ITEM_IDS = InputSpec(
    "item_ids",
    "int32",
    lambda _architecture, history, _candidates: (1, history),
    meaning="the latest clicks as rows of the item table, oldest first; a shorter history is filled up with 0 on the"
    f" right, a longer one keeps its latest clicks; {UNKNOWN_ITEM}, at its place in the history",
    holds_items=True,
)
CANDIDATE_IDS = InputSpec(
    "candidate_ids",
    "int32",
    lambda _architecture, _history, candidates: (1, candidates),
    meaning="the items to score as rows of the item table, in any order; fill up a shorter list with 0 and leave those"
    f" scores out; {UNKNOWN_ITEM}, and gets the score of such an item",
    holds_items=True,
)
SCORES = (
    "one number for each candidate, in the order of the candidates; the highest is the best, and only the order counts"
)
CACHED_EMBEDDINGS = (
    InputSpec(
        "history_embeddings",
        "float32",
        lambda architecture, history, _candidates: (1, history, _width(architecture)),
        meaning="the item embeddings of the latest clicks, oldest first; rows of zeros fill up a shorter history on the"
        " right, and stand for items that the device does not know",
    ),
    InputSpec(
        "history_length",
        "int32",
        lambda _architecture, _history, _candidates: (1, 1),
        meaning="how many of the rows of history_embeddings are clicks, the padding not among them",
    ),
    InputSpec(
        "candidate_embeddings",
        "float32",
        lambda architecture, _history, candidates: (1, candidates, _width(architecture)),
        meaning="the embeddings of the items to score; fill up a shorter list with zeros and leave those scores out",
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
    output_meanings={"scores": SCORES},
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
