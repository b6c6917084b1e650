"""What a device can spare: the budgets of a profile, what an artifact needs of them, and which block to leave out."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.spec import Selection

Section = list[dict[str, Any]]

# budget -> section and key of the manifest, None for a key of its own
_FIGURES = {
    "flops_per_token": ("flops", "per_token", "per_token_reason"),
    "parameters": (None, "parameters", None),
    "size_bytes": (None, "size_bytes", None),
    "memory_bytes": ("memory", "planned_activation_bytes", "reason"),
    "latency_us": ("latency", "p50_us", "reason"),
}


def section(stated: Mapping[str, float], manifest: Mapping[str, Any]) -> Section:
    """Return one row per stated budget: its limit, the artifact's value, and whether it is within (null: not known)."""
    rows = []
    for name, limit in stated.items():
        part, key, why = _FIGURES[name]
        figures = manifest if part is None else manifest[part]
        value = figures[key]
        if name == "memory_bytes":
            value = _memory(figures)
        reason = figures[why] if value is None and why is not None else None
        within = None if value is None else value <= limit
        rows.append({"budget": name, "limit": limit, "value": value, "within": within, "reason": reason})
    return rows


def _memory(figures: Mapping[str, Any]) -> int | None:
    """Return constants and planned activations in bytes, or what the artifact added to the peak of an empty runtime."""
    constants: int | None = figures["constant_bytes"]
    activations: int | None = figures["planned_activation_bytes"]
    if constants is not None and activations is not None:
        return constants + activations
    peak: int | None = figures["peak_rss_bytes"]
    baseline: int | None = figures["baseline_rss_bytes"]
    return None if peak is None or baseline is None else peak - baseline


def over(rows: Section) -> bool:
    """Say whether a budget is known to be exceeded."""
    return any(row["within"] is False for row in rows)


def explain(rows: Section) -> str:
    """Return in words which budgets are exceeded, and by what."""
    return "over budget: " + ", ".join(
        f"{row['budget']} {row['value']:,.6g} of {row['limit']:,.6g}" for row in rows if row["within"] is False
    )


def leave_out(selection: "Selection | None") -> "tuple[int, Selection] | None":
    """Return the running block with the smallest logit and the selection without it; None where there is none to name.

    The weights of the others are generated for the structure that remains, as those of any structure are.
    """
    if selection is None or not selection.logits:
        return None
    running = [block for block, runs in enumerate(selection.structure) if runs]
    if not running:
        return None
    block = min(running, key=lambda block: selection.logits[block])
    structure = tuple(0 if at == block else runs for at, runs in enumerate(selection.structure))
    return block, replace(selection, structure=structure)
