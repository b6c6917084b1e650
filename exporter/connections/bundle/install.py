"""Fetch and build the ARM64 bundle from this machine's own apt and pip sources, without root.

Downloads are kept until the bundle is whole, so that an interrupted installation goes on where it was. apt works on
folders of its own: neither the machine's package lists nor its list of architectures change.
"""

import fcntl
import fnmatch
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from exporter.connections import agent, bundle
from exporter.connections.bundle import pins
from exporter.connections.bundle.apt import Apt
from exporter.connections.exchange import printable
from exporter.core.errors import RuntimeMissingError, SetupError

Report = Callable[[str], None]

_TIME_LIMIT_S = 1200
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}  # what Linux calls them -> what Debian does
_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
# Started in the finished bundle: an import or a symbol that is missing shows here and not in a run.
_PROBE = (
    "import runpy, sys; agent = runpy.run_path(sys.argv[1]);"
    "print([agent['start_runtime'](target, 1).name for target in ('onnx', 'tflite', 'executorch')])"
)
_NOT_NEEDED = ("usr/share", "etc", "usr/lib/aarch64-linux-gnu/gconv", "usr/lib/python3/dist-packages")


def install(report: Report) -> bundle.Bundle:
    """Make the bundle unless it is there; raises SetupError and leaves no half of it."""
    place = bundle.place()
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second installation waits, and then finds the bundle
        if not (place / bundle.LOCK).exists():
            work = place.parent / "work"
            shutil.rmtree(work, ignore_errors=True)
            _make(work, place.parent / "downloads", report)
            shutil.rmtree(place, ignore_errors=True)
            work.rename(place)
            shutil.rmtree(place.parent / "downloads")
    return bundle.find()


def _make(work: Path, downloads: Path, report: Report) -> None:
    """Build the whole bundle in `work`."""
    machine = _ARCHITECTURES.get(platform.machine())
    if platform.system() != "Linux" or machine is None:
        raise SetupError(
            "the ARM64 bundle is made on x86_64 and ARM64 Linux; on this machine use ssh or adb to reach one"
        )
    root = work / bundle.ROOT
    root.mkdir(parents=True)
    report("1/6 reading the package lists of this machine's apt sources")
    apt = Apt(downloads / "apt")
    apt.update(tuple(pins.DEBIAN))
    report("2/6 fetching and unpacking Debian packages")
    headers, emulator = work / "headers", work / "emulator"
    wanted = [(release, name, "arm64") for release, names in pins.DEBIAN.items() for name in names]
    packages = apt.download([*wanted, (*pins.HEADERS, "arm64"), (*pins.EMULATOR, machine)])
    folders = {pins.HEADERS[1]: headers, pins.EMULATOR[1]: emulator}
    for package in packages:
        apt.unpack(package, folders.get(package.name, root))
    made = [package.part for package in packages]
    (emulator / "usr" / "bin" / bundle.QEMU).rename(work / bundle.QEMU)
    shutil.rmtree(emulator)
    report("3/6 fetching wheels")
    wheels = {name: _wheel(downloads / "wheels", name, wheel, foreign=True) for name, wheel in pins.WHEELS.items()}
    compiler = _wheel(downloads / "wheels", "ziglang", pins.COMPILER, foreign=False)
    report("4/6 unpacking wheels")
    for name, path in wheels.items():
        _unzip(path, root / bundle.SITE if name != "executorch" else work / name, pins.WHEELS[name].drop)
        made.append({"name": name, "version": pins.WHEELS[name].version, "sha256": _sha256(path)})
    report("5/6 compiling the runner for ExecuTorch")
    _unzip(compiler, work / "compiler", ())
    _compile(work, root, headers)
    for folder in ("compiler", "headers", "executorch"):
        shutil.rmtree(work / folder)
    for name in _NOT_NEEDED:
        shutil.rmtree(root / name, ignore_errors=True)
    report("6/6 starting all three runtimes")
    _probe(work, root)
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
    _call(command, f"pip could not fetch {name} {wheel.version} for ARM64")
    found = _known(folder, wheel)
    if found is None:
        raise SetupError(f"pip fetched {name} {wheel.version}, but no wheel with the SHA-256 that is pinned")
    return found


