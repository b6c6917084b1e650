"""The figures that a gate holds: what each counts, which way is better, and how much it may move by default.

All are stable: the same checkpoint, code and versions give them again on any machine, but for instructions, which hang
on the processor that chooses the kernels, and are compared only where that is the same.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from exporter.artifact.manifest import Manifest

Kind = Literal["bytes", "count", "share"]

INSTRUCTIONS = "instructions"
LATENCY = "latency"
IDENTITIES = ("checkpoint", "precision")
"""What an artifact is made of, which the baseline names and which is the same or not."""
_SHARE_DIGITS = 6


@dataclass(frozen=True)
class Figure:
    """One figure: `unit` is what it is in, `default` how far it may move from the baseline, None where it may freely.

    `read` takes it from a manifest, None where that has none. What is not `in_lock` differs between machines, so that
    only a limit of its own can hold it.
    """

    name: str
    kind: Kind
    unit: str
    lower_is_better: bool
    default: str | None
    read: Callable[[Manifest], float | None]
    in_lock: bool = True


def _memory(manifest: Manifest) -> float | None:
    """Return constants and planned activations: what was measured of a process is no stable figure."""
    memory = manifest.memory
    if memory is None or memory.constant_bytes is None or memory.planned_activation_bytes is None:
        return None
    return memory.constant_bytes + memory.planned_activation_bytes


def _overlap(manifest: Manifest) -> float | None:
    """Return the top-10 overlap with torch in fp32, whatever tables are stored in."""
    parity = manifest.parity
    return _share(parity.top10_overlap if parity.scheme is None else parity.scheme.top10_overlap)


def _tau(manifest: Manifest) -> float | None:
    parity = manifest.parity
    return _share(parity.kendall_tau if parity.scheme is None else parity.scheme.kendall_tau)


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, _SHARE_DIGITS)


def _per_token(manifest: Manifest) -> float | None:
    value = None if manifest.flops is None else manifest.flops.per_token
    return None if value is None else round(value, 3)


FIGURES: dict[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure("size", "bytes", "B", True, "+2%", lambda m: m.size_bytes),
        Figure("memory", "bytes", "B", True, "+2%", _memory),
        Figure("parameters", "count", "weights", True, None, lambda m: m.parameters),
        Figure("flops", "count", "FLOPs", True, "0", lambda m: None if m.flops is None else m.flops.total),
        Figure("flops_per_token", "count", "FLOPs", True, "0", _per_token),
        # What has no formula would take its FLOPs out of the sum, which would look like a gain.
        Figure(
            "uncounted",
            "count",
            "operations",
            True,
            "0",
            lambda m: None if m.flops is None else sum(row.count for row in m.flops.uncounted),
        ),
        Figure("top10_overlap", "share", "", False, "-0.001", _overlap),
        Figure("kendall_tau", "share", "", False, "-0.001", _tau),
        Figure("max_abs_error", "share", "", True, None, lambda m: m.parity.max_abs_error, in_lock=False),
        # Counted beside the artifact, where something here can count them.
        Figure(INSTRUCTIONS, "count", "instructions", True, "+1%", lambda _: None, in_lock=False),
    )
}
