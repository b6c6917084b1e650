"""The packages of npm that run artifacts in a browser, in the user's cache.

Each lies in a folder of its own, whose name changes with all that its pin says; the server puts them together.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from exporter.connections.browser import chromium
from exporter.connections.browser.npm import fetch
from exporter.connections.browser.tarball import given, title, unpack
from exporter.connections.cache import cache_folder
from exporter.core.errors import OutputError, RuntimeMissingError
from exporter.core.types import NpmPackage, Row
from safeio import files, strict_json
from safeio.staging import staging

INSTALL = "cocorr-export browser install"
ADVICE = "make room there, or name another cache folder in XDG_CACHE_HOME"
_PART = "browser"
_CONTENT = "package"
# SHA-256 of all files: what was changed since, or lost its bytes in a power cut, is not served to a page.
_RECORD = "sha256.json"
_MAX_RECORD_BYTES = 1 << 16


def place(package: NpmPackage) -> Path:
    """Return where a package lies, or will; raises RuntimeMissingError for a user who has no place for a cache."""
    recipe = hashlib.sha256(json.dumps(asdict(package), sort_keys=True).encode()).hexdigest()[:12]
    name = package.name.removeprefix("@").replace("/", "-")
    return cache_folder(_PART) / f"{name}-{package.version}-{recipe}"


def find(packages: Sequence[NpmPackage]) -> Mapping[str, Path]:
    """Return the files of packages by their URLs below `npm/`: `NAME/dist/x.js`.

    Raises RuntimeMissingError, with the command that installs them, where not all packages are whole.
    """
    absent = [package for package in packages if not is_whole(package)]
    if absent:
        raise RuntimeMissingError(_missing(absent))
    return {
        f"{package.name}/{name}": place(package) / _CONTENT / name for package in packages for name in package.files
    }


def _missing(absent: Sequence[NpmPackage]) -> str:
    titles = " and ".join(map(title, absent))
    verb, them = ("is", "it") if len(absent) == 1 else ("are", "them")
    return f"{titles} {verb} not installed; get {them} with: {INSTALL}"


def is_whole(package: NpmPackage) -> bool:
    """Say whether a package is there, with all its files as they came."""
    folder = place(package)
    try:
        recorded = strict_json.loads(files.read_file(folder / _RECORD, _MAX_RECORD_BYTES))
        paths = {name: files.inside(folder, f"{_CONTENT}/{name}") for name in package.files}
        return bool(recorded == {name: files.sha256(path) for name, path in paths.items()})
    except (files.UnreadableError, OSError, ValueError):
        return False


def install(packages: Sequence[NpmPackage], tarballs: Sequence[Path], report: Callable[[str], None]) -> None:
    """Put each package that is not whole into the cache: out of a tarball that the user has, else with npm.

    Raises SetupError for what cannot be had or is not as pinned, and OutputError where the cache cannot be written;
    no package is left half-written, and those before it stay.
    """
    had = given(packages, tarballs)
    if all(is_whole(package) for package in packages):
        return
    with _alone(cache_folder(_PART)):
        for package in sorted(packages, key=lambda package: package.integrity not in had):
            if is_whole(package):
                continue
            data = had.get(package.integrity)
            report(f"{'fetching' if data is None else 'unpacking the given tarball of'} {title(package)}")
            _write(package, unpack(package, fetch(package) if data is None else data))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let a second installation wait, which finds then what this one has fetched."""
    with files.writing(folder, ADVICE):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    with lock:
        with suppress(OSError):  # without locks both fetch, and each puts its own in place whole
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(package: NpmPackage, content: Mapping[str, bytes]) -> None:
    """Put a package in its place, whole; what is there is one that was not."""
    with staging(place(package), lambda _: None, ADVICE) as folder:
        for name, data in content.items():
            path = folder / _CONTENT / name
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write_new(path, data)
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
        files.write_new(folder / _RECORD, json.dumps(hashes, indent=2).encode())


def remove() -> bool:
    """Remove all that was installed, of whatever version; return whether there was anything."""
    folder = cache_folder(_PART)
    there = os.path.lexists(folder)
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        raise OutputError(f"{folder} cannot be removed; see who may write it, and remove it by hand")
    return there


def survey(packages: Sequence[NpmPackage]) -> Row:
    """Return what is there of what a browser on this machine needs, for `doctor`."""
    program = chromium.find()
    try:
        absent = [package for package in packages if not is_whole(package)]
        advice = [_missing(absent)] if absent else []
    except RuntimeMissingError as error:
        absent, advice = list(packages), [str(error)]
    if program is None:
        advice.append(f"no Chromium is on the PATH; {chromium.how_to_get()} (a phone needs none here)")
    versions = {package.name: None if package in absent else package.version for package in packages}
    return {
        "connection": "browser",
        "packages": {**versions, "Chromium": None if program is None else str(program)},
        "ready": not advice,
        "install": "; ".join(advice) or None,
    }
