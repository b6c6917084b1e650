"""What is installed here: packages, their versions, and what is missing for which target."""

import importlib.metadata
import importlib.util
import platform

from exporter.core.errors import MissingExtraError
from exporter.core.protocols import Target
from exporter.core.types import Row


def require_packages(target: Target) -> None:
    """Raise MissingExtraError where a package that lowering needs is not installed; imports nothing."""
    for package in target.packages:
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, target.extra)


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


def survey(targets: dict[str, Target]) -> list[Row]:
    """Return one row per target: its packages with versions, and what is missing with the command that installs it."""
    rows: list[Row] = []
    for name, target in targets.items():
        packages = {package: version_of(distribution) for package, distribution in target.packages.items()}
        missing = [package for package, version in packages.items() if version is None]
        rows.append(
            {
                "target": name,
                "packages": packages,
                "ready": not missing,
                "install": f"pip install 'cocorr-export[{target.extra}]'" if missing else None,
            }
        )
    return rows
