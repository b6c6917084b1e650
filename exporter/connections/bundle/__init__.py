"""The ARM64 bundle: loader, C library, Python, numpy, three runtimes; whatever runs ARM64 code can start it.

It lies in the cache folder of the user. Everything in it is started through its own loader, so that nothing of the
device but its kernel is needed.
"""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.connections.bundle import pins
from exporter.connections.cache import cache_folder
from exporter.core.errors import RuntimeMissingError
from safeio import files

PART = "emulator"
"""The part of the cache that has all that is fetched for the emulator."""
INSTALL = "cocorr-export emulator install"
LOADER = "usr/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1"
LIBRARIES = "usr/lib/aarch64-linux-gnu"
PYTHON = f"usr/bin/python{pins.PYTHON}"
SITE = "site"
ROOT = "arm64"
QEMU = "qemu-aarch64"
LOCK = "bundle.json"
ARCHIVE = "bundle.tar.gz"
NATIVE = Path(__file__).with_name("native")


@dataclass(frozen=True)
class Bundle:
    """An installed bundle: `identity` changes with any of its parts, `versions` are those of packages and wheels."""

    folder: Path
    identity: str
    versions: Mapping[str, str]

    @property
    def root(self) -> Path:
        """Return what is pushed to a device: the folder of loader, libraries, Python and runtimes."""
        return self.folder / ROOT

    @property
    def qemu(self) -> Path:
        """Return the emulator, a program of this machine's own architecture."""
        return self.folder / QEMU

    def archive(self) -> Path:
        """Return `root` as one compressed file, made when it is first asked for."""
        path = self.folder / ARCHIVE
        if not path.exists():
            advice = "make room there, or name another cache folder in XDG_CACHE_HOME"
            with (
                files.replacing(path, advice) as raw,
                tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive,
            ):
                archive.add(self.root, ".")
        return path


def recipe() -> str:
    """Return 12 digits that change with the pinned parts and with the sources that are compiled into the bundle."""
    digest = hashlib.sha256(json.dumps(pins.pins(), sort_keys=True).encode())
    for source in sorted(NATIVE.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:12]


def place() -> Path:
    """Return where the bundle of this version of the project lies, or will."""
    return cache_folder(PART) / f"arm64-{recipe()}"


def find() -> Bundle:
    """Return the installed bundle; raises RuntimeMissingError with the command that installs it."""
    folder = place()
    try:
        lock: dict[str, Any] = json.loads((folder / LOCK).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RuntimeMissingError(f"the ARM64 bundle is not installed; get it with: {INSTALL}") from None
    versions = {part["name"]: part["version"] for part in lock["parts"]}
    return Bundle(folder, lock["identity"], versions)


def remove() -> bool:
    """Remove all that was fetched; return whether there was anything."""
    folder = cache_folder(PART)
    there = folder.exists()
    shutil.rmtree(folder, ignore_errors=True)
    return there


def launch(root: str, arguments: Sequence[str]) -> list[str]:
    """Return the command that starts the bundle's Python, where `root` is the bundle's folder on the device."""
    loader = [f"{root}/{LOADER}", "--library-path", f"{root}/{LIBRARIES}"]
    return [*loader, f"{root}/{PYTHON}", "-s", "-P", *arguments]


def environment(root: str, threads: int) -> dict[str, str]:
    """Return the only variables that the bundle's Python sees."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {
        "PYTHONHOME": f"{root}/usr",
        "PYTHONPATH": f"{root}/{SITE}",
        "PYTHONHASHSEED": "0",  # so that two runs execute the same instructions
        "PYTHONWARNINGS": "ignore",
        "PYTHONDONTWRITEBYTECODE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "ORT_DISABLE_TELEMETRY": "1",
        "COCORR_EXECUTORCH": pins.WHEELS[pins.RUNNER].version,
        **dict.fromkeys(pools, str(threads)),
    }
