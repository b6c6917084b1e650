"""A model with its weights and one program of it for one selection: captures, golden cases and costs come from here."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.core.errors import BadInputError, CheckpointError, ProfileError, UnknownNameError
from exporter.core.extras import LOWER, require
from exporter.core.types import Arrays, ExternalWeights
from exporter.pipeline import batches, budgets, cases, promises
from exporter.pipeline.exportable import Exportable
from exporter.pipeline.ids import Items
from exporter.pipeline.request import ProgramChoice
from models.spec import require_module
from models.zoo import foreign, load_spec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from exporter.artifact.weights import Package
    from exporter.core.precision import Weights
    from exporter.core.sections import Selection as SelectionSection
    from exporter.core.sections import Source as Origin
    from exporter.pipeline.searching import Search
    from models.checkpoint import Checkpoint
    from models.spec import ModelSpec, ProgramSpec, Selection

PRETRAINED = Path(__file__).resolve().parents[2] / "models" / "pretrained"


@dataclass(frozen=True)
class Source(Exportable):
    """One program of a model with a checkpoint, for one selection where the program has one."""

    model: "nn.Module"
    spec: "ModelSpec"
    checkpoint: "Checkpoint"
    selection: "Selection | None"
    search: "Search | None" = field(default=None, kw_only=True)
    """The structures that were to choose from, where a predictor of latency chose."""

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.checkpoint.model

    @cached_property
    def module(self) -> "nn.Module":
        """Return the program as it computes the golden outputs."""
        built = self.program.build(self.model, self.selection)
        require_module(self.program.name, built)
        return built.eval()

    @cached_property
    def inputs(self) -> Arrays:
        """Return the golden inputs by name, [cases, *shape], each case's weights as a package gives them."""
        return self._as_stored(self.exact_inputs)

    def _as_stored(self, exact: Arrays) -> Arrays:
        """Return inputs with their weights as packages give them."""
        package, own = self.package, self._own_weights
        if package is None or own is None or self.weights == "fp32":
            return exact
        return {**exact, **_through(package, exact, own)}

    @cached_property
    def exact_inputs(self) -> Arrays:
        """Return the golden inputs by name, [cases, *shape], the external weights of each case last."""
        return self.program.cases(self.model, self.checkpoint.golden, self.selection)

    def further_inputs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield what the program's `further` has, exact and through packages; nothing for more than a user a call."""
        if self.program.further is None or self.batch > 1:
            return
        for exact in self.program.further(self.model, self.checkpoint.golden, self.selection):
            yield exact, self._as_stored(exact)

    def _computed(self, inputs: Arrays) -> Arrays:
        """Return what torch computes for each user alone, so that a batch is held to mix none with another."""
        if self.batch == 1:
            return super()._computed(inputs)
        return batches.together(super()._computed(batches.alone(inputs)), self.batch)

    @property
    def origin(self) -> "Origin":
        """Return the checkpoint's hash and the architecture; a checkpoint without a hash is of drawn weights."""
        from exporter.core.sections import Source as Origin

        return Origin(
            checkpoint_sha256=self.checkpoint.sha256,
            untrained=self.checkpoint.sha256 is None,
            architecture=dict(self.checkpoint.architecture),
        )

    @property
    def facts(self) -> "dict[str, object]":
        """Return what tells an artifact from others at its place, as `places.facts_of` does."""
        history = None if self.selection is None else list(self.selection.history)
        ranked = self.program.ranked
        top = None if ranked is None else self.outputs[ranked].shape[-1]
        return {**super().facts, "structure": self.structure or None, "history": history, "top": top}

    @property
    def items_file(self) -> bytes | None:
        """Return the catalogue's ids as the checkpoint has them."""
        return self.checkpoint.items_file

    @property
    def history_length(self) -> int:
        """Return the number of clicks in a golden history."""
        return self.checkpoint.history_length

    @property
    def positive(self) -> "np.ndarray | None":
        """Return the positives of the checkpoint's golden cases, where the program ranks just those candidates."""
        from models.checkpoint import POSITIVE

        columns, ranking = self.checkpoint.golden.get(POSITIVE), self.program.ranking
        if columns is None or ranking is None or self.program.ranked is not None or self.drawn is not None:
            return None
        ranked, stated = self.outputs[ranking], self.checkpoint.golden["scores"]
        # A program whose cases carry weights has some of the checkpoint's cases alone, in another order.
        return columns[:, 0] if (len(ranked), ranked.size) == (len(stated), stated.size) else None

    @property
    def candidates(self) -> int:
        """Return the number of candidates in a golden case."""
        count: int = self.checkpoint.golden["candidate_ids"].shape[1]
        return count

    @cached_property
    def package(self) -> "Package | None":
        """Return a package of the selection's own weights where the program leaves them outside."""
        if self._own_weights is None or self.selection is None:
            return None
        from exporter.artifact.weights import FORMAT, pack

        metadata = {
            "format": FORMAT,
            "backbone": str(self.checkpoint.architecture["backbone"]),
            "structure": self.structure,
        }
        if self.checkpoint.sha256 is not None:
            metadata["checkpoint"] = self.checkpoint.sha256
        return pack(ExternalWeights(self._own_weights, metadata), self.weights)

    @cached_property
    def _own_weights(self) -> Arrays | None:
        """Return the selection's own weights as the model has them, where the program leaves them outside."""
        if self.program.external is None or self.selection is None:
            return None
        tensors = self.program.external.weights(self.model, self.selection)
        return {name: tensor.numpy() for name, tensor in tensors.items()}

    @property
    def reads_history(self) -> bool:
        """Say whether an input has the length of the history."""
        others = (1, 2 * self.history_length)  # the second is a whole number of whatever parts a history has
        taken = [self._examples(other) for other in others if self.takes_history(other)]
        return any(examples[spec.name].shape != spec.shape for examples in taken for spec in self.specs)

    def takes_history(self, length: int) -> bool:
        """Say whether the inputs have shapes for a history of another length."""
        try:
            self._examples(length)
        except (ValueError, BadInputError):
            return False
        return True

    @cached_property
    def _with_own_weights(self) -> "nn.Module":
        """Return the program with the selection's own weights as parameters."""
        external = self.program.external
        return self.module if external is None else external.with_parameters(self.model, self.selection).eval()

    def scores_with_own_weights(self, inputs: Arrays) -> "np.ndarray":
        """Return the ranking output for the cases of `inputs`, all with the selection's own weights."""
        import numpy as np
        import torch

        given = [torch.from_numpy(inputs[spec.name]) for spec in self.program.inputs]
        with torch.no_grad():
            return np.stack([self._with_own_weights(*case).numpy() for case in zip(*given, strict=True)])

    def module_hook_macs(self) -> float | None:
        """Return the MACs per click that module hooks see of the model (CoCorrRec, Table 4).

        None for a model without clicks, and for a program that computes a part of one, for the other side.
        """
        import torch

        from exporter.measure import module_hooks
        from exporter.measure.growth import line

        encode = self.spec.encode
        if encode is None or self.program.sends:
            return None
        found = {}
        for length in {self.history_length, max(self.history_length // 2, 1)}:
            call = partial(encode, self.model, torch.ones(1, length, dtype=torch.int32))
            found[length] = float(module_hooks.count(self.model, call).macs)
        return line(found).per_token if len(found) > 1 else None

    def _examples(self, history: int | None) -> "dict[str, np.ndarray]":
        """Return the first case's inputs, cut to a length of the history or repeated up to it."""
        import numpy as np

        examples = super()._examples(history)
        with foreign(self.name):
            for spec in self.program.inputs:
                shape = spec.sized(self.checkpoint.architecture, history or self.history_length, self.candidates)
                for axis, extent in enumerate(shape):
                    places = np.arange(extent) % examples[spec.name].shape[axis]
                    examples[spec.name] = examples[spec.name].take(places, axis)
        return examples

    def smaller(self) -> "tuple[str, Source] | None":
        """Return the program without the running block of the smallest logit, or what a search has next."""
        if self.search is not None:
            following = self.search.following()
            if following is None:
                return None
            best = following.first
            step = f"trying {best.digits}, which is predicted to take {best.predicted_us:.1f} us"
            return step, replace(self.of_structure(best.structure, following.history), search=following)
        smaller = budgets.leave_out(self.selection)
        return None if smaller is None else (f"leaving out block {smaller[0]}", replace(self, selection=smaller[1]))

    @property
    def structure(self) -> str:
        """Return which blocks run, a digit each; "" for a program without a selection."""
        return "" if self.selection is None else "".join(map(str, self.selection.structure))

    def of_structure(self, structure: Sequence[int], history: Sequence[int] | None = None) -> "Source":
        """Return the program with the blocks of a structure, for these clicks or for the first user whose own it is."""
        digits, select = "".join(map(str, structure)), self.spec.select
        if select is None:
            raise ValueError(f"{self.name} has only one network")
        return replace(self, selection=select(self.model, self.checkpoint.golden, history, digits))

    def selected(self, chosen: Exportable, measured_us: float | None) -> "SelectionSection | None":
        """Say which blocks run, and how the rankings without those that were left out agree with the chosen one's."""
        from exporter.core.sections import Selection
        from exporter.parity import section
        from exporter.pipeline.searching import ndcg10_of

        if not isinstance(chosen, Source) or self.selection is None or chosen.selection is None:
            return None
        agreement, ranking, left_out = None, self.program.ranking, budgets.left_out(chosen.selection, self.selection)
        if self.search is not None:
            left_out = ()  # another structure is no smaller one
        if left_out and ranking is not None:
            scores = [source.scores_with_own_weights(chosen.inputs) for source in (chosen, self)]
            agreement = section.agreement(ranking, *scores)
        return Selection(
            structure=self.structure,
            chosen=chosen.structure,
            logits=tuple(self.selection.logits),
            left_out=left_out,
            agreement_with_chosen=agreement,
            history=tuple(self.selection.history),
            searched=None if self.search is None else self.search.section(measured_us, ndcg10_of(self)),
        )


def _through(package: "Package", exact: Arrays, own: Arrays) -> "dict[str, np.ndarray]":
    """Return the weights of all cases as packages give them, by name.

    Those of a case that has the selection's `own` weights are those of its package to the bit: computed for several
    users at once, a number may be off by a rounding, and that decides between two of int8.
    """
    from exporter.artifact import weights
    from exporter.parity.verdict import are_same_weights

    in_bytes = [name for name in package.names if weights.is_in_int8(package.tensors[name].shape)]
    restored = {name: weights.through_int8(exact[name]) for name in in_bytes}
    cases = range(len(exact[in_bytes[0]]) if in_bytes else 0)
    for case in cases:
        if all(are_same_weights(exact[name][case], tensor, in_half=False) for name, tensor in own.items()):
            for name in in_bytes:
                restored[name][case] = package.tensors[name]
    return restored


def load(
    choice: ProgramChoice,
    history_length: int | None = None,
    candidates: int | None = None,
    top: int | None = None,
    weights: "Weights" = "fp32",
) -> Source:
    """Read the checkpoint and resolve program and selection, with golden cases of these sizes; raises BadInputError.

    `top` is how many of the best items a program gives that finds them itself; None stands for its own number.
    `weights` is what a package of external weights is stored in.
    """
    torch = require("torch", LOWER)
    # These models are too small to share: more threads wait for each other, and others for them.
    torch.set_num_threads(1)
    spec = load_spec(choice.model)
    with foreign(choice.model):
        return _loaded(choice, spec, (history_length, candidates), top, weights)


def _loaded(
    choice: ProgramChoice,
    spec: "ModelSpec",
    sizes: tuple[int | None, int | None],
    top: int | None,
    weights: "Weights",
) -> Source:
    """Return the program of a checkpoint; raises BadInputError, and what a model from elsewhere raises."""
    program = _program(choice, spec)
    if choice.batch > 1:
        program = batches.batched(program, choice.batch)
    if top is not None and program.of_top is not None:
        program = replace(program, build=program.of_top(top))
    if spec.select is None and (choice.history is not None or choice.structure is not None):
        option = "--history" if choice.history is not None else "--structure"
        raise BadInputError(f"{option} chooses a sub-network, and {choice.model} has only one network; leave it out")
    if choice.untrained and choice.checkpoint is not None:
        raise BadInputError("--untrained draws weights and --checkpoint has some; leave one of the two out")
    model, checkpoint = _load_model(choice, spec, *sizes)
    history = None if choice.history is None else items_of(checkpoint).rows("--history", choice.history)
    try:
        selection = _selection(choice, spec, program, model, checkpoint, history)
        # An untrained model's cases have been drawn in these sizes.
        resized, drawn = cases.sized(checkpoint, *sizes)
        source = Source(program, model, spec, resized, selection, drawn=drawn, batch=choice.batch, weights=weights)
        _ = source.module  # a program may want what this checkpoint has not
        promises.check_cases(choice.model, source)
        promises.check_outputs(choice.model, source)
    except ValueError as error:
        raise BadInputError(str(error)) from error
    return source


def items_of(checkpoint: "Checkpoint") -> Items:
    """Return what the items of a checkpoint are called."""
    owner = "an untrained model" if checkpoint.sha256 is None else f"checkpoint {checkpoint.folder}"
    return Items(owner, checkpoint.items, int(checkpoint.architecture["vocabulary"]))


def _load_model(
    choice: ProgramChoice, spec: "ModelSpec", history_length: int | None, candidates: int | None
) -> "tuple[nn.Module, Checkpoint]":
    """Return the model and its checkpoint, drawn or read; sizes that it has not are refused before it is built."""
    from models import checkpoint as checkpoints
    from models.untrained import untrained

    if choice.untrained:
        try:
            return untrained(spec, history_length, candidates)
        except ValueError as error:
            raise ProfileError(f"{error}; ask for fewer in the profile") from error
    try:
        checkpoint = checkpoints.read(folder_of(choice))
        cases.check_sizes(checkpoint, history_length, candidates)
        model = checkpoints.build(checkpoint, spec)
    except checkpoints.CheckpointError as error:
        raise CheckpointError(str(error)) from error
    cases.check_scores(model, checkpoint)
    return model, checkpoint


def folder_of(choice: ProgramChoice) -> Path:
    """Return where the checkpoint is; raises BadInputError where none was given and none ships."""
    folder = choice.checkpoint or PRETRAINED / choice.model
    if choice.checkpoint is None and not folder.exists():
        raise BadInputError(
            f"no trained {choice.model} ships: give --checkpoint DIR, which cocorr-train {choice.model} writes,"
            " or --untrained"
        )
    return folder


def _program(choice: ProgramChoice, spec: "ModelSpec") -> "ProgramSpec":
    name = choice.program or spec.default_program
    if name not in spec.programs:
        raise UnknownNameError(f"program of {choice.model}", name, spec.programs)
    if choice.embeddings == "cached":
        cached = f"{name}_cached"
        if cached not in spec.programs:
            having = [one for one in spec.programs if f"{one}_cached" in spec.programs]
            raise BadInputError(
                f"{choice.model}/{name} has no form with cached embeddings; those that have: {', '.join(having)}"
            )
        name = cached
    return spec.programs[name]


def _selection(
    choice: ProgramChoice,
    spec: "ModelSpec",
    program: "ProgramSpec",
    model: "nn.Module",
    checkpoint: "Checkpoint",
    history: list[int] | None,
) -> "Selection | None":
    """Return the selection that the program is built for, or None where it is the same for all users."""
    if spec.select is None:
        return None
    if program.needs_selection:
        return spec.select(model, checkpoint.golden, history, choice.structure)
    if history is not None or choice.structure is not None:
        option = "--history" if history is not None else "--structure"
        raise BadInputError(f"{option} chooses a sub-network, and {program.name} is the same for all users")
    return None
