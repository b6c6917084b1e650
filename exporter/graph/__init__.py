"""torch.export, and the passes over what it captured, in the order in which they run."""

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from exporter.core.errors import LoweringError
from exporter.core.extras import converting, without_noise
from exporter.core.types import Arrays, Captured, GraphForm, PassChoice, PassEffect
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
    simplify,
    spell_out,
    tabulate,
    unroll,
)
from exporter.graph.editing import forget_constants
from exporter.graph.rewriting import GROWTH, Pass, apply, closed, opened

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
    spell_out.PASS,
    ranges.PASS,
    half.PASS,
)
OPTIONAL: tuple[str, ...] = tuple(step.name for step in PASSES if step.is_optional)
"""The passes that make programs smaller and faster; what each target has of them stands in its `passes`."""

LEFT_OUT = "left out by --without-pass"
_IN_PLACE = "the graph changes values in place, and no pass knows who else reads them"
_PROVED_ON = 64


class Proven(NamedTuple):
    """The passes that a program has in a form, in their order, and what each does to it.

    `module` is the graph that was captured, after them; None where another one has to go through them: it was left as
    a pass found it that was then left out, or weights are to be changed.
    """

    passes: tuple[Pass, ...]
    effects: tuple[PassEffect, ...]
    module: "GraphModule | None"

    def rewritten(self, captured: Captured) -> Captured:
        """Return the captured program that was proved after the passes; raises LoweringError as `rewritten` does."""
        if self.module is None or not self.passes:
            return rewritten(captured, self.passes)
        return closed(captured, self.module, [step.name for step in self.passes])


def prove(captured: Captured, form: GraphForm, wanted: PassChoice, cases: Arrays, allowed: float) -> Proven:
    """Return the passes that a program has in a form, and what each does to it.

    Of the optional ones those that are wanted are tried. One after which the program differs from the captured one on
    golden inputs [cases, ...], by more than `allowed` of the largest value or of 1, or that cannot rewrite this graph,
    is not among them, and its effect says so. Up to 64 golden cases are computed for that.
    """
    chosen, effects = [], []
    module = opened(captured, own_weights=False)
    expected, in_place = None, _changes_in_place(module)
    growth = GROWTH[wanted.fold]
    for step in (one if one.growth is None else replace(one, growth=growth) for one in PASSES):
        if form not in step.forms or (step.is_optional and step.name not in wanted.names):
            continue
        if step.is_needed is not None and not step.is_needed(module, cases):
            continue
        if not step.is_optional:  # those of 16 bits come last, and what they do is not fp32's
            chosen.append(step)
            continue
        reason = LEFT_OUT if step.name in wanted.without else _IN_PLACE if in_place else None
        if reason is not None:
            nodes = len(module.graph.nodes)
            effect = PassEffect(step.name, False, None, nodes, nodes, reason)
        else:
            expected = expected or _computed(module, cases)
            effect = _tried(step, module, captured, cases, expected, allowed)
        if effect.applied:
            chosen.append(step)
        effects.append(effect)
    # An optional pass that was undone may have left constants, and those for 16 bits have not run.
    as_proved = all(step.is_optional for step in chosen) and all(effect.reason is None for effect in effects)
    if not as_proved:
        forget_constants(module)
    return Proven(tuple(chosen), tuple(effects), module if as_proved else None)


def _tried(
    step: Pass,
    module: "GraphModule",
    captured: Captured,
    cases: Arrays,
    expected: "dict[str, np.ndarray]",
    allowed: float,
) -> PassEffect:
    """Let a pass rewrite a module, and undo it where the outputs are not as expected; return what it did."""
    with without_noise():
        graph, before = copy.deepcopy(module.graph), len(module.graph.nodes)
    error, reason = None, None
    try:
        places = apply(module, step, captured)
        if places:
            with converting(f"the pass {step.name} makes a graph that cannot be computed"):
                outputs = _computed(module, cases)
            error, reason = _difference(outputs, expected, allowed)
    except LoweringError as failure:  # a graph of a stranger may hold what no pass has met
        places, reason = 0, str(failure)
    applied = reason is None and places > 0
    if not applied:
        module.graph = graph
    return PassEffect(step.name, applied, error, before, len(module.graph.nodes), reason)


def rewritten(captured: Captured, passes: tuple[Pass, ...]) -> Captured:
    """Return a program after passes; raises LoweringError where torch.export cannot trace what came out."""
    if not passes:
        return captured
    module = opened(captured, own_weights=any(step.name == half.PASS.name for step in passes))
    for step in passes:
        apply(module, step, captured)
    return closed(captured, module, [step.name for step in passes])


def _changes_in_place(module: "GraphModule") -> bool:
    """Say whether an operation of a graph writes into what it reads."""
    schemas = (getattr(node.target, "_schema", None) for node in module.graph.nodes)
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _computed(module: "GraphModule", cases: Arrays) -> "dict[str, np.ndarray]":
    """Return the outputs of a graph for the first golden cases, by name."""
    import numpy as np
    import torch

    results: dict[str, list[np.ndarray]] = {}
    with torch.no_grad():
        for case in zip(*(array[:_PROVED_ON] for array in cases.values()), strict=True):
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
