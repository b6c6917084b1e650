"""FLOPs of sub-networks by their blocks, for structures of which no artifact is made."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from exporter.measure import flops
from exporter.pipeline import lengths
from exporter.pipeline.lengths import Lowering, Report
from exporter.targets import TARGETS, reading
from safeio.staging import scratch

if TYPE_CHECKING:
    from exporter.pipeline.source import Source


def of_blocks(
    of_artifacts: Mapping[str, int | None],
    source_of: "Callable[[str], Source]",
    lowering: Lowering,
    report: Report,
) -> dict[str, int | None]:
    """Return what a `block` costs and the `base` that all else does, from FLOPs of artifacts by their structures.

    The last block computes for one click only, and all others cost the same, so that FLOPs lie on a line in the number
    of blocks from 1 on. Where those of artifacts are too few to see that, programs of other structures are lowered and
    counted as well; where they are not on a line, both are None.
    """
    counted = {structure: number for structure, number in of_artifacts.items() if "1" in structure}
    if not counted:
        return {"base": None, "block": None}
    commonest = next(iter(counted))
    length, blocks = len(commonest), commonest.count("1")
    others = {commonest[::-1]}
    if all(structure.count("1") == blocks for structure in counted):
        others.add("1" * length if blocks < length else "1" + "0" * (length - 1))
    for structure in sorted(others - set(counted)):
        report(f"structure {structure}: lowering, for its FLOPs")
        counted[structure] = _counted(source_of(structure), lowering, report)
    return _line({structure: number for structure, number in counted.items() if number is not None})


def _counted(source: "Source", lowering: Lowering, report: Report) -> int:
    with scratch("fleet") as folder:
        _, model_file, _ = lengths.lower(source, lowering, folder, report)
        return flops.count(reading.read(TARGETS[lowering.target], model_file).operations).total


def _line(counted: Mapping[str, int]) -> dict[str, int | None]:
    """Return the line on which the FLOPs of structures lie in their numbers of blocks, None where they do not."""
    points = {structure.count("1"): number for structure, number in counted.items()}
    if len(points) > 1:
        (few, least), (many, most) = min(points.items()), max(points.items())
        block = (most - least) // (many - few)
        base = least - few * block
        if all(number == base + structure.count("1") * block for structure, number in counted.items()):
            return {"base": base, "block": block}
    return {"base": None, "block": None}
