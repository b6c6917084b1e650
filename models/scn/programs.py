"""The model `scn`: its programs on the device, and that of its GCN in the cloud. carried.py has those with a state."""

# mypy: allow-subclassing-any

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from models.inputs import (
    CACHED_EMBEDDINGS,
    CANDIDATE_IDS,
    ITEM_IDS,
    RERANK,
    SCORES,
    cached_embeddings,
    histories_only,
)
from models.layers import last_of
from models.scn.answering import answers
from models.scn.carried import CHUNK, RERANK_USER, STEP, unrolled
from models.scn.gcn import GCN, Correction, whole_mini_batches
from models.scn.network import SCN, WITHOUT_GCN
from models.spec import Arrays, InputSpec, ModelSpec, ProgramSpec, Selection, Served, golden_ids
from models.topk import by_tower, topk_program


class HiddenState(nn.Module):
    """The program `hidden_state`; it holds only what H needs, so that no other weight gets into its artifact."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.items, self.input_norm = model.items, model.input_norm

    def forward(self, item_ids: Tensor) -> Tensor:
        """Map histories [1, N] to H [1, N, D]."""
        return self.input_norm(self.items(item_ids))


class CachedRerank(nn.Module):
    """The program `rerank_cached`: SCN on embeddings that the device keeps for a session, without the catalogue."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        self.model = model.without("gcn").without("items")

    def forward(self, history_embeddings: Tensor, history_length: Tensor, candidate_embeddings: Tensor) -> Tensor:
        """Map embeddings [1, N, D] of a history, its count of clicks [1, 1] and embeddings [1, C, D] to [1, C]."""
        hidden = self.model.input_norm(history_embeddings)
        last = last_of(history_length.to(hidden.dtype), hidden.shape[1])
        return self.model.score(self.model.user_state(hidden, last), candidate_embeddings)


class Correct(nn.Module):
    """The program `correct`: the cloud's two nets."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        gcn = _gcn(model)
        self.attention, self.bias = gcn.attention, gcn.bias

    def forward(self, hidden_state: Tensor) -> tuple[Tensor, Tensor]:
        """Map a device's H [1, k b, D] to K_A [1, k h, b, b] and K_c [1, k h, b, d]."""
        return self.attention(hidden_state), self.bias(hidden_state)


class CorrectedRerank(nn.Module):
    """The program `rerank_corrected`: SCN with what the cloud sent; P and Q are on the device."""

    def __init__(self, model: SCN) -> None:
        super().__init__()
        gcn = _gcn(model)
        self.model = model.without("gcn")
        self.attention_weight, self.bias_weight = gcn.attention_weight, gcn.bias_weight

    def forward(
        self, item_ids: Tensor, candidate_ids: Tensor, attention_correction: Tensor, bias_correction: Tensor
    ) -> Tensor:
        """Map ids [1, k b] and [1, C], K_A [1, k h, b, b] and K_c [1, k h, b, d] to scores [1, C]."""
        correction = Correction(attention_correction, bias_correction, self.attention_weight, self.bias_weight)
        return self.model.corrected(item_ids, candidate_ids, correction)


def _gcn(model: SCN) -> GCN:
    if model.gcn is None:
        raise ValueError(WITHOUT_GCN)
    return model.gcn


def _hidden(model: SCN, golden: Arrays) -> Tensor:
    """Return H [cases, 1, k b, D] of the golden histories; raises ValueError where a rest fills no mini-batch."""
    whole_mini_batches(golden["item_ids"].shape[1], model.mini_batch)
    return model.hidden_state(torch.from_numpy(golden["item_ids"]))[:, None]


