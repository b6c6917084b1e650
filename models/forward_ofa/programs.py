"""The model `ofa`: its programs on the device and in the cloud, and which sub-network they are for."""

# mypy: allow-subclassing-any

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from models.forward_ofa.answering import STORED, answers
from models.forward_ofa.assembler import CachedSubNetwork, assemble, block_weights
from models.forward_ofa.compared.sttd import FactoredSubNetwork
from models.forward_ofa.controller import choose
from models.forward_ofa.generating import Generator
from models.forward_ofa.packing import package_of
from models.forward_ofa.structures import scores_of
from models.forward_ofa.supernet import Supernet, weight_count
from models.inputs import CACHED_EMBEDDINGS, CANDIDATE_IDS, ITEM_IDS, SCORES, cached_embeddings, histories_only
from models.layers import last_position
from models.spec import Arrays, External, InputSpec, ModelSpec, ProgramSpec, Selection, Served, golden_ids

EXTERNAL_CASES = 16  # each case of `subnet_external` and `mapper` has a whole user's weights, half a megabyte


class ControllerProgram(nn.Module):
    """The program `controller`: all that a device computes before the cloud answers, in one graph."""

    def __init__(self, model: Supernet) -> None:
        super().__init__()
        _, self.interest = model.generating()
        if model.controller is None:
            raise ValueError(f"the method {model.method_name} has no controller: no user chooses; train forward_ofa")
        self.items, self.controller = model.items, model.controller
        self.structure_vector = model.method.structure_vector

    def forward(self, item_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map histories [1, N] to logits [1, L], the structure [1, L] of 0 and 1, and the latent interest [1, D]."""
        x = self.items(item_ids)
        last = last_position(item_ids, x.dtype)
        logits = self.controller(x, last)
        structure = choose(logits)
        return logits, structure, self.interest(x, last, structure if self.structure_vector else None)


class MapperProgram(nn.Module):
    """The program `mapper`: from what a device uploads to the weights that it gets."""

    def __init__(self, model: Supernet) -> None:
        super().__init__()
        self.mapper, _ = model.generating()

    def forward(self, structure: Tensor, latent: Tensor) -> Tensor:
        """Map a structure [1, L] and h [1, D] to packed weights [1, L, P], zero for the blocks that are skipped."""
        return self.mapper(latent) * structure[:, :, None]


def build(architecture: Mapping[str, int | str]) -> Supernet:
    """Return an untrained Forward-OFA; raises TypeError or ValueError for an architecture that is none."""
    return Supernet(**architecture)  # type: ignore[arg-type]  # Supernet itself checks the values


def select(model: nn.Module, golden: Arrays, history: Sequence[int] | None, structure: str | None) -> Selection:
    """Resolve a history and a structure, each as asked for or of a golden user; raises ValueError with one line.

    With neither, the user is the first of those with the most frequent structure; with a structure alone, the first
    whose own it is, or else the first of all.
    """
    supernet = _supernet(model)
    requested = None if structure is None else _parse_structure(structure, len(supernet.backbone.blocks))
    if history is not None:
        clicks = _check_history(supernet, history)
    else:
        own = [tuple(row) for row in _structures(supernet, golden["item_ids"]).astype(int).tolist()]
        sought = requested or Counter(own).most_common(1)[0][0]
        row = golden["item_ids"][own.index(sought) if sought in own else 0]
        clicks = tuple(row[row != 0].tolist())
    item_ids = torch.tensor([_pad(clicks, supernet.history_length)], dtype=torch.int32)
    with torch.no_grad():
        logits: list[float] = []
        if supernet.controller is not None:
            logits = supernet.controller(*supernet.embed_and_mark(item_ids))[0].tolist()
        chosen = supernet.structure(item_ids)[0].int().tolist() if requested is None else requested
    return Selection(tuple(chosen), tuple(logits), clicks)


def selected_weights(model: nn.Module, selection: Selection) -> dict[str, Tensor]:
    """Return the named tensors of a selection's blocks, as the mapper gives them for its history and structure."""
    supernet = _supernet(model)
    return _generated_weights(
        supernet, np.array([_pad(selection.history, supernet.history_length)], np.int32), selection
    )[0]


def _generated_weights(supernet: Supernet, item_ids: np.ndarray, selection: Selection) -> list[dict[str, Tensor]]:
    """Return what each of the histories [U, N] would be sent for the structure of `selection`."""
    with torch.no_grad():
        ids = torch.from_numpy(item_ids)
        structure = torch.tensor([selection.structure]).to(supernet.items.weight).expand(len(ids), -1)
        generated = supernet.generate(ids, structure)
        return [block_weights(supernet.backbone, packed, selection.structure) for packed in generated]


def _subnet(model: nn.Module, selection: Selection | None = None) -> nn.Module:
    supernet, chosen = _supernet(model), _needed(selection)
    weights = selected_weights(model, chosen)
    return assemble(supernet.items, supernet.backbone, chosen.structure, weights, gater=supernet.gater)


def _subnet_with_inputs(model: nn.Module, selection: Selection | None = None) -> nn.Module:
    supernet, chosen = _supernet(model), _needed(selection)
    weights = selected_weights(model, chosen)
    return assemble(supernet.items, supernet.backbone, chosen.structure, weights, "inputs", supernet.gater)


def _factored_subnet(model: nn.Module, selection: Selection | None = None) -> nn.Module:
    supernet, chosen = _supernet(model), _needed(selection)
    if supernet.factors is None:
        raise ValueError("this checkpoint's method keeps no factors; train the method sttd")
    return FactoredSubNetwork(supernet.items, supernet.backbone, chosen.structure, supernet.factors)


def _cached_subnet(model: nn.Module, selection: Selection | None = None) -> nn.Module:
    supernet, chosen = _supernet(model), _needed(selection)
    return CachedSubNetwork(supernet.backbone, chosen.structure, selected_weights(model, chosen), supernet.gater)


def _subnet_cases(model: nn.Module, golden: Arrays, selection: Selection | None = None) -> Arrays:
    return golden_ids(model, _own_first(golden, _needed(selection)))


def _cached_cases(model: nn.Module, golden: Arrays, selection: Selection | None = None) -> Arrays:
    return cached_embeddings(model, _own_first(golden, _needed(selection)))


def _external_cases(model: nn.Module, golden: Arrays, selection: Selection | None = None) -> Arrays:
    """Return the first cases of `_in_order`, with the weights of each user for the selected structure."""
    return _with_weights(model, _in_order(model, golden, selection), slice(EXTERNAL_CASES), selection)


def _further_external_cases(model: nn.Module, golden: Arrays, selection: Selection | None = None) -> Iterator[Arrays]:
    """Yield all cases behind those of `_external_cases`."""
    cases = _in_order(model, golden, selection)
    for start in range(EXTERNAL_CASES, len(cases["item_ids"]), EXTERNAL_CASES):
        yield _with_weights(model, cases, slice(start, start + EXTERNAL_CASES), selection)


def _in_order(model: nn.Module, golden: Arrays, selection: Selection | None) -> Arrays:
    """Return golden ids: the selection's own history, then those whose own structure it has, then all others."""
    supernet, chosen = _supernet(model), _needed(selection)
    cases = _own_first(golden, chosen)
    foreign = (_structures(supernet, cases["item_ids"]) != np.array(chosen.structure)).any(axis=1)
    foreign[0] = False  # the selection's own history stays the first
    order = np.argsort(foreign, kind="stable")
    return {name: cases[name][order] for name in cases}


def _with_weights(model: nn.Module, cases: Arrays, part: slice, selection: Selection | None) -> Arrays:
    """Return a part of some cases with the weights that each user is sent for the selected structure."""
    own = {name: cases[name][part] for name in cases}
    by_user = _generated_weights(_supernet(model), own["item_ids"], _needed(selection))
    weights = {name: np.stack([weights[name].numpy() for weights in by_user]) for name in by_user[0]}
    return {**golden_ids(model, own), **weights}


def _mapper_cases(model: nn.Module, golden: Arrays, _selection: Selection | None = None) -> Arrays:
    """Return what the devices of the first golden users upload."""
    with torch.no_grad():
        uploads = ControllerProgram(_supernet(model))(torch.from_numpy(golden["item_ids"][:EXTERNAL_CASES]))
    return {"structure": uploads[1][:, None].numpy(), "latent": uploads[2][:, None].numpy()}


def _own_first(golden: Arrays, selection: Selection) -> Arrays:
    """Return golden ids that start with the selection's own history, with the first case's candidates if it is new."""
    item_ids, candidate_ids = golden["item_ids"], golden["candidate_ids"]
    own = np.array([_pad(selection.history, item_ids.shape[1])], item_ids.dtype)
    at = np.flatnonzero((item_ids == own).all(axis=1))[:1]
    candidates = candidate_ids[at] if len(at) else candidate_ids[:1]
    return {
        "item_ids": np.concatenate([own, np.delete(item_ids, at, axis=0)]),
        "candidate_ids": np.concatenate([candidates, np.delete(candidate_ids, at, axis=0)]),
    }


def _structures(supernet: Supernet, item_ids: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return np.asarray(supernet.structure(torch.from_numpy(item_ids)).numpy())


def _parse_structure(text: str, blocks: int) -> tuple[int, ...]:
    if len(text) != blocks or set(text) - set("01"):
        raise ValueError(f"structure {text[:80]!r} must be {blocks} digits of 0 and 1, one for each block")
    return tuple(int(digit) for digit in text)


def _check_history(supernet: Supernet, history: Sequence[int]) -> tuple[int, ...]:
    """Return the latest clicks that the model sees; raises ValueError for none and for ids that are no items."""
    if not history:
        raise ValueError("the history is empty; give at least one item id")
    largest = supernet.items.vocabulary - 1
    unknown = [item for item in history if not 1 <= item <= largest]
    if unknown:
        raise ValueError(f"the history holds unknown item ids, {unknown[0]} first; items have ids from 1 to {largest}")
    return tuple(history[-supernet.history_length :])


def _pad(history: Sequence[int], length: int) -> list[int]:
    return [*history, *[0] * (length - len(history))]


def _supernet(model: nn.Module) -> Supernet:
    if not isinstance(model, Supernet):
        raise TypeError(f"{type(model).__name__} is no Supernet")
    return model


def _needed(selection: Selection | None) -> Selection:
    if selection is None:
        raise ValueError("a sub-network is built for a selection; resolve one with ofa's select")
    return selection


def _vector(name: str, size: str, meaning: str) -> InputSpec:
    return InputSpec(name, "float32", lambda architecture, _history, _candidates: (1, int(architecture[size])), meaning)


UPLOAD = (
    _vector("structure", "blocks", "which blocks run: 1 or 0 for each"),
    _vector("latent", "dimension", "the latent interest, a summary of the history without an id in it"),
)


SUBNET = ProgramSpec(
    name="subnet",
    description="Score candidates with the chosen blocks, their generated weights inside",
    runs_on="device",
    inputs=(ITEM_IDS, CANDIDATE_IDS),
    outputs=("scores",),
    ranking="scores",
    output_meanings={"scores": SCORES},
    needs_selection=True,
    build=_subnet,
    cases=_subnet_cases,
)
"""The sub-network; other programs of it differ in where weights and clicks come from."""

SPEC = ModelSpec(
    name="ofa",
    description="Forward-OFA: the blocks that one user needs, with weights generated for that user",
    build=build,
    architecture={"dimension": 64, "blocks": 6, "history_length": 10, "backbone": "sasrec"},
    weights=weight_count,
    select=select,
    scores=scores_of,
    encode=lambda model, item_ids: model.encode(item_ids),
    cloud=lambda model, checkpoint: Generator(_supernet(model), checkpoint),
    package=lambda model, *user: package_of(_supernet(model), *user),
    programs={
        "controller": ProgramSpec(
            name="controller",
            description="Choose the blocks for a history, and summarise it for the cloud",
            runs_on="device",
            inputs=(ITEM_IDS,),
            outputs=("logits", "structure", "latent"),
            output_meanings={
                "logits": "what the controller says of each block: it runs where this is 0 or more",
                **{spec.name: spec.meaning for spec in UPLOAD},
            },
            sends=("structure", "latent"),
            ranking=None,
            build=lambda model, _selection=None: ControllerProgram(_supernet(model)),
            cases=histories_only,
        ),
        "subnet": SUBNET,
        "subnet_external": replace(
            SUBNET,
            name="subnet_external",
            description="Score candidates with the chosen blocks, whose weights come from outside and can be swapped",
            build=_subnet_with_inputs,
            cases=_external_cases,
            further=_further_external_cases,
            external=External(weights=selected_weights, with_parameters=_subnet),
        ),
        "subnet_cached": replace(
            SUBNET,
            name="subnet_cached",
            description="The sub-network on embeddings that the device keeps, so that no catalogue ships",
            inputs=CACHED_EMBEDDINGS,
            build=_cached_subnet,
            cases=_cached_cases,
        ),
        "subnet_factored": replace(
            SUBNET,
            name="subnet_factored",
            description="The sub-network of STTD's factors, from which every call rebuilds the blocks' weights",
            build=_factored_subnet,
        ),
        "mapper": ProgramSpec(
            name="mapper",
            description="Generate the weights of the chosen blocks from what a device uploads",
            runs_on="cloud",
            inputs=UPLOAD,
            outputs=("weights",),
            output_meanings={
                "weights": "the weights of each block, packed one behind the other; 0 for blocks that are skipped"
            },
            sends=("weights",),
            receives=("structure", "latent"),
            ranking=None,
            build=lambda model, _selection=None: MapperProgram(_supernet(model)),
            cases=_mapper_cases,
            served=Served("weights", answers, in_digits=("structure",), stored=STORED),
        ),
    },
    default_program="subnet",
)
