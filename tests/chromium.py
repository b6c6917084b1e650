"""A Chromium for tests: the machine's own, or Debian's headless shell, fetched without root once for all tests."""

import fcntl
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from exporter.connections.browser.chromium import find
from exporter.connections.bundle import apt
from exporter.core.errors import SetupError

PACKAGES = ("chromium-headless-shell", "fonts-dejavu-core")  # without a font there is no text to look at
PROGRAM = "usr/lib/chromium/chromium-headless-shell"


def chromium(base: Path) -> Path:
    """Return a Chromium to start; skips where this machine has none and apt can fetch none, and says so.

    What is fetched lies in COCORR_TEST_CACHE, which outlives the tests, or else below `base`, which is the session's.
    """
    found = find()
    if found is not None:
        return found
    folder = Path(os.environ.get("COCORR_TEST_CACHE") or base / "cache") / "chromium"
    folder.mkdir(parents=True, exist_ok=True)
    failure = base / "chromium.failure"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "root" / PROGRAM).exists() and not failure.exists():
            try:
                _fetch(folder)
            except SetupError as error:
                failure.write_text(str(error))
    if failure.exists():
        pytest.skip(f"no Chromium, so no page was opened: {failure.read_text()}")
    return _started_by(folder / "root", base / "programs")


def _fetch(folder: Path) -> None:
    """Fetch and unpack Debian's headless shell with those packages that it needs and this machine lacks."""
    about = dict(re.findall(r"^(\w+)=\"?([^\"\n]*)", Path("/etc/os-release").read_text(), re.M))
    if about.get("ID") != "debian":
        raise SetupError("it is not installed, and Debian's is for Debian")
    work = folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    release = about["VERSION_CODENAME"]
    debian = apt.Apt(folder / "apt")
    debian.update((release,))
    needed = _needed(folder / "apt")
    for package in debian.download([(release, name, architecture) for name, architecture in needed]):
        debian.unpack(package, work)
    if not (work / PROGRAM).exists():
        raise SetupError(f"Debian's chromium-headless-shell has no {PROGRAM}")
    shutil.rmtree(folder / "apt")
    work.rename(folder / "root")


def _needed(folder: Path) -> list[tuple[str, str]]:
    """Return name and architecture of each package that apt would install here for PACKAGES, and do not install it."""
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, check=True
    ).stdout.strip()
    options = ("Dir::State::status=/var/lib/dpkg/status", f"APT::Architecture={machine}")
    command = ["apt-get", *(word for option in options for word in ("-o", option))]
    command += ["--simulate", "--yes", "--no-install-recommends", "install", *PACKAGES]
    variables = {**os.environ, "APT_CONFIG": str(folder / "apt.conf"), "LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, env=variables, timeout=300)
    if done.returncode != 0:
        raise SetupError(f"apt cannot resolve {', '.join(PACKAGES)}: {done.stderr.strip()[-200:]}")
    return re.findall(r"^Inst (\S+) .*\[(\w+)\]\)", done.stdout, re.M)


def _started_by(root: Path, folder: Path) -> Path:
    """Return a script named chromium, for a PATH, that sets what the unpacked program needs and becomes it."""
    libraries = sorted({path.parent for path in (root / "usr/lib").rglob("*.so*")})
    variables = {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)), "XDG_DATA_HOME": str(root / "usr/share")}
    words = shlex.join(["env", *(f"{name}={value}" for name, value in variables.items()), str(root / PROGRAM)])
    folder.mkdir(exist_ok=True)
    script = folder / f"chromium.{os.getpid()}"
    script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    script.chmod(0o755)
    return script.replace(folder / "chromium")