def _correct_cases(model: nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    with torch.no_grad():
        return {"hidden_state": _hidden(model, golden).numpy()}


def _corrected_cases(model: nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return the golden ids and what the GCN sends for each history."""
    correct = Correct(model)
    with torch.no_grad():
        sent = [correct(hidden) for hidden in _hidden(model, golden)]
    parts = zip(CORRECTIONS, zip(*sent, strict=True), strict=True)
    return {**golden_ids(model, golden), **{spec.name: torch.stack(values).numpy() for spec, values in parts}}


def _hidden_shape(architecture: Mapping[str, Any], history: int, _candidates: int) -> tuple[int, ...]:
    count, size = _mini_batches(architecture, history)
    return (1, count * size, int(architecture["dimension"]))


def _attention_shape(architecture: Mapping[str, Any], history: int, _candidates: int) -> tuple[int, ...]:
    count, size = _mini_batches(architecture, history)
    return (1, count * int(architecture["heads"]), size, size)


def _bias_shape(architecture: Mapping[str, Any], history: int, _candidates: int) -> tuple[int, ...]:
    count, size = _mini_batches(architecture, history)
    heads = int(architecture["heads"])
    return (1, count * heads, size, int(architecture["dimension"]) // heads)


def _mini_batches(architecture: Mapping[str, Any], history: int) -> tuple[int, int]:
    """Return k and b of a history of k b clicks; raises ValueError where a rest fills no mini-batch."""
    size = int(architecture["mini_batch"])
    return whole_mini_batches(history, size), size


HIDDEN_STATE = InputSpec(
    "hidden_state",
    "float32",
    _hidden_shape,
    meaning="H, the normalised embeddings of the latest clicks, oldest first: what a device uploads",
)
CORRECTIONS = (
    InputSpec(
        "attention_correction",
        "float32",
        _attention_shape,
        meaning="K_A, what the cloud sends for the products of clicks",
    ),
    InputSpec(
        "bias_correction",
        "float32",
        _bias_shape,
        meaning="K_c, what the cloud sends for the bias of each click",
    ),
)


def build(architecture: Mapping[str, int]) -> SCN:
    """Return an untrained SCN; raises TypeError or ValueError for an architecture that is none."""
    return SCN(**architecture)


SPEC = ModelSpec(
    name="scn",
    description="Self-correction network of CoCorrRec: test-time training on the device, one mini-batch at a time",
    build=build,
    architecture={"dimension": 64, "heads": 4, "mini_batch": 10},
    optional={"gcn": 1},
    programs={
        "rerank": replace(
            RERANK, build=lambda model, _selection=None: model.without("gcn"), cases=unrolled(golden_ids)
        ),
        "rerank_cached": ProgramSpec(
            name="rerank_cached",
            description="Score candidates from embeddings that the device keeps, so that no catalogue ships",
            runs_on="device",
            inputs=CACHED_EMBEDDINGS,
            outputs=("scores",),
            ranking="scores",
            output_meanings={"scores": SCORES},
            build=lambda model, _selection=None: CachedRerank(model),
            cases=unrolled(cached_embeddings),
        ),
        "topk": replace(topk_program(lambda model: by_tower(model.without("gcn"))), cases=unrolled(histories_only)),
        "step": STEP,
        "chunk": CHUNK,
        "rerank_user": RERANK_USER,
        "hidden_state": ProgramSpec(
            name="hidden_state",
            description="Compute H, which the device uploads for a correction by the cloud",
            runs_on="device",
            inputs=(ITEM_IDS,),
            outputs=("hidden_state",),
            sends=("hidden_state",),
            ranking=None,
            output_meanings={"hidden_state": HIDDEN_STATE.meaning},
            build=lambda model, _selection=None: HiddenState(model),
            cases=histories_only,
        ),
        "correct": ProgramSpec(
            name="correct",
            description="Compute the corrections for what a device uploads",
            runs_on="cloud",
            inputs=(HIDDEN_STATE,),
            outputs=tuple(spec.name for spec in CORRECTIONS),
            receives=("hidden_state",),
            sends=tuple(spec.name for spec in CORRECTIONS),
            ranking=None,
            output_meanings={spec.name: spec.meaning for spec in CORRECTIONS},
            build=lambda model, _selection=None: Correct(model),
            cases=_correct_cases,
            served=Served("corrections", answers),
        ),
        "rerank_corrected": ProgramSpec(
            name="rerank_corrected",
            description="Score the candidates for a history with the cloud's corrections",
            runs_on="device",
            inputs=(ITEM_IDS, CANDIDATE_IDS, *CORRECTIONS),
            outputs=("scores",),
            receives=tuple(spec.name for spec in CORRECTIONS),
            ranking="scores",
            output_meanings={"scores": SCORES},
            build=lambda model, _selection=None: CorrectedRerank(model),
            cases=unrolled(_corrected_cases),
        ),
    },
    default_program="rerank",
    encode=lambda model, item_ids: model.encode(item_ids),
)
