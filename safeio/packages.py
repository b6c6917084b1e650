"""What is not installed here, and the command that installs it.

The command names the packages themselves, with the versions that this project's own metadata states: it works as it is
written from a checkout and from a wheel, whether or not any index knows this project.
"""

import importlib.util
import re
import sys
from collections.abc import Iterable, Sequence

from safeio.errors import BadInputError

PROJECT = "cocorr-export"
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
"""PyTorch's own index of CPU builds, as its install page gives it: the default index has CUDA builds only for Linux."""
UNBUILT = "there is no build of"


class MissingExtraError(BadInputError):
    """Packages that come with an extra are not installed; the message names the pip command."""

    def __init__(self, packages: str | Sequence[str], extra: str) -> None:
        names = (packages,) if isinstance(packages, str) else packages
        absent = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not installed"
        advice = how_to_get(names)
        unbuilt = advice.startswith(UNBUILT)
        super().__init__(advice if unbuilt else f"{absent}; {advice} (part of the extra [{extra}])")


def missing(modules: Iterable[str]) -> tuple[str, ...]:
    """Return the top-level modules among these that are not installed, or not whole on this system; imports nothing."""
    unbuilt = without_build(modules := tuple(modules))
    return tuple(module for module in modules if module in unbuilt or importlib.util.find_spec(module) is None)


def without_build(modules: Iterable[str]) -> tuple[str, ...]:
    """Return the modules among these whose packages the project states for other systems only."""
    stated = _stated()
    return tuple(module for module in modules if not stated.get(_normal(module), ("", True))[1])


def how_to_get(modules: Sequence[str]) -> str:
    """Return `get it with: pip install ...` for modules, or that this system has no build of one of them."""
    import platform

    stated = _stated()
    requirements = []
    for module in modules:
        name = _normal(module)
        requirement, built = stated.get(name, (name, True))
        if not built:
            return f"{UNBUILT} {name} for {platform.system()} {platform.machine()}; use another machine"
        requirements.append(f"'{requirement}'")
    # What is not asked for by name, a converter's own dependency, may be a CUDA build of several GB otherwise.
    index = f"--extra-index-url {CPU_BUILDS} " if "torch" in modules and sys.platform == "linux" else ""
    return f"get {'it' if len(modules) == 1 else 'them'} with: pip install {index}{' '.join(requirements)}"


def _stated() -> dict[str, tuple[str, bool]]:
    """Return for each distribution that the project may need how pip is asked for it, and if this system has it."""
    import importlib.metadata

    from packaging.requirements import Requirement

    try:
        project = importlib.metadata.distribution(PROJECT)
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        return {}
    own_extras = ["", *(project.metadata.get_all("Provides-Extra") or ())]
    found: dict[str, tuple[str, bool]] = {}
    for requirement in map(Requirement, project.requires or ()):
        name, marker = _normal(requirement.name), requirement.marker
        built = marker is None or any(marker.evaluate({"extra": extra}) for extra in own_extras)
        if name not in found or built:
            extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
            found[name] = f"{requirement.name}{extras}{requirement.specifier}", built
    return found


def _normal(name: str) -> str:
    """Return the name of a distribution as indexes write it; modules of our vendors differ from it in signs only."""
    return re.sub(r"[-_.]+", "-", name).lower()
