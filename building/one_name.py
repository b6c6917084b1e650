"""The build backend: setuptools' own, but that a wheel has one import name, `cocorr`, for all rooms of the project.

The repository has its rooms at the top, where tests, mypy and editable installs find them by the names that they have
there. Installed, `exporter` and `models` would stand in the way of folders that a user calls so: in a wheel they are
`cocorr.exporter` and `cocorr.models`, and every import statement in it says so.
"""

import ast
import base64
import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    get_requires_for_build_wheel,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

NAME = "cocorr"
ROOMS = ("exporter", "models", "safeio", "device_profiles")
_ROOM = "|".join(ROOMS)
_FROM = re.compile(rf"from\s+(?=({_ROOM})\b)".encode())
_MODULE_IN_TEXT = re.compile(rf"^({_ROOM})(\.\w+)+$|\b(from|import|-m)\s+({_ROOM})\b")


def build_wheel(
    wheel_directory: str, config_settings: Mapping[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel as setuptools does, from nothing that an earlier build left, and put its rooms into `cocorr`."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "extra.cfg")
        settings.write_text(f"[build]\nbuild_base = {folder}/build\n", encoding="utf-8")
        os.environ["DIST_EXTRA_CONFIG"] = str(settings)
        name: str = build_meta.build_wheel(folder, config_settings, metadata_directory)
        gather(Path(folder, name), Path(wheel_directory, name))
    return name


def gather(wheel: Path, place: Path) -> None:
    """Write at `place` the wheel with its rooms in `cocorr`, their imports with that name, and a RECORD of it."""
    rows = []
    with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            room, content = info.filename.partition("/")[0], source.read(info)
            if info.filename.endswith(".dist-info/RECORD"):
                record = info
                continue
            if info.filename.endswith(".dist-info/top_level.txt"):
                content = f"{NAME}\n".encode()
            if room in (NAME, *ROOMS) and info.filename.endswith(".py"):
                content = renamed(content, info.filename)
            if room in ROOMS:
                info.filename = f"{NAME}/{info.filename}"
            target.writestr(info, content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            rows.append(f"{info.filename},sha256={digest},{len(content)}\n")
        target.writestr(record, "".join([*rows, f"{record.filename},,\n"]), zipfile.ZIP_DEFLATED)


def renamed(source: bytes, file: str) -> bytes:
    """Return a module with `cocorr.` before each room that it imports from.

    Raises ValueError where that is not enough: a room imported by its bare name, or named in a text.
    """
    tree = ast.parse(source)
    lines = source.splitlines(keepends=True)
    places = sorted(_places(tree, lines, file), reverse=True)
    for line, column in places:
        lines[line] = lines[line][:column] + f"{NAME}.".encode() + lines[line][column:]
    return b"".join(lines)


def _places(tree: ast.Module, lines: list[bytes], file: str) -> Iterator[tuple[int, int]]:
    """Give line and column, counted from 0 and in bytes, of each room in an import statement."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # docstrings
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            found = _FROM.match(lines[node.lineno - 1], node.col_offset)
            if found:
                yield node.lineno - 1, found.end()
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.partition(".")[0] in ROOMS:
                    if alias.asname is None:
                        raise ValueError(f"{file}:{node.lineno}: write `from ... import ...` for {alias.name}")
                    yield alias.lineno - 1, alias.col_offset
        elif isinstance(node, ast.Constant) and id(node) not in texts and _MODULE_IN_TEXT.search(str(node.value)):
            raise ValueError(f"{file}:{node.lineno}: {node.value!r} names a module; make it of __name__")
