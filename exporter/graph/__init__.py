"""torch.export, and the passes over what it captured, in the order in which they run."""

from exporter.core.types import Arrays, Captured, GraphForm
from exporter.graph import half, ranges
from exporter.graph.rewriting import Pass

PASSES: tuple[Pass, ...] = (
    ranges.PASS,
    half.PASS,
)


def needed(captured: Captured, form: GraphForm, cases: Arrays) -> tuple[Pass, ...]:
    """Return the passes that a program in a form needs, by its golden inputs [cases, ...], in their order."""
    graph_module = captured.exported.module()
    candidates = [step for step in PASSES if form in step.forms]
    return tuple(step for step in candidates if step.is_needed is None or step.is_needed(graph_module, cases))
