"""What is installed here: packages, their versions, and what is missing for which target."""

import importlib.metadata
import platform
import sys
from collections.abc import Mapping

from exporter.core.errors import MissingExtraError
from exporter.core.extras import LOWER
from exporter.core.protocols import Target
from exporter.core.types import Row
from safeio.packages import how_to_get, missing, without_build


def require_packages(target: Target) -> None:
    """Raise MissingExtraError where packages that lowering needs are not installed; imports nothing."""
    absent = missing(_lowering(target))
    if absent:
        raise MissingExtraError(absent, LOWER)


def left_out(target: Target) -> str | None:
    """Return why nothing on this system can lower to a target, whatever is installed, or None where something can."""
    unbuilt = without_build(_lowering(target))
    return how_to_get(unbuilt) if unbuilt else None


def _lowering(target: Target) -> dict[str, str]:
    """Return what lowering imports, each with the name of its distribution."""
    return {"torch": "torch", **target.packages}


def _running(target: Target) -> tuple[str, ...]:
    """Return what running imports; nothing where this system has no runtime and our own interpreter computes."""
    return target.runtime.packages if target.system in (None, sys.platform) else ()


def versions(target: Target) -> dict[str, str]:
    """Return the versions of this tool, Python, torch, numpy and the target's packages."""
    names = ("cocorr-export", "torch", "numpy", *target.packages.values())
    found = {name: version for name in names if (version := version_of(name)) is not None}
    return {"python": platform.python_version(), **found}


def version_of(distribution: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def survey(targets: Mapping[str, Target]) -> list[Row]:
    """Return one row per target: its packages with versions, and what is missing with the command that installs it.

    `ready` is a target that can be lowered here, `runs` one whose artifacts can be run and judged.
    """
    rows: list[Row] = []
    for name, target in targets.items():
        absent = missing(_lowering(target))
        rows.append(
            {
                "target": name,
                "packages": {package: version_of(own) for package, own in _lowering(target).items()},
                "ready": not absent,
                "runs": not missing(_running(target)),
                "install": how_to_get(absent) if absent else None,
            }
        )
    return rows
