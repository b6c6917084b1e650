"""The files that workers need, as they go to other machines: whole, by name and SHA-256, into a folder of their own."""

import hashlib
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from exporter.core.errors import ArtifactError, BadInputError
from safeio import files

_MOST_BYTES = 4 << 30
_OF_A_FILE = re.compile(r"(?P<file>.+\.py)(?P<rest>:[A-Za-z_]\w*)", re.DOTALL)


class Item(NamedTuple):
    """A file: its name below the folder that it goes to, its SHA-256, and what `load` gives its bytes for."""

    name: str
    sha256: str
    content: object


class Parcel(NamedTuple):
    """What one setting names: `name` is that of the file or folder, `rest` what follows it in the setting."""

    name: str
    rest: str
    items: tuple[Item, ...]


def packed(settings: Mapping[str, object], paths: Iterable[str], keep: Callable[[bytes], object]) -> dict[str, Parcel]:
    """Return the files and folders that settings name, FILE.py:SPEC among them; None stays at home.

    `keep` takes the bytes of a file, one after the other, and gives what stands for them. Links are left out. Raises
    BadInputError for what cannot be read.
    """
    parcels = {}
    for setting in paths:
        if settings[setting] is not None:
            match = _OF_A_FILE.fullmatch(str(settings[setting]))
            path, rest = (Path(match["file"]), match["rest"]) if match else (Path(str(settings[setting])), "")
            parcels[setting] = Parcel(path.name, rest, tuple(_items(path, keep)))
    return parcels


def _items(path: Path, keep: Callable[[bytes], object]) -> Iterator[Item]:
    names = [path.name]
    if path.is_dir():
        regular = [name for name, status in files.tree(path) if stat.S_ISREG(status.st_mode)]
        names = [f"{path.name}/{name}" for name in regular]
    for name in names:
        try:
            content = files.read_file(path.parent / name, _MOST_BYTES)
        except files.UnreadableError as error:
            raise BadInputError(f"{path.parent / name} {error}") from error
        yield Item(name, hashlib.sha256(content).hexdigest(), keep(content))


def unpacked(
    settings: Mapping[str, object], parcels: Mapping[str, Parcel], folder: Path, load: Callable[[object], bytes]
) -> dict[str, object]:
    """Write all files into an empty folder and return the settings with their new paths.

    Raises ArtifactError where a file is not what was sent.
    """
    arrived = dict(settings)
    for setting, parcel in parcels.items():
        place = folder / setting
        for item in parcel.items:
            path = place / item.name
            if ".." in path.parts or not path.is_relative_to(place):
                raise ArtifactError(f"{item.name!r} is no name of a file for a worker")
            content = load(item.content)
            if hashlib.sha256(content).hexdigest() != item.sha256:
                raise ArtifactError(f"{item.name} came to a worker with another SHA-256 than it was sent with")
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_new(path, content)
        arrived[setting] = f"{place / parcel.name}{parcel.rest}"
    return arrived