def _known(folder: Path, wheel: pins.Wheel) -> Path | None:
    return next((path for path in sorted(folder.glob("*.whl")) if _sha256(path) in wheel.sha256), None)


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


def _compile(work: Path, root: Path, headers: Path) -> None:
    """Compile the runner and the stand-in for torch's libraries, beside ExecuTorch's own library."""
    libraries = root / bundle.LIBRARIES
    wheel = work / "executorch"
    (binding,) = wheel.glob("executorch/extension/pybindings/_portable_lib.*.so")
    shutil.copyfile(binding, libraries / "libexecutorch.so")
    zig = [str(work / "compiler" / "ziglang" / "zig")]
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": str(work / "compiler" / "cache")}
    environment["ZIG_LOCAL_CACHE_DIR"] = environment["ZIG_GLOBAL_CACHE_DIR"]
    (work / "compiler" / "ziglang" / "zig").chmod(0o755)
    common = ["-target", "aarch64-linux-gnu.2.36", "-shared", "-fPIC", "-O2", "-fvisibility=hidden"]
    brought = [str(libraries / name) for name in ("libpthreadpool.so.0", "libcpuinfo.so.0")]
    _call(
        [
            *(
                *zig,
                "cc",
                *common,
                "-nostdlib",
                "-Wl,-soname,libc10.so",
                "-Wl,--no-as-needed",
                "-Wl,--allow-shlib-undefined",
            ),
            *("-o", str(libraries / "libc10.so"), str(bundle.NATIVE / "torch_symbols.c"), *brought),
        ],
        "zig could not compile torch_symbols.c",
        environment,
    )
    for name in ("libtorch.so", "libtorch_cpu.so", "libtorch_python.so"):
        (libraries / name).symlink_to("libc10.so")
    include, library = headers / "usr" / "include", wheel / "executorch" / "include"
    (standard,) = (include / "c++").iterdir()
    folders = [standard, include / "aarch64-linux-gnu" / "c++" / standard.name, library]
    folders.append(library / "executorch" / "runtime" / "core" / "portable_type" / "c10")
    _call(
        [
            *(*zig, "c++", *common, "-std=c++17", "-fno-rtti", "-fno-exceptions", "-nostdinc++", "-nostdlib++"),
            *("-Wno-deprecated-declarations", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-Wl,-z,undefs"),
            *(f"-I{folder}" for folder in folders),
            *("-o", str(libraries / "libcocorr_executorch.so"), str(bundle.NATIVE / "runner.cpp")),
            str(libraries / "libstdc++.so.6"),
        ],
        "zig could not compile runner.cpp",
        environment,
    )


def _probe(work: Path, root: Path) -> None:
    """Start the three runtimes in the new bundle; what Python compiles on the way stays in it, for quicker starts."""
    command = bundle.launch(str(root), ["-c", _PROBE, str(Path(agent.__file__))])
    variables = {**bundle.environment(str(root), 1), "PYTHONDONTWRITEBYTECODE": ""}
    _call([str(work / bundle.QEMU), "-cpu", "cortex-a76", *command], "the new bundle does not start", variables)


def _call(command: Sequence[str], failure: str, environment: dict[str, str] | None = None) -> None:
    """Run a command to its end; raises SetupError with what it said last."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=_TIME_LIMIT_S, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError(f"{failure}: {printable(str(error))}") from error
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise SetupError(f"{failure}: {printable(' '.join(lines[-2:])) or f'exit status {done.returncode}'}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def survey() -> dict[str, Any]:
    """Return what of the emulator is there, for `doctor`."""
    try:
        found = bundle.find().versions
    except RuntimeMissingError:
        found = {}
    ready = bool(found)
    wanted = {name: wheel.version for name, wheel in pins.WHEELS.items()}
    versions = {"qemu-user": found.get("qemu-user"), **{name: found.get(name) for name in wanted}}
    return {
        "connection": "emulator",
        "packages": versions,
        "ready": ready,
        "install": None if ready else bundle.INSTALL,
    }
