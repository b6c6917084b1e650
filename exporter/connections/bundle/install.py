"""Fetch and build the ARM64 bundle from this machine's own apt and pip sources, without root.

Downloads are kept until the bundle is whole, so that an interrupted installation goes on where it was. apt works on
folders of its own: neither the machine's package lists nor its list of architectures change.
"""

import fcntl
import fnmatch
import hashlib
import json
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from exporter.connections import bundle
from exporter.connections.agent_archive import write_agent
from exporter.connections.bundle import apt, pins, runner
from exporter.connections.bundle.tool import call
from exporter.core.errors import RuntimeMissingError, SetupError
from exporter.core.protocols import Target
from exporter.core.types import Row
from safeio import files
from safeio.staging import scratch

Report = Callable[[str], None]

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # what Linux calls them -> what Debian does
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
# Started in the finished bundle: an import or a symbol that is missing shows here and not in a run.
_PROBE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from loaders import LOADERS;"
    "print([loader.start(1, {}).name for loader in LOADERS.values()])"
)
_ELSEWHERE = "the ARM64 bundle is made on x86_64 and ARM64 Linux; on this machine use ssh or adb to reach one"
_NOT_NEEDED = ("usr/share", "etc", "usr/lib/aarch64-linux-gnu/gconv", "usr/lib/python3/dist-packages")


def install(targets: Iterable[Target], report: Report) -> bundle.Bundle:
    """Make the bundle, with the runtimes of `targets`, unless it is there; raises SetupError and leaves no half."""
    place = bundle.place()
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second installation waits, and then finds the bundle
        if not (place / bundle.LOCK).exists():
            work = place.parent / "work"
            shutil.rmtree(work, ignore_errors=True)
            _make(work, place.parent / "downloads", targets, report)
            shutil.rmtree(place, ignore_errors=True)
            work.rename(place)
            shutil.rmtree(place.parent / "downloads")
    return bundle.find()


def _make(work: Path, downloads: Path, targets: Iterable[Target], report: Report) -> None:
    """Build the whole bundle in `work`."""
    machine = _ARCHITECTURES.get(platform.machine())
    if platform.system() != "Linux" or machine is None:
        raise SetupError(_ELSEWHERE)
    root = work / bundle.ROOT
    root.mkdir(parents=True)
    report("1/6 reading the package lists of this machine's apt sources")
    debian = apt.Apt(downloads / "apt")
    debian.update(tuple(pins.DEBIAN))
    report("2/6 fetching and unpacking Debian packages")
    headers, emulator = work / "headers", work / "emulator"
    wanted = [(release, name, "arm64") for release, names in pins.DEBIAN.items() for name in names]
    packages = debian.download([*wanted, (*pins.HEADERS, "arm64"), (*pins.EMULATOR, machine)])
    folders = {pins.HEADERS[1]: headers, pins.EMULATOR[1]: emulator}
    for package in packages:
        debian.unpack(package, folders.get(package.name, root))
    made = [package.part for package in packages]
    (emulator / "usr" / "bin" / bundle.QEMU).rename(work / bundle.QEMU)
    shutil.rmtree(emulator)
    report("3/6 fetching wheels")
    wheels = {name: _wheel(downloads / "wheels", name, wheel, foreign=True) for name, wheel in pins.WHEELS.items()}
    compiler = _wheel(downloads / "wheels", "ziglang", pins.COMPILER, foreign=False)
    report("4/6 unpacking wheels")
    for name, path in wheels.items():
        _unzip(path, root / bundle.SITE if name != pins.RUNNER else work / name, pins.WHEELS[name].drop)
        made.append({"name": name, "version": pins.WHEELS[name].version, "sha256": files.sha256(path)})
    report("5/6 compiling the runner for ExecuTorch")
    _unzip(compiler, work / "compiler", ())
    runner.build(work, root, headers)
    for folder in ("compiler", "headers", pins.RUNNER):
        shutil.rmtree(work / folder)
    for name in _NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
    report("6/6 starting all three runtimes")
    _probe(work, root, targets)
    identity = hashlib.sha256(json.dumps(made, sort_keys=True).encode() + bundle.recipe().encode()).hexdigest()[:12]
    document = {"identity": identity, "parts": made}
    (work / bundle.LOCK).write_text(json.dumps(document, indent=2), encoding="utf-8")


def _wheel(folder: Path, name: str, wheel: pins.Wheel, foreign: bool) -> Path:
    """Return the wheel, fetched by pip with its hash required; a whole one from before is taken as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    found = _known(folder, wheel)
    if found is not None:
        return found
    requirement = folder / f"{name}.txt"
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in wheel.sha256)
    requirement.write_text(f"{name}=={wheel.version} {hashes}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--requirement", str(requirement), "--dest", str(folder)]
    if foreign:
        version = pins.PYTHON.replace(".", "")
        command += ["--python-version", version, "--implementation", "cp"]
        command += [word for tag in (f"cp{version}", "abi3", "none") for word in ("--abi", tag)]
        command += [word for tag in _PLATFORMS for word in ("--platform", f"{tag}_aarch64")]
    call(command, f"pip could not fetch {name} {wheel.version} for ARM64")
    found = _known(folder, wheel)
    if found is None:
        raise SetupError(f"pip fetched {name} {wheel.version}, but no wheel with the SHA-256 that is pinned")
    return found


def _known(folder: Path, wheel: pins.Wheel) -> Path | None:
    return next((path for path in sorted(folder.glob("*.whl")) if files.sha256(path) in wheel.sha256), None)


def _unzip(path: Path, folder: Path, drop: Sequence[str]) -> None:
    """Unpack a wheel without what it drops; zipfile keeps members inside the folder."""
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            parents = ("/".join(member.filename.split("/")[:n]) for n in range(1, member.filename.count("/") + 1))
            if any(fnmatch.fnmatch(parent, pattern) for parent in parents for pattern in drop):
                continue
            target = Path(archive.extract(member, folder))
            mode = member.external_attr >> 16 & 0o777
            if mode and target.is_file():
                target.chmod(mode | 0o600)


def _probe(work: Path, root: Path, targets: Iterable[Target]) -> None:
    """Start all runtimes in the new bundle; what Python compiles on the way stays in it, for quicker starts."""
    variables = {**bundle.environment(str(root), 1), "PYTHONDONTWRITEBYTECODE": ""}
    with scratch("probe") as folder:
        command = bundle.launch(str(root), ["-c", _PROBE, str(write_agent(folder, targets))])
        call([str(work / bundle.QEMU), "-cpu", "cortex-a76", *command], "the new bundle does not start", variables)


def survey() -> Row:
    """Return whether the emulator is there, with the versions in it, for `doctor`."""
    try:
        found = bundle.find().versions
    except RuntimeMissingError:
        return {"connection": "emulator", "packages": {"ARM64 bundle": None}, "ready": False, "install": _how_to_get()}
    versions = {name: found.get(name) for name in ("qemu-user", *pins.WHEELS)}
    return {"connection": "emulator", "packages": versions, "ready": True, "install": None}


def _how_to_get() -> str:
    """Return the command that makes the bundle, or why it cannot be made on this machine."""
    if platform.system() != "Linux" or platform.machine() not in _ARCHITECTURES:
        return _ELSEWHERE
    return apt.why_not() or f"the ARM64 bundle is not installed; get it with: {bundle.INSTALL}"
