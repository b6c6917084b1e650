"""What the models that ship and their programs are, for lists of them: a SPEC says the same, and needs torch to say it.

A test holds the two equal.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ListedProgram:
    """Where a program runs and what it does, as in its ProgramSpec."""

    runs_on: str
    description: str


@dataclass(frozen=True)
class ListedModel:
    """What a model is and which programs it has, as in its ModelSpec."""

    description: str
    programs: Mapping[str, ListedProgram]


def _device(description: str) -> ListedProgram:
    return ListedProgram("device", description)


def _cloud(description: str) -> ListedProgram:
    return ListedProgram("cloud", description)


_RERANK = {"rerank": _device("Score the candidates for a history")}
_TOPK = {"topk": _device("Find the best items of the whole catalogue for a history")}
_STEP = {"step": _device("Take in one click and score the candidates; the state comes in and goes out")}

SHIPPED: Mapping[str, ListedModel] = {
    "scn": ListedModel(
        "Self-correction network of CoCorrRec: test-time training on the device, one mini-batch at a time",
        {
            **_RERANK,
            "rerank_cached": _device(
                "Score candidates from embeddings that the device keeps, so that no catalogue ships"
            ),
            **_TOPK,
            **_STEP,
            "chunk": _device(
                "Take in up to a mini-batch of clicks; the state comes in and goes out, with the user's vector"
            ),
            "rerank_user": _device("Score the candidates for a user's vector"),
            "hidden_state": _device("Compute H, which the device uploads for a correction by the cloud"),
            "correct": _cloud("Compute the corrections for what a device uploads"),
            "rerank_corrected": _device("Score the candidates for a history with the cloud's corrections"),
        },
    ),
    "ofa": ListedModel(
        "Forward-OFA: the blocks that one user needs, with weights generated for that user",
        {
            "controller": _device("Choose the blocks for a history, and summarise it for the cloud"),
            "subnet": _device("Score candidates with the chosen blocks, their generated weights inside"),
            "subnet_external": _device(
                "Score candidates with the chosen blocks, whose weights come from outside and can be swapped"
            ),
            "subnet_cached": _device("The sub-network on embeddings that the device keeps, so that no catalogue ships"),
            "subnet_factored": _device(
                "The sub-network of STTD's factors, from which every call rebuilds the blocks' weights"
            ),
            "mapper": _cloud("Generate the weights of the chosen blocks from what a device uploads"),
        },
    ),
    "din": ListedModel("DIN: each candidate attends to the clicks for itself", _RERANK),
    "gru4rec": ListedModel("GRU4Rec: a recurrent network over the clicks", _RERANK | _TOPK | _STEP),
    "sasrec": ListedModel("SASRec as CoCorrRec has it: one transformer layer over the clicks", _RERANK | _TOPK),
    "bert4rec": ListedModel("BERT4Rec: transformer blocks over the clicks, in both directions", _RERANK | _TOPK),
    "mamba4rec": ListedModel(
        "Mamba4Rec: blocks of a selective state-space model over the clicks", _RERANK | _TOPK | _STEP
    ),
    "recbole-sasrec": ListedModel(
        "SASRec as RecBole has it: causal transformer blocks over the clicks", _RERANK | _TOPK
    ),
    "recbole-gru4rec": ListedModel(
        "GRU4Rec as RecBole has it: recurrent layers over the clicks", _RERANK | _TOPK | _STEP
    ),
}
