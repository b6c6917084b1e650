"""What the ARM64 bundle is made of, pinned.

Wheels are pinned by version and SHA-256. Debian's packages are pinned by release: apt checks each against the archive's
signature, and the versions and hashes that came are written into the bundle; a release replaces a package only to mend
it, and keeps no copy of the one before.
"""

from dataclasses import asdict, dataclass
from typing import Any

PYTHON = "3.13"


@dataclass(frozen=True)
class Wheel:
    """A wheel: its version, the SHA-256 of each build that may be taken, and what is left out of it."""

    version: str
    sha256: tuple[str, ...]
    drop: tuple[str, ...] = ()


# Debian release -> packages for ARM64. Together they are what Python and the wheels link.
DEBIAN = {
    "trixie": (
        *("libc6", "libgcc-s1", "libstdc++6", "libgomp1", "zlib1g", "libbz2-1.0", "liblzma5", "libcrypt1"),
        *("libexpat1", "libffi8", "libssl3t64", "libuuid1"),
        *(f"libpython{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", f"python{PYTHON}-minimal"),
    ),
    # XNNPACK in ExecuTorch calls functions that the pthreadpool of trixie does not have yet, and reads the processor's
    # features out of cpuinfo's memory, which is laid out otherwise in trixie: it would choose the wrong kernels.
    "forky": ("libpthreadpool0", "libcpuinfo0"),
}
# Headers of the C++ library that the bundle has, for the native runner.
HEADERS = ("trixie", "libstdc++-14-dev")
# The emulator, for this machine. The one of bookworm crashes in ONNX Runtime and LiteRT.
EMULATOR = ("trixie", "qemu-user")

WHEELS = {
    "numpy": Wheel(
        "2.4.6", ("72fbe16c6fac95aedf5937fa873445cec2110be35d8a4e9433d7501fd98dae6b",), drop=("*/tests", "numpy/f2py")
    ),
    "onnxruntime": Wheel(
        "1.31.1",
        ("dcaedc50333876f3829ab966b242147f0e548229e29c36fe44622ecf748c25ee",),
        drop=("onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization", "onnxruntime/datasets"),
    ),
    "ai-edge-litert": Wheel(
        "2.3.0", ("2ab71e4f5dfa65b3882634b42755f455f3e7415630d720200bd792733e15e257",), drop=("*/tools",)
    ),
    "executorch": Wheel("1.4.1", ("1e75cd3efb0ee7e804e29e50a0139a1f985ea7ff55e173f2cd332f3e1fbfdeb2",)),
}
# The wheel that is not unpacked into the bundle: it wants torch, so a runner of ours is compiled against its library.
RUNNER = "executorch"
# zig compiles the runner: a cross compiler in one wheel, here for x86_64 and ARM64 Linux.
COMPILER = Wheel(
    "0.17.1",
    (
        "ea6cc5d87b033cf0aedfbc8f9549a908cae6c50ac31f1698188fa48a74524b54",
        "b7c5f02fccd40f89b999ee16a1f5ddced56e6182370f8affe494bcf8a28cf07e",
    ),
)


def pins() -> dict[str, Any]:
    """Return all that decides what a bundle is made of, as JSON has it."""
    wheels = {name: asdict(wheel) for name, wheel in WHEELS.items()}
    return {"python": PYTHON, "debian": DEBIAN, "headers": HEADERS, "emulator": EMULATOR, "wheels": wheels}
