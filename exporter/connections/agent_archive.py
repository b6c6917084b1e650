"""The agent as one file: a zip file that Python starts, with the agent's modules and the loaders of some targets.

It has nothing else of the project, is the same for the same sources byte by byte, and is made in memory. Modules keep
the names that they have here, so that sources are shipped as they are; the packages above them are empty there.
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
_AGENT = agent.__name__
_TARGETS = _AGENT.removesuffix("connections.agent") + "targets"
_MAIN = f"""\
import os
import sys
from pathlib import Path

from {_AGENT}.main import main
from loaders import LOADERS

status = main(Path(sys.argv[1]), LOADERS)
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)  # the answer is written: nobody waits for a runtime to be taken apart
"""


def write_agent(folder: Path, targets: Iterable[Target]) -> Path:
    """Write the agent for these targets into `folder` and return its path."""
    path = folder / AGENT
    path.write_bytes(_archive(tuple(sorted({target.name: target.runtime for target in targets}.items()))))
    return path


def _folder(package: str) -> str:
    return package.replace(".", "/")


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
    members = {f"{_folder(_AGENT)}/{path.name}": path.read_bytes() for path in _SOURCES.glob("*.py")}
    for target, runtime in runtimes.items():
        members[f"{_folder(_TARGETS)}/{target}/loader.py"] = runtime.loader.read_bytes()
    folders = {str(parent) for name in members for parent in Path(name).parents} - {"."}
    empty = {f"{folder}/__init__.py": b"" for folder in folders}
    return {**empty, **members, "loaders.py": _table(runtimes).encode(), "__main__.py": _MAIN.encode()}


def _table(runtimes: Mapping[str, DeviceRuntime]) -> str:
    """Return the source of loaders.py, in which LOADERS has the loader of each target by name."""
    imports = [f"import {_TARGETS}.{target}.loader" for target in runtimes]
    entries = [
        f"    {target!r}: Loader({_TARGETS}.{target}.loader.start, {runtime.packages!r}, {runtime.distribution!r},"
        f" {None if runtime.trivial is None else runtime.trivial.read_bytes()!r}),"
        for target, runtime in runtimes.items()
    ]
    lines = [f"from {_AGENT}.contract import Loader", *imports, "", "LOADERS = {", *entries, "}"]
    return "\n".join(lines) + "\n"
