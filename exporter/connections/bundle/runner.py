"""Compile the native runner for ExecuTorch, which does without torch, and the stand-in for torch's libraries."""

import os
import shutil
from pathlib import Path

from exporter.connections import bundle
from exporter.connections.bundle.pins import RUNNER
from exporter.connections.bundle.tool import call

_COMMON = ("-target", "aarch64-linux-gnu.2.36", "-shared", "-fPIC", "-O2", "-fvisibility=hidden")


def build(work: Path, root: Path, headers: Path) -> None:
    """Compile both beside ExecuTorch's own library in `root`; `work` has its wheel and the compiler, unpacked."""
    libraries = root / bundle.LIBRARIES
    wheel = work / RUNNER
    (binding,) = wheel.glob("executorch/extension/pybindings/_portable_lib.*.so")
    shutil.copyfile(binding, libraries / "libexecutorch.so")
    zig = work / "compiler" / "ziglang" / "zig"
    zig.chmod(0o755)
    cache = str(work / "compiler" / "cache")
    environment = {**os.environ, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    _compile_stand_in(zig, libraries, environment)
    _compile_runner(zig, libraries, wheel, headers, environment)


def _compile_stand_in(zig: Path, libraries: Path, environment: dict[str, str]) -> None:
    brought = [str(libraries / name) for name in ("libpthreadpool.so.0", "libcpuinfo.so.0")]
    call(
        [
            *(str(zig), "cc", *_COMMON, "-nostdlib", "-Wl,-soname,libc10.so"),
            *("-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"),
            *("-o", str(libraries / "libc10.so"), str(bundle.NATIVE / "torch_symbols.c"), *brought),
        ],
        "zig could not compile torch_symbols.c",
        environment,
    )
    for name in ("libtorch.so", "libtorch_cpu.so", "libtorch_python.so"):
        (libraries / name).symlink_to("libc10.so")


def _compile_runner(zig: Path, libraries: Path, wheel: Path, headers: Path, environment: dict[str, str]) -> None:
    include, library = headers / "usr" / "include", wheel / "executorch" / "include"
    (standard,) = (include / "c++").iterdir()
    folders = [standard, include / "aarch64-linux-gnu" / "c++" / standard.name, library]
    folders.append(library / "executorch" / "runtime" / "core" / "portable_type" / "c10")
    call(
        [
            *(str(zig), "c++", *_COMMON, "-std=c++17", "-fno-rtti", "-fno-exceptions", "-nostdinc++", "-nostdlib++"),
            *("-Wno-deprecated-declarations", "-DC10_USING_CUSTOM_GENERATED_MACROS", "-Wl,-z,undefs"),
            *(f"-I{folder}" for folder in folders),
            *("-o", str(libraries / "libcocorr_executorch.so"), str(bundle.NATIVE / "runner.cpp")),
            str(libraries / "libstdc++.so.6"),
        ],
        "zig could not compile runner.cpp",
        environment,
    )
