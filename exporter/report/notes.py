"""What stands below an artifact's figures in every report: where it ran, and why something is not known."""

from exporter.artifact.manifest import Manifest
from exporter.core.sections import Comparison, Searched
from exporter.report.units import microseconds, needed


def notes(manifest: Manifest) -> list[str]:
    """Return one sentence for each, in the order of the figures."""
    parity = manifest.parity
    notes = [f"ran on {parity.executed_on}"] if parity.executed_on else []
    if manifest.source.untrained:
        notes.append("untrained: weights and histories are drawn, so the rankings say nothing about the model")
    if manifest.drawn is not None:
        notes.append(
            f"{manifest.drawn.as_they_were} of {manifest.drawn.cases} cases as they were: {manifest.drawn.method}"
        )
    if parity.reason:
        notes.append(f"{parity.verdict}: {parity.reason}")
    if manifest.passed_over is not None:
        tried = "; ".join(f"{row.precision} is {row.reason}" for row in manifest.passed_over)
        notes.append(f"precision auto: {manifest.precision}{f', as {tried}' if tried else ', the mildest'}")
    if parity.ranking_reason and parity.ranking_reason != parity.reason:
        notes.append(f"ranking: not judged, {parity.ranking_reason}")
    if manifest.flops is not None and manifest.flops.uncounted:
        listed = ", ".join(f"{row.operation} x{row.count}" for row in manifest.flops.uncounted)
        notes.append(f"not in the FLOPs: {listed}")
    if manifest.any_batch is not None:
        notes.append(
            "a call takes any number of users; figures are of one, and passes, which go by sizes, are left out"
        )
    notes += [f"without the pass {effect.name}: {effect.reason}" for effect in manifest.passes or () if effect.reason]
    return [*notes, *_budget_notes(manifest), *_selection_notes(manifest), *_measuring_notes(manifest)]


def comparison_lines(comparison: Comparison) -> list[str]:
    """Say which of two artifacts is faster, and by how much; nothing where no samples allow it."""
    if comparison.ratio is None or comparison.p50_us is None:
        return []
    first, second = map(microseconds, comparison.p50_us)
    lines = [
        f"{comparison.second} {second} against {comparison.first} {first}",
        f"ratio {comparison.ratio:.3f}, 95 % interval {comparison.low:.3f} to {comparison.high:.3f}",
    ]
    lines += [f"faster: {comparison.faster}"] if comparison.faster else []
    if comparison.executed_on:
        lines.append(f"called on {' and on '.join(dict.fromkeys(comparison.executed_on))}")
    return lines


def _measuring_notes(manifest: Manifest) -> list[str]:
    """Say under what the artifact was timed, and why something could not be measured; a common reason once."""
    notes = []
    if manifest.latency is not None and manifest.latency.conditions:
        conditions = manifest.latency.conditions
        notes.append("timed with " + ", ".join(f"{name} {value}" for name, value in conditions.items()))
    reasons: dict[str, list[str]] = {}
    for name, section in (("memory", manifest.memory), ("latency", manifest.latency)):
        if section is not None and section.reason:
            reasons.setdefault(section.reason, []).append(name)
    return notes + [f"{' and '.join(sections)}: {reason}" for reason, sections in reasons.items()]


def _budget_notes(manifest: Manifest) -> list[str]:
    """Say what budgets allow and what the artifact needs."""
    notes = []
    for row in manifest.budgets or ():
        state = {True: "within budget", False: "over budget", None: f"not known: {row.reason}"}[row.within]
        of = f" ({row.reason})" if row.reason and row.within is not None else ""
        notes.append(f"{row.budget}: {needed(row.budget, row.value, row.limit)}{of}, {state}")
    return notes


def _selection_notes(manifest: Manifest) -> list[str]:
    """Say how a predictor chose the blocks, or which were left out to fit the budgets, and what that cost."""
    selection = manifest.selection
    if selection is not None and selection.searched is not None:
        return _search_notes(selection.searched)
    if selection is None or not selection.left_out:
        return []
    blocks, kind = ", ".join(map(str, selection.left_out)), "block" if len(selection.left_out) == 1 else "blocks"
    agreement = selection.agreement_with_chosen
    pairs = [("top-10 overlap", agreement.top10_overlap), ("Kendall tau", agreement.kendall_tau)] if agreement else []
    figures = [f"{label} {value:.4f}" for label, value in pairs if value is not None]
    left = f"; with what is left {', '.join(figures)}" if figures else ""
    return [f"{selection.chosen} was cut to {selection.structure} to fit, without {kind} {blocks} (from 0){left}"]


def _search_notes(searched: Searched) -> list[str]:
    """Say what a latency predictor had to choose from, and how it did."""
    predicted = f"predicted {searched.predicted_us:.1f} us"
    if searched.measured_us is not None:
        predicted += f", measured {searched.measured_us:.1f} us"
    notes = [
        f"best of {searched.considered} structures, {predicted}; score {searched.score:.4f}: {searched.score_method}"
    ]
    if searched.too_slow:
        notes.append(f"tried before, and too slow: {', '.join(searched.too_slow)}")
    if searched.ndcg10 is not None and searched.ndcg10_of_model is not None:
        told = f"{searched.ndcg10:.4f}, with the model's own choice for each {searched.ndcg10_of_model:.4f}"
        notes.append(f"NDCG@10 of the golden users: {told}")
    return notes
