"""An artifact's folder as something to run and to judge: what running and parity need of its manifest."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.connections.host import HostConnection
from exporter.connections.running import Ran, Subject
from exporter.core.protocols import Connection
from exporter.core.types import Arrays, DataFile, Precision, TensorSpec
from exporter.parity import section
from exporter.targets import TARGETS


def subject_of(folder: Path, manifest: Mapping[str, Any], connection: Connection | None = None) -> Subject:
    """Return the artifact in `folder`, to run over `connection` or on this host."""
    entry = (manifest.get("external") or {}).get("data_file")
    return Subject(
        target=TARGETS[manifest["target"]],
        model_file=folder / manifest["model_file"],
        options=manifest["options"],
        outputs=specs(manifest["outputs"]),
        threads=manifest["threads"],
        connection=connection or HostConnection(),
        data=None if entry is None else DataFile(entry["name"], {k: tuple(v) for k, v in entry["tensors"].items()}),
    )


def specs(rows: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Return the inputs or outputs that a manifest lists."""
    return tuple(TensorSpec(row["name"], tuple(row["shape"]), row["dtype"]) for row in rows)


def parity_of(ran: Ran, expected: Arrays, ranking: str | None, precision: Precision) -> dict[str, Any]:
    """Return the parity section of a run: judged where there are outputs, else the verdict of having none."""
    if ran.result is None:
        return section.unjudged(ran.verdict, ran.reason or "")
    return section.judged(ran.result, expected, ranking, precision)
