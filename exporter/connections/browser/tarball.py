"""A package of npm as its tarball: checked against its pin before any of it is opened, and then read in memory."""

import base64
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from exporter.core.errors import SetupError
from exporter.core.types import NpmPackage
from safeio import files

MAX_TARBALL_BYTES = 256 << 20
MAX_FILE_BYTES = 64 << 20
_ROOT = "package/"  # where npm's tarballs have all that is in the package
_SCRIPTS = (".js", ".mjs")


def title(package: NpmPackage) -> str:
    """Return name and version as messages have them."""
    return f"{package.name} {package.version}"


def integrity_of(data: bytes) -> str:
    """Return the SHA-512 of a tarball as npm writes it."""
    return f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"


def given(packages: Sequence[NpmPackage], tarballs: Sequence[Path]) -> dict[str, bytes]:
    """Return tarballs that the user has, by their integrity; raises SetupError for one that is no pinned package's."""
    found = {}
    for path in tarballs:
        try:
            data = files.read_file(path, MAX_TARBALL_BYTES, follow_link=True)
        except files.UnreadableError as error:
            raise SetupError(f"the tarball {path} {error}") from error
        integrity = integrity_of(data)
        if integrity not in {package.integrity for package in packages}:
            wanted = " ".join(f"{package.name}@{package.version}" for package in packages)
            raise SetupError(
                f"{path} is none of the pinned tarballs, or not whole: its SHA-512 is {integrity}; get those that are "
                f"with: npm pack {wanted}"
            )
        found[integrity] = data
    return found


def unpack(package: NpmPackage, data: bytes) -> dict[str, bytes]:
    """Return the kept files of a package by their names, with what they import by bare names given as URLs.

    `data` is the tarball with the package's integrity. Raises SetupError where it is not as the pin says.
    """
    wanted = {f"{_ROOT}{name}": name for name in package.files}
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
            for member in archive:
                name = wanted.get(member.name)
                if name is not None:
                    found[name] = _read(package, archive, member)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise _wrong(package, f"cannot be read: {error}") from error
    lacking = [name for name in package.files if name not in found]
    if lacking:
        raise _wrong(package, f"has no {', '.join(lacking)}")
    for specifier, url in package.imports.items():
        _redirect(package, found, specifier, url)
    return found


def _wrong(package: NpmPackage, why: str) -> SetupError:
    """Return the error for a tarball that came as it was pinned, and is not as the pin says."""
    return SetupError(f"the tarball of {title(package)} {why}; its pin is wrong, take another version of this tool")


def _read(package: NpmPackage, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """Return the bytes of a member that is a plain file of a size that can be meant."""
    stream = archive.extractfile(member) if member.isreg() else None
    if stream is None:
        raise _wrong(package, f"has a {member.name} that is no plain file")
    if member.size > MAX_FILE_BYTES:
        raise _wrong(package, f"has a {member.name} of {member.size} bytes, and {MAX_FILE_BYTES} is the most")
    return stream.read()


def _redirect(package: NpmPackage, found: dict[str, bytes], specifier: str, url: str) -> None:
    """Write a URL in the one place where a module is imported by its bare name, of which a browser knows nothing."""
    pattern = re.compile(rb"(\b(?:from|import)\s*\(?\s*)([\"'])" + re.escape(specifier.encode()) + rb"\2")
    places = [(name, match) for name in found if name.endswith(_SCRIPTS) for match in pattern.finditer(found[name])]
    if len(places) != 1:
        raise _wrong(package, f"imports {specifier} in {len(places)} places, and not in one")
    ((name, match),) = places
    text, quote = found[name], match[2]
    found[name] = text[: match.start()] + match[1] + quote + url.encode() + quote + text[match.end() :]
