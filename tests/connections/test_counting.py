"""Instructions are counted exactly: programs of a known length, written down as bytes, and runs that repeat."""

import struct
from pathlib import Path

import pytest
from bundle import installed

from exporter.connections import bundle
from exporter.connections.counting import CountingError, count

pytestmark = pytest.mark.timeout(1200)  # whoever comes first installs the bundle

BASE = 0x400000
CALL = struct.pack("<I", 0xD4000001)  # svc #0


def move(register: int, value: int) -> bytes:
    """movz x<register>, #value"""
    return struct.pack("<I", 0xD2800000 | value << 5 | register)


def mark() -> bytes:
    """getpgid(0x5ca1ab1e): 4 instructions."""
    return struct.pack("<II", 0x52800000 | 0xAB1E << 5, 0x72A00000 | 0x5CA1 << 5) + move(8, 155) + CALL


def loop(times: int) -> bytes:
    """1 + 2 * times instructions: movz x1, #times; subs x1, x1, #1; b.ne -4."""
    return move(1, times) + struct.pack("<II", 0xF1000421, 0x54FFFFE1)


LEAVE = move(0, 0) + move(8, 93) + CALL


def program(folder: Path, code: bytes) -> Path:
    """Write a static ARM64 executable of one segment, its code after the headers."""
    start, size = 64 + 56, 64 + 56 + len(code)
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, BASE + start, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x10000)
    path = folder / "program"
    path.write_bytes(header + code)
    path.chmod(0o755)
    return path


@pytest.fixture
def counted(shared_folder, tmp_path, monkeypatch):
    pytest.importorskip("unicorn")
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed(shared_folder)))
    qemu = str(bundle.find().qemu)

    def run(code: bytes) -> int:
        return count([qemu, "-cpu", "cortex-a53", str(program(tmp_path, code))], {}, tmp_path)

    return run


@pytest.mark.parametrize("times", [1, 1000, 65535])
def test_counts_what_is_written_down(counted, times):
    assert counted(mark() + mark() + loop(times) + mark() + LEAVE) == 1 + 2 * times


def test_a_call_that_asks_linux_for_nothing_of_weight_is_counted(counted):
    clock = move(0, 0) + move(1, 0) + move(8, 113) + CALL
    assert counted(mark() + mark() + clock * 3 + mark() + LEAVE) == 12


FAULTS = {
    "no marker": (LEAVE, "the agent ended before its marker"),
    "a weighty call": (mark() + mark() + LEAVE, "it makes the system call 93, which is not counted"),
    "no memory": (mark() + struct.pack("<I", 0xF940003F | 1 << 5) + mark() + mark(), "where it has no memory"),
    "nonsense": (mark() + struct.pack("<I", 0) + mark() + mark(), "Unicorn does not know the instruction at 0x4000"),
}


@pytest.mark.parametrize("fault", sorted(FAULTS))
def test_what_cannot_be_counted_has_a_reason(counted, fault):
    code, words = FAULTS[fault]
    with pytest.raises(CountingError, match=words):
        counted(move(1, 8) + code)


def test_no_emulator_no_count(tmp_path):
    pytest.importorskip("unicorn")
    with pytest.raises(CountingError, match="did not open its debugging stub"):
        count(["false"], {}, tmp_path)
