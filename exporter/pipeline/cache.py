"""The cache of the gate: artifacts by what they are made of, in `.cocorr` beside the configuration.

A key is over the bytes of the checkpoint, of the model's own code and of this tool's, the versions of all packages that
lower, the device profile and every choice. So an artifact that is found need not be made again; it is judged again.
"""

import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from exporter.core.errors import BadInputError, OutputError
from safeio import files, locks

FOLDER = ".cocorr"
_ARTIFACTS = "artifacts"
_MAKING = "making-"
_KEY = re.compile(r"[0-9a-f]{64}")
_MOST_FILES = 10_000
_ROOT = Path(__file__).resolve().parents[2]
_CODE = ("cocorr", "exporter", "models", "safeio")
_ADVICE = "make it writable, or remove it"


class Cache:
    """The folder of a configuration's artifacts; nothing in it is committed, and all of it can be removed."""

    def __init__(self, beside: Path) -> None:
        self.folder = beside.parent / FOLDER

    def check(self) -> None:
        """Raise OutputError where the folder, or that of its artifacts, is a link, which could lead anywhere."""
        for folder in (self.folder, self.folder / _ARTIFACTS):
            if folder.is_symlink():
                raise OutputError(f"{folder} is a link, and links are not followed; remove it")

    def place(self, key: str) -> Path:
        """Return the folder of an artifact, whether it is there or not."""
        return self.folder / _ARTIFACTS / key

    @contextmanager
    def making(self) -> Iterator[Path]:
        """Give an empty folder in which artifacts are made; what is left in it is removed, as is what a kill left."""
        with files.writing(self.folder, _ADVICE):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / ".gitignore").exists():
                files.write_new(self.folder / ".gitignore", b"*\n")
            locks.remove_dead_folders(self.folder, _MAKING)
        with locks.new_folder(lambda: self.folder / f"{_MAKING}{os.urandom(8).hex()}") as folder:
            yield folder

    def put(self, made: Path, key: str) -> Path:
        """Move an artifact that was made here to its place, over one that cannot be used; return the place."""
        place = self.place(key)
        with files.writing(self.folder, _ADVICE):
            place.parent.mkdir(exist_ok=True)
            if os.path.lexists(place):
                _remove(place)
            made.rename(place)
        return place

    def keep_only(self, keys: Collection[str]) -> None:
        """Remove the artifacts of all other keys: of branches and weights that nothing names any more."""
        folder = self.folder / _ARTIFACTS
        with files.writing(self.folder, _ADVICE):
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            for name in names:
                if _KEY.fullmatch(name) and name not in keys:
                    _remove(folder / name)


def key_of(facts: Mapping[str, object], content: Collection[Path]) -> str:
    """Return the key of what `facts` say, values that JSON has, and of the bytes of files and folders.

    Of a Python file, all others below its folder count too, since it may import them.
    """
    digests = [_code_below(path.parent) if path.suffix == ".py" else digest(path) for path in content]
    text = json.dumps([facts, digests, _code()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(path: Path) -> str:
    """Return one SHA-256 over a file, or over all files below a folder; "" for what is not there.

    Raises BadInputError for what is neither, and for more files than a checkpoint or a model's code has.
    """
    try:
        if not path.is_dir():
            with files.open_file(path, follow_link=True) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        rows = sorted((name, status.st_mode) for name, status in files.tree(path.resolve()))
        names = [name for name, mode in rows if stat.S_ISREG(mode) and "__pycache__" not in name]
        if len(names) > _MOST_FILES:
            raise BadInputError(f"{path} has more than {_MOST_FILES} files; give a folder with what is needed alone")
        whole = hashlib.sha256()
        for name in names:
            with files.open_file(path.resolve() / name) as file:
                whole.update(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {name}\n".encode())
        return whole.hexdigest()
    except files.UnreadableError as error:
        if error.missing:
            return ""
        raise BadInputError(f"{path} {error}; give a file or a folder that can be read") from error


@cache
def _code() -> str:
    """Return one SHA-256 over this tool's own code."""
    return "".join(_code_below(_ROOT / name) for name in _CODE)


def _code_below(folder: Path) -> str:
    """Return one SHA-256 over all Python files below a folder but those of environments and hidden folders."""
    whole = hashlib.sha256()
    for name, status in sorted(files.tree(folder.resolve())):
        hidden = any(part.startswith(".") or part in ("venv", "__pycache__") for part in name.split("/"))
        if name.endswith(".py") and stat.S_ISREG(status.st_mode) and not hidden:
            whole.update(f"{digest(folder.resolve() / name)}  {name}\n".encode())
    return whole.hexdigest()


def _remove(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink()
