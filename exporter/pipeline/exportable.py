"""What can be exported: a program with its golden cases, whether it comes from a checkpoint or from somewhere else."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Self

from exporter.core.errors import LoweringError
from exporter.core.types import Arrays, Captured, ExternalWeights, GraphForm, PassChoice, StoredTable, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from exporter.artifact.weights import Package
    from exporter.core.precision import Weights
    from exporter.core.sections import Drawn
    from exporter.core.sections import Selection as SelectionSection
    from exporter.core.sections import Source as Origin
    from exporter.graph import Proofs, Proven, Twin
    from models.spec import ProgramSpec

NO_PASSES = PassChoice()


@dataclass(frozen=True)
class Exportable(ABC):
    """One program: its module, its golden inputs, and where it comes from; everything is computed when it is asked for.

    Frozen, with its parts computed once: what is made of it is made of the same weights and cases.
    """

    program: "ProgramSpec"
    drawn: "Drawn | None" = field(default=None, kw_only=True)
    """What was drawn to give the golden cases their sizes, None where they are as they were."""
    batch: int = field(default=1, kw_only=True)
    """How many users a call takes, on the first axis of every input."""
    weights: "Weights" = field(default="fp32", kw_only=True)
    """What a package of external weights is stored in."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Return the name of the model, the first part of an artifact's place."""

    @property
    @abstractmethod
    def module(self) -> "nn.Module":
        """Return the program as it computes the golden outputs, in eval mode."""

    @property
    @abstractmethod
    def inputs(self) -> Arrays:
        """Return the golden inputs by name, [cases, *shape], the external weights of each case last.

        Those are what a package as it is stored gives, and `exact_inputs` has them as they were.
        """

    @property
    def exact_inputs(self) -> Arrays:
        """Return the golden inputs with external weights as the model has them."""
        return self.inputs

    def further_inputs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Yield inputs of golden cases that are not kept, some at a time: as they were, and as packages give them."""
        yield from ()

    @property
    @abstractmethod
    def origin(self) -> "Origin":
        """Return what the manifest says of where the weights come from, without versions."""

    @property
    def facts(self) -> dict[str, object]:
        """Return what tells an artifact from others at its place, as `places.facts_of` does."""
        origin = self.origin
        return {
            "model": self.name,
            "program": self.program.name,
            "weights": "untrained" if origin.untrained else "trained",
            "checkpoint": origin.checkpoint_sha256,
            "program file": origin.program_sha256,
            "history length": self.history_length,
            "candidates": self.candidates,
            "batch": self.batch,
        }

    @property
    def items_file(self) -> bytes | None:
        """Return the file with the ids of the catalogue's items, None where nobody knows them."""
        return None

    @property
    def positive(self) -> "np.ndarray | None":
        """Return which candidate of each golden case was clicked next, [cases]; None where nobody knows."""
        return None

    @property
    def history_length(self) -> int | None:
        """Return the number of clicks in a history, None where nobody says which input is one."""
        return None

    @property
    def candidates(self) -> int | None:
        """Return the number of candidates, None where nobody says which input has them."""
        return None

    @property
    def package(self) -> "Package | None":
        """Return the weights that the program leaves outside, as they cross the network; None for none."""
        return None

    @property
    def external(self) -> ExternalWeights | None:
        """Return the weights that the program leaves outside, as its package gives them; None for none."""
        package = self.package
        return None if package is None else ExternalWeights(package.tensors, package.metadata)

    @property
    def stored_weights(self) -> tuple[StoredTable, ...]:
        """Return what is stored in int8 of a package, and what that changes in the golden inputs."""
        from exporter.artifact import weights

        if self.package is None or self.weights == "fp32":
            return ()
        exact = {name: self.exact_inputs[name] for name in self.package.names}
        return weights.costs(exact, self.inputs)

    @property
    def reads_history(self) -> bool:
        """Say whether the program can be captured for histories of other lengths."""
        return False

    def takes_history(self, length: int) -> bool:
        """Say whether it can be captured for histories of `length` clicks."""
        return False

    def storing(self, weights: "Weights") -> Self:
        """Return the program with a package of its external weights stored so; itself where nothing changes."""
        return self if weights == self.weights or self.package is None else replace(self, weights=weights)

    def smaller(self) -> "tuple[str, Self] | None":
        """Say what is tried next where the program costs too much, and return that; None where there is nothing."""
        return None

    def selected(self, chosen: "Exportable", measured_us: float | None) -> "SelectionSection | None":
        """Say which blocks run of those of `chosen`, where a program has blocks, and what a call then takes."""
        return None

    @cached_property
    def outputs(self) -> Arrays:
        """Return what torch computes for the exact golden inputs, case by case, as [cases, *shape] by name."""
        return self._computed(self.exact_inputs)

    def further_outputs(self, twin: "Twin") -> tuple[Arrays, Arrays]:
        """Return torch's outputs for further golden cases, in fp32 and those of a `twin`; empty without any."""
        exact, stored = [], []
        for inputs, restored in self.further_inputs():
            exact.append(self._computed(inputs))
            stored.append(twin.computed(restored))
        return _joined(exact), _joined(stored)

    def _computed(self, inputs: Arrays) -> Arrays:
        """Return what torch computes for cases [cases, *shape], one after the other."""
        import numpy as np
        import torch

        results: dict[str, list[np.ndarray]] = {output: [] for output in self.program.outputs}
        with torch.no_grad():
            for case in zip(*(torch.from_numpy(array) for array in inputs.values()), strict=True):
                values = self.module(*case)
                values = values if isinstance(values, tuple) else (values,)
                for output, value in zip(self.program.outputs, values, strict=True):
                    results[output].append(value.numpy())
        return {output: np.stack(values) for output, values in results.items()}

    @property
    def parameters(self) -> int:
        """Return how many weights the program needs, the item table and external ones among them."""
        inside: int = sum(parameter.numel() for parameter in self.module.parameters())
        return inside + sum(tensor.size for tensor in (self.external.tensors.values() if self.external else ()))

    @cached_property
    def specs(self) -> tuple[TensorSpec, ...]:
        """Return the inputs of one case, external weights last."""
        return tuple(TensorSpec(name, array.shape[1:], array.dtype.name) for name, array in self.inputs.items())

    def captured(
        self,
        weights: Literal["inputs", "parameters"],
        form: GraphForm,
        wanted: PassChoice = NO_PASSES,
        history: int | None = None,
        any_batch: bool = False,
    ) -> Captured:
        """Return the captured program in the form asked for, with external weights as inputs or as parameters.

        `wanted` are the optional passes; `history` is another length than that of the golden cases, for a program that
        reads one. With `any_batch`, what runs in the cloud takes any number of users, without passes, where it can.
        """
        any_batch = any_batch and self.program.runs_on == "cloud" and self.batch == 1 and self.external is None
        key = weights if self.external else "inputs", form, wanted, history, any_batch
        if key not in self._captures:
            self._captures[key] = self._capture(*key)
        return self._captures[key]

    def twin(self, form: GraphForm, wanted: PassChoice) -> "Twin":
        """Return what the program gives in fp32 with its tables as `wanted` stores them, for the golden inputs."""
        return self._proofs.twin(self._proven(form, wanted).passes)

    @cached_property
    def _captures(self) -> "dict[tuple[str, GraphForm, PassChoice, int | None, bool], Captured]":
        return {}

    def _capture(
        self,
        weights: Literal["inputs", "parameters"],
        form: GraphForm,
        wanted: PassChoice,
        history: int | None,
        any_batch: bool,
    ) -> Captured:
        from exporter import graph

        proven = self._proven(form, wanted)
        if any_batch and all(step.is_optional for step in proven.passes):
            free = self._for_any_batch(history)
            if free is not None:
                return free
        if (weights, history) == ("inputs", None):
            after = self._proofs.rewritten(proven.passes)
        else:
            after = graph.rewritten(self._plain(weights, history), proven.passes)
        return replace(after, passes=proven.effects)

    def _proven(self, form: GraphForm, wanted: PassChoice) -> "Proven":
        if (form, wanted) not in self._proved:  # golden cases have one length, and external weights as inputs
            self._proved[form, wanted] = self._proofs.prove(form, wanted)
        return self._proved[form, wanted]

    @cached_property
    def _proved(self) -> "dict[tuple[GraphForm, PassChoice], Proven]":
        return {}

    @cached_property
    def _proofs(self) -> "Proofs":
        """What passes do to the program, tried once for all targets."""
        from exporter.graph import Proofs
        from exporter.parity.verdict import PASS_ERROR

        return Proofs(self._plain("inputs", None), self.inputs, PASS_ERROR)

    def _plain(self, weights: Literal["inputs", "parameters"], history: int | None) -> Captured:
        """Return the program as torch.export captures it, before any pass."""
        from exporter.graph.capture import capture

        key = weights, history
        if key not in self._plain_captures:
            module, examples = self.module, self._examples(history)
            if weights == "parameters" and self.external is not None:
                module = self._with_own_weights
                examples = {name: array for name, array in examples.items() if name not in self.external.tensors}
            captured = capture(self.name, self.program.name, module, examples, self.program.outputs)
            self._plain_captures[key] = replace(captured, external=self.external)
        return self._plain_captures[key]

    def _for_any_batch(self, history: int | None) -> Captured | None:
        """Return the program for any number of users, None where its graph is of one, or torch mixes several."""
        from exporter.graph.capture import for_any_batch

        if history not in self._any_batch_captures:
            try:
                captured = for_any_batch(self._plain("inputs", history), self.module)
                self._any_batch_captures[history] = captured if self._keeps_users_apart else None
            except LoweringError:
                self._any_batch_captures[history] = None
        return self._any_batch_captures[history]

    @cached_property
    def _keeps_users_apart(self) -> bool:
        """Say whether torch gives each of the golden users in one call what it gives for it alone."""
        import numpy as np
        import torch

        from exporter.parity.verdict import are_as_alone

        cases = len(next(iter(self.inputs.values())))
        rows = np.arange(max(2, cases)) % cases
        with torch.no_grad():
            given = self.module(*(torch.from_numpy(array[rows, 0]) for array in self.inputs.values()))
        values = (given,) if isinstance(given, torch.Tensor) else given
        alone = (array[rows] for array in self.outputs.values())
        return all(are_as_alone(value.numpy()[:, None], own) for value, own in zip(values, alone, strict=True))

    @cached_property
    def _any_batch_captures(self) -> "dict[int | None, Captured | None]":
        return {}

    @cached_property
    def _plain_captures(self) -> dict[tuple[str, int | None], Captured]:
        return {}

    @property
    def _with_own_weights(self) -> "nn.Module":
        """Return the program with its external weights as parameters."""
        return self.module

    def _examples(self, history: int | None) -> "dict[str, np.ndarray]":
        """Return the first case's inputs, for a history of another length where one is asked for."""
        return {name: array[0] for name, array in self.inputs.items()}


def _joined(parts: Sequence[Arrays]) -> Arrays:
    """Return arrays by name, those of all parts after each other; none without a part."""
    import numpy as np

    return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
