"""What a device can spare: the budgets of a profile, what an artifact needs of them, and which block to leave out."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.core.precision import Fold
    from exporter.core.sections import Budget, Memory
    from exporter.core.types import BudgetName
    from models.spec import Selection


def section(limits: "Mapping[BudgetName, float]", manifest: "Manifest") -> "tuple[Budget, ...]":
    """Return one row per stated budget: its limit, the artifact's value, and whether it is within (None: not known).

    A time that was not taken by the runtime on this host says where, as the reason.
    """
    from exporter.core.sections import Budget

    needs = _needs(manifest)
    rows = []
    for name, limit in limits.items():
        value, reason = needs[name]
        within = None if value is None else value <= limit
        rows.append(Budget(name, limit, value, within, reason if value is None else _elsewhere(name, manifest)))
    return tuple(rows)


def _needs(manifest: "Manifest") -> "dict[BudgetName, tuple[float | None, str | None]]":
    """Return for each budget what the artifact needs, and why that is not known."""
    flops, memory, latency = manifest.flops, manifest.memory, manifest.latency
    return {
        "flops_per_token": (flops.per_token, flops.per_token_reason) if flops else (None, None),
        "parameters": (manifest.parameters, None),
        "size_bytes": (manifest.size_bytes, None),
        "memory_bytes": (_memory(memory), memory.reason) if memory else (None, None),
        "latency_us": (latency.p50_us, latency.reason) if latency else (None, None),
    }


def _elsewhere(name: "BudgetName", manifest: "Manifest") -> str | None:
    """Say over which connection a time was taken, None for this host and for what is no time."""
    place = None if manifest.latency is None else manifest.latency.connection
    return None if name != "latency_us" or place in (None, "host") else f"timed over {place}"


def _memory(memory: "Memory") -> int | None:
    """Return constants and planned activations in bytes, or what the artifact added to the peak of an empty runtime."""
    if memory.constant_bytes is not None and memory.planned_activation_bytes is not None:
        return memory.constant_bytes + memory.planned_activation_bytes
    return memory.artifact_rss_bytes


def over(rows: "Sequence[Budget]") -> bool:
    """Say whether a budget is known to be exceeded."""
    return any(row.within is False for row in rows)


def milder_fold(manifest: "Manifest") -> "Fold | None":
    """Return how rows are to be folded where an artifact is too large with what it has in its tables, else None."""
    applied = any(effect.applied and effect.name == "fold_rows" for effect in manifest.passes or ())
    if not applied or manifest.fold is None or not is_too_large(manifest):
        return None
    milder: Mapping[Fold, Fold] = {"all": "double", "double": "same_size", "same_size": "none"}
    return milder.get(manifest.fold.used)


def is_too_large(manifest: "Manifest") -> bool:
    """Say whether an artifact is known to exceed its budget of size or of memory."""
    return over([row for row in manifest.budgets or () if row.budget in ("size_bytes", "memory_bytes")])


def explain(rows: "Sequence[Budget]") -> str:
    """Return in words which budgets are exceeded, and by what."""
    from exporter.report.units import needed

    return "over budget: " + ", ".join(
        f"{row.budget} {needed(row.budget, row.value, row.limit)}" + (f" ({row.reason})" if row.reason else "")
        for row in rows
        if row.within is False
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


def left_out(chosen: "Selection", running: "Selection") -> tuple[int, ...]:
    """Return the blocks that run of `chosen` alone, in the order in which `leave_out` takes them."""
    pairs = enumerate(zip(chosen.structure, running.structure, strict=True))
    blocks = [block for block, (ran, runs) in pairs if ran and not runs]
    return tuple(sorted(blocks, key=lambda block: chosen.logits[block])) if chosen.logits else tuple(blocks)
