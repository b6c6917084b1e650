"""The agent as one file: a zip file that Python starts, with the agent's modules and the loaders of some targets.

It has nothing else of the project, is the same for the same sources byte by byte, and is made in memory. Modules keep
their names, `exporter.connections.agent.contract`, so that sources are shipped as they are; the packages above them are
empty there.
"""

import io
import zipfile
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

from exporter.connections import agent
from exporter.connections.agent.folder import AGENT
from exporter.core.protocols import Target
from exporter.core.types import DeviceRuntime

_SOURCES = Path(agent.__file__).parent
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip file can state
_MAIN = """\
import sys
from pathlib import Path

from exporter.connections.agent.main import main
from loaders import LOADERS

sys.exit(main(Path(sys.argv[1]), LOADERS))
"""


def write_agent(folder: Path, targets: Iterable[Target]) -> Path:
    """Write the agent for these targets into `folder` and return its path."""
    path = folder / AGENT
    path.write_bytes(_archive(tuple(sorted({target.name: target.runtime for target in targets}.items()))))
    return path


@lru_cache
def _archive(runtimes: tuple[tuple[str, DeviceRuntime], ...]) -> bytes:
    """Return the zip file for the runtimes of targets, by name; it is not compressed, so that zlib is not needed."""
    stored = io.BytesIO()
    with zipfile.ZipFile(stored, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(_members(dict(runtimes)).items()):
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return stored.getvalue()


def _members(runtimes: Mapping[str, DeviceRuntime]) -> dict[str, bytes]:
    """Return the files of the archive by name."""
    members = {f"exporter/connections/agent/{path.name}": path.read_bytes() for path in _SOURCES.glob("*.py")}
    for target, runtime in runtimes.items():
        members[f"exporter/targets/{target}/loader.py"] = runtime.loader.read_bytes()
    folders = {str(parent) for name in members for parent in Path(name).parents} - {"."}
    empty = {f"{folder}/__init__.py": b"" for folder in folders}
    return {**empty, **members, "loaders.py": _table(runtimes).encode(), "__main__.py": _MAIN.encode()}


def _table(runtimes: Mapping[str, DeviceRuntime]) -> str:
    """Return the source of loaders.py, in which LOADERS has the loader of each target by name."""
    imports = [f"import exporter.targets.{target}.loader" for target in runtimes]
    entries = [
        f"    {target!r}: Loader(exporter.targets.{target}.loader.start,"
        f" {runtime.packages!r}, {runtime.distribution!r}),"
        for target, runtime in runtimes.items()
    ]
    lines = ["from exporter.connections.agent.contract import Loader", *imports, "", "LOADERS = {", *entries, "}"]
    return "\n".join(lines) + "\n"
