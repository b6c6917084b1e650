"""The cache of the gate: artifacts by what they are made of, in `.cocorr` beside the configuration.

A key is over the bytes of the checkpoint, this tool's code, the versions of all packages that lower, the device profile
and every choice; of a model that does not ship with this tool also over its program as torch captures it, since nobody
can tell which code made that. So an artifact that is found need not be made again; it is judged again.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from exporter.core.errors import BadInputError, OutputError
from safeio import files, locks

FOLDER = ".cocorr"
_ARTIFACTS = "artifacts"
_MAKING = "making-"
_DIGITS = 16
_NAME = re.compile(rf"[0-9a-f]{{{_DIGITS}}}")
_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("cocorr", "exporter", "models", "safeio")
_ADVICE = "make it writable, or remove it"


class Cache:
    """The folder of a configuration's artifacts; nothing in it is committed, and all of it can be removed."""

    def __init__(self, config: Path) -> None:
        self._top = config.parent / FOLDER
        self.folder = self._top / config.name

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep others of this configuration out of the folder, which is made where it is not there.

        Raises OutputError where it is in use, where a part of it is a link, which could lead anywhere, and where it
        cannot be written.
        """
        artifacts = self.folder / _ARTIFACTS
        for folder in (self._top, self.folder, artifacts):
            if folder.is_symlink():
                raise OutputError(f"{folder} is a link, and links are not followed; remove it")
        with files.writing(self.folder, _ADVICE):
            artifacts.mkdir(parents=True, exist_ok=True)
            if not (self._top / ".gitignore").exists():
                files.replace_file(self._top / ".gitignore", b"*\n", _ADVICE)
        with locks.locked_folder(self.folder) as held:
            if not held:
                raise OutputError(f"{self.folder} is in use by another check; start this one again when that has ended")
            locks.remove_dead_folders(self.folder, _MAKING)
            yield

    def place(self, key: str) -> Path:
        """Return the folder of an artifact, whether it is there or not."""
        return self.folder / _ARTIFACTS / key[:_DIGITS]

    def all(self) -> list[Path]:
        """Return the folders of all artifacts."""
        paths = sorted((self.folder / _ARTIFACTS).iterdir())
        return [path for path in paths if _NAME.fullmatch(path.name) and not path.is_symlink() and path.is_dir()]

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Give an empty folder in which artifacts are made; what is left in it is removed."""
        with locks.new_folder(lambda: self.folder / f"{_MAKING}{os.urandom(8).hex()}") as folder:
            yield folder

    def put(self, made: Path, key: str) -> Path:
        """Move an artifact that was made here to its place, over one that cannot be used; return the place."""
        place = self.place(key)
        with files.writing(self.folder, _ADVICE):
            if os.path.lexists(place):
                _remove(place)
            made.rename(place)
        return place

    def keep_only(self, places: Collection[Path]) -> None:
        """Remove all other artifacts: of weights and choices that neither the configuration nor the lock names."""
        with files.writing(self.folder, _ADVICE):
            for path in self.all():
                if path not in places:
                    _remove(path)


def key_of(facts: Mapping[str, object]) -> str:
    """Return the key of what `facts` say, values that JSON has, for this tool as it is."""
    text = json.dumps([facts, [_code_below(_ROOT / name) for name in _CODE]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def key_of_text(words: Collection[str]) -> str:
    """Return one SHA-256 over several words."""
    return hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()


def digest(path: Path) -> str:
    """Return the SHA-256 of a file, "" where there is none; raises BadInputError where it cannot be read."""
    try:
        with files.open_file(path, follow_link=True) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except files.UnreadableError as error:
        if error.missing:
            return ""
        raise BadInputError(f"{path} {error}; give a file that can be read") from error


@cache
def _code_below(folder: Path) -> str:
    """Return one SHA-256 over all Python files below a folder of this tool."""
    rows = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.py"))
    lines = (f"{digest(folder / name)}  {name}\n" for name in rows)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()
