"""torch.export, and the passes over what it captured, in the order in which they run."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from exporter.core.errors import LoweringError
from exporter.core.extras import converting, without_noise
from exporter.core.types import Arrays, Captured, GraphForm, PassChoice, PassEffect, StoredTable
from exporter.graph import (
    absorb,
    cut,
    fold_rows,
    gemm,
    half,
    ranges,
    recognise,
    reorder,
    rms_norm,
    select_early,
    shuffle,
    simplify,
    spell_out,
    tabulate,
    unroll,
)
from exporter.graph.editing import made_bytes
from exporter.graph.quantise import QUANTISE, STORED
from exporter.graph.rewriting import GROWTH, Pass, apply, closed, copied, opened

if TYPE_CHECKING:
    import numpy as np
    from torch.fx import GraphModule

PASSES: tuple[Pass, ...] = (
    recognise.PASS,
    rms_norm.PASS,
    unroll.PASS,
    simplify.PASS,
    absorb.PASS,
    reorder.PASS,
    fold_rows.PASS,
    select_early.PASS,
    tabulate.PASS,
    cut.PASS,
    gemm.PASS,
    shuffle.PASS,
    spell_out.PASS,
    ranges.PASS,
    half.PASS,
)
OPTIONAL: tuple[str, ...] = tuple(step.name for step in PASSES if step.is_optional)
"""The passes that make programs smaller and faster; what each target has of them stands in its `passes`."""

LEFT_OUT = "left out by --without-pass"
_IN_PLACE = "the graph changes values in place, and no pass knows who else reads them"
_PROVED_ON = 64
_KEPT_BYTES = 16 << 20
"""Constants that passes made of up to so many bytes are kept where another list of passes may go on from there."""


class Proven(NamedTuple):
    """The passes that a program has in a form, in their order, and what each does to it."""

    passes: tuple[Pass, ...]
    effects: tuple[PassEffect, ...]


class Twin(NamedTuple):
    """A program in fp32 with its tables as they are stored: what it gives for the golden inputs, and its tables.

    `computed` gives its outputs for other cases.
    """

    outputs: Arrays
    stored: tuple[StoredTable, ...]
    computed: Callable[[Arrays], Arrays]


class _Tried(NamedTuple):
    """What a pass did to a graph, and the graph after it; None where it is not applied, or too large to be kept."""

    effect: PassEffect
    module: "GraphModule | None"


class Proofs:
    """What passes do to one captured program, on golden inputs [cases, ...]; each sequence of them is tried once.

    Targets' lists have most passes in common, and one that finds nothing to rewrite makes no other sequence. A pass
    after which the program differs from the captured one, by more than `allowed` of the largest value or of 1, or that
    cannot rewrite this graph, is not applied, and its effect says so. Up to 64 golden cases are computed for that.
    """

    def __init__(self, captured: Captured, cases: Arrays, allowed: float) -> None:
        self._captured, self._cases, self._allowed = captured, cases, allowed
        self._tried: dict[tuple[Pass, ...], _Tried] = {}
        self._closed: dict[tuple[Pass, ...], Captured] = {}
        self._twins: dict[tuple[Pass, ...], Twin] = {}
        self._stored: dict[tuple[Pass, ...], GraphModule] = {}

    def prove(self, form: GraphForm, wanted: PassChoice) -> Proven:
        """Return the passes that the program has in a form; of the optional ones those that are wanted are tried."""
        chosen: tuple[Pass, ...] = ()
        others, effects = [], []
        growth = GROWTH[wanted.fold]
        for step in (one if one.growth is None else replace(one, growth=growth) for one in PASSES):
            if form not in step.forms or (step.is_optional and step.name not in wanted.names):
                continue
            if step.is_needed is not None and not step.is_needed(self._after(chosen), self._cases):
                continue
            if not step.is_optional:  # those of 16 bits come last, and what they do is not fp32's
                others.append(step)
                continue
            reason = LEFT_OUT if step.name in wanted.without else _IN_PLACE if self._changes_in_place else None
            if reason is None:
                effect = self._effect(chosen, step)
            else:
                nodes = len(self._after(chosen).graph.nodes)
                effect = PassEffect(step.name, False, None, nodes, nodes, reason)
            if effect.applied:
                chosen = (*chosen, step)
            effects.append(effect)
        if wanted.tables in QUANTISE:
            others.insert(0, QUANTISE[wanted.tables])
        return Proven((*chosen, *others), tuple(effects))

    def rewritten(self, passes: tuple[Pass, ...]) -> Captured:
        """Return the captured program after passes that were proved; raises LoweringError as `rewritten` does."""
        if not passes:
            return self._captured
        if passes not in self._closed:
            if passes not in self._tried and passes[-1] not in QUANTISE.values():
                return rewritten(self._captured, passes)
            self._closed[passes] = closed(self._captured, self._after(passes), [step.name for step in passes])
        return self._closed[passes]

    def twin(self, passes: tuple[Pass, ...]) -> Twin:
        """Return what a program with stored tables gives in fp32, for all golden inputs; raises LoweringError.

        `passes` are proved ones, with that of a scheme among them.
        """
        at = next(at for at, step in enumerate(passes) if step in QUANTISE.values())
        quantised = passes[: at + 1]
        if quantised not in self._twins:
            after = self._after(quantised)

            def computed(cases: Arrays) -> Arrays:
                named = f"{self._captured.model}/{self._captured.program}"
                with converting(f"{named} cannot be computed with stored tables"):
                    return _computed(after, cases, None)

            self._twins[quantised] = Twin(computed(self._cases), after.meta[STORED], computed)
        return self._twins[quantised]

    @cached_property
    def _module(self) -> "GraphModule":
        return opened(self._captured, own_weights=False)

    @cached_property
    def _changes_in_place(self) -> bool:
        """Say whether an operation of the graph writes into what it reads."""
        schemas = (getattr(node.target, "_schema", None) for node in self._module.graph.nodes)
        return any(schema is not None and schema.is_mutable for schema in schemas)

    @cached_property
    def _expected(self) -> "dict[str, np.ndarray]":
        return _computed(self._module, self._cases)

    def _after(self, passes: tuple[Pass, ...]) -> "GraphModule":
        """Return the graph after passes that were applied; it stays as it is."""
        if not passes:
            return self._module
        module = self._tried[passes].module if passes in self._tried else self._stored.get(passes)
        if module is None:
            module = copied(self._after(passes[:-1]))
            apply(module, passes[-1], self._captured)
            if passes not in self._tried:
                self._stored = {passes: module}  # of a large table, one stored form is enough to hold
        return module

    def _effect(self, before: tuple[Pass, ...], step: Pass) -> PassEffect:
        """Return what a pass does to the graph after other passes."""
        passes = (*before, step)
        if passes not in self._tried:
            self._tried[passes] = self._try(self._after(before), step)
            made = self._tried[before].module if before and self._tried[passes].effect.applied else None
            if made is not None and made_bytes(made) > _KEPT_BYTES:
                self._tried[before] = self._tried[before]._replace(module=None)
        return self._tried[passes].effect

    def _try(self, before: "GraphModule", step: Pass) -> _Tried:
        """Let a pass rewrite a copy of a graph, and see whether the outputs are as expected."""
        with without_noise():
            module, nodes = copied(before), len(before.graph.nodes)
        error, reason = None, None
        try:
            places = apply(module, step, self._captured)
            if places:
                with converting(f"the pass {step.name} makes a graph that cannot be computed"):
                    outputs = _computed(module, self._cases)
                error, reason = _difference(outputs, self._expected, self._allowed)
        except LoweringError as failure:  # a graph of a stranger may hold what no pass has met
            places, reason = 0, str(failure)
        applied = reason is None and places > 0
        after = len(module.graph.nodes) if applied else nodes
        return _Tried(PassEffect(step.name, applied, error, nodes, after, reason), module if applied else None)


def rewritten(captured: Captured, passes: tuple[Pass, ...]) -> Captured:
    """Return a program after passes; raises LoweringError where torch.export cannot trace what came out."""
    if not passes:
        return captured
    module = opened(captured, own_weights=any(step.name == half.PASS.name for step in passes))
    for step in passes:
        apply(module, step, captured)
    return closed(captured, module, [step.name for step in passes])


def _computed(module: "GraphModule", cases: Arrays, most: int | None = _PROVED_ON) -> "dict[str, np.ndarray]":
    """Return the outputs of a graph for the first golden cases, or all, by name."""
    import numpy as np
    import torch

    results: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for case in zip(*(array[:most] for array in cases.values()), strict=True):
            tensors = {name: torch.from_numpy(array.copy()) for name, array in zip(cases, case, strict=True)}
            for name, value in module(**tensors).items():
                results.setdefault(name, []).append(value.numpy())
    return {name: np.stack(values) for name, values in results.items()}


def _difference(
    outputs: "dict[str, np.ndarray]", expected: "dict[str, np.ndarray]", allowed: float
) -> tuple[float | None, str | None]:
    """Return the largest difference of two results, None where it is no number, and why it is too large, if it is."""
    import numpy as np

    largest, reason = 0.0, None
    for name, values in expected.items():
        difference = float(np.abs(outputs[name].astype(np.float64) - values).max(initial=0.0))
        largest = float(np.maximum(largest, difference))  # which NaN stays
        if not difference <= allowed * max(1.0, float(np.abs(values).max(initial=0.0))):
            reason = f"its {name!r} differ by {difference:.2g} on golden inputs"
    return largest if np.isfinite(largest) else None, reason
