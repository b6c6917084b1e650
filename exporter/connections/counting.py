"""Count the instructions of one inference: qemu runs the agent up to a marker, Unicorn goes on from there and counts.

Debian's qemu cannot count. Its debugging stub (GDB's remote serial protocol) stops the program at a system call and
gives registers and memory; Unicorn, the same translator as a library, takes them over, reads each page when it is
first touched, and tells the length of every block that it executes. The count does not depend on load or speed.
"""

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from exporter.connections.agent.marker import MARKER
from safeio.packages import how_to_get

_PAGE = 4096
_CHUNK = 1024  # bytes of memory in one answer of the stub
_CONNECT_S = 20.0
_LIMIT_S = 120.0
_SYSTEM_CALL = 2  # Unicorn's number of the exception that SVC raises
_NO_SUCH_PROCESS = (1 << 64) - 3
_X0, _X8, _SP, _PC, _CPSR, _V0, _FPSR, _FPCR = 0, 8, 31, 32, 33, 34, 66, 67  # in GDB's order
# What an inference may ask of Linux while it is counted (arm64 numbers): waking nobody, the time, to yield, advice.
_HARMLESS = {98: "futex", 113: "clock_gettime", 124: "sched_yield", 233: "madvise"}
_GETPGID = 155


class CountingError(Exception):
    """Why the instructions could not be counted."""


class Stub:
    """A client of qemu's debugging stub; raises CountingError for what it does not answer."""

    def __init__(self, path: Path, process: "subprocess.Popen[bytes]") -> None:
        self._buffer = b""
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_LIMIT_S)
        end = time.monotonic() + _CONNECT_S
        while True:
            with contextlib.suppress(OSError):
                self._socket.connect(str(path))
                return
            if process.poll() is not None or time.monotonic() > end:
                raise CountingError("the emulator did not open its debugging stub")
            time.sleep(0.02)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def ask(self, command: str) -> bytes:
        """Send one command, with the acknowledgement of the last answer before it, and return the answer."""
        words = command.encode()
        try:
            self._socket.sendall(b"+$%s#%02x" % (words, sum(words) % 256))
            while (found := re.search(rb"\$([^#]*)#..", self._buffer, re.S)) is None:
                received = self._socket.recv(1 << 16)
                if not received:
                    raise CountingError("the emulator ended before it was counted")
                self._buffer += received
        except OSError as error:
            raise CountingError(f"the emulator's debugging stub does not answer: {error}") from error
        self._buffer = self._buffer[found.end() :]
        return found.group(1)

    def stop_at_marker(self) -> None:
        """Run the program up to its first marker."""
        self.ask("qSupported:multiprocess-")
        if self.ask(f"QCatchSyscalls:1;{_GETPGID:x}") != b"OK":
            raise CountingError("this qemu cannot stop at system calls")
        while True:
            answer = self.ask("c")
            if answer[:1] in b"WX":
                raise CountingError("the agent ended before its marker")
            if b"syscall_entry" in answer and self.register(_X0) & 0xFFFFFFFF == MARKER:
                return

    def register(self, number: int) -> int:
        """Return a register, the low 128 bits of a longer one."""
        return int.from_bytes(bytes.fromhex(self.ask(f"p{number:x}").decode())[:16], "little")

    def thread_pointer(self) -> int:
        """Return TPIDR_EL0, whose number qemu gives in the description of its system registers."""
        text = b""
        while True:
            part = self.ask(f"qXfer:features:read:system-registers.xml:{len(text):x},{_CHUNK:x}")
            text += part[1:]
            if part[:1] != b"m":
                break
        found = re.search(rb'<reg name="TPIDR_EL0"[^>]*regnum="(\d+)"', text)
        if found is None:
            raise CountingError("this qemu does not tell the thread pointer")
        return self.register(int(found.group(1)))

    def page(self, address: int) -> bytes | None:
        """Return a page of memory, or None where the program has none."""
        content = b""
        while len(content) < _PAGE:
            answer = self.ask(f"m{address + len(content):x},{_CHUNK:x}")
            if answer.startswith(b"E"):
                return None
            content += bytes.fromhex(answer.decode())
        return content


def count(command: Sequence[str], variables: Mapping[str, str], folder: Path) -> int:
    """Start an emulator with a debugging stub by `command` and return the instructions of the marked call.

    Raises CountingError. `command` begins with qemu; nothing of it is left running.
    """
    try:
        import unicorn  # noqa: F401 - asked here, before anything is started
    except ModuleNotFoundError:
        raise CountingError(f"counting needs unicorn; {how_to_get(('unicorn',))}") from None
    stub_path = folder / "stub"
    qemu, *rest = command
    # Addresses decide a little of what a runtime does, so they are not left to chance.
    fixed = ["setarch", "-R"] if shutil.which("setarch") else []
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*fixed, qemu, "-R", "0x4000000000", "-g", str(stub_path), *rest],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        stub = Stub(stub_path, process)
        try:
            stub.stop_at_marker()
            return _replay(stub)
        finally:
            stub.close()
    finally:
        process.kill()
        process.wait()


def _replay(stub: Stub) -> int:
    """Go on in Unicorn from the first marker to the third; return the difference of the two stretches."""
    import unicorn
    from unicorn import arm64_const as arm

    machine = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
    machine.ctl_set_cpu_model(arm.UC_CPU_ARM64_MAX)
    executed, stretches, faults = 0, [0], list[str]()

    def on_block(_machine: Any, _address: int, size: int, _data: Any) -> None:
        nonlocal executed
        executed += size // 4

    def on_missing(_machine: Any, _access: int, address: int, size: int, _value: int, _data: Any) -> bool:
        for start in range(address & -_PAGE, address + max(size, 1), _PAGE):
            content = stub.page(start)
            if content is None:
                faults.append(f"it touches {address:#x}, where it has no memory")
                return False
            with contextlib.suppress(unicorn.UcError):  # the other page of two was there already
                machine.mem_map(start, _PAGE)
                machine.mem_write(start, content)
        return True

    def on_exception(_machine: Any, number: int, _data: Any) -> None:
        called = machine.reg_read(arm.UC_ARM64_REG_X8)
        if number != _SYSTEM_CALL:
            place = machine.reg_read(arm.UC_ARM64_REG_PC)
            faults.append(f"Unicorn does not know the instruction at {place:#x}")
            machine.emu_stop()
        elif called == _GETPGID:
            stretches.append(executed)
            machine.reg_write(arm.UC_ARM64_REG_X0, _NO_SUCH_PROCESS)
            if len(stretches) == 3:  # the first marker is where it began
                machine.emu_stop()
        elif called in _HARMLESS:
            machine.reg_write(arm.UC_ARM64_REG_X0, 0)
        else:
            faults.append(f"it makes the system call {called}, which is not counted")
            machine.emu_stop()

    missing = unicorn.UC_HOOK_MEM_READ_UNMAPPED | unicorn.UC_HOOK_MEM_WRITE_UNMAPPED
    machine.hook_add(missing | unicorn.UC_HOOK_MEM_FETCH_UNMAPPED, on_missing)
    machine.hook_add(unicorn.UC_HOOK_BLOCK, on_block)
    machine.hook_add(unicorn.UC_HOOK_INTR, on_exception)
    for number in range(29):
        machine.reg_write(arm.UC_ARM64_REG_X0 + number, stub.register(number))
    machine.reg_write(arm.UC_ARM64_REG_X29, stub.register(29))
    machine.reg_write(arm.UC_ARM64_REG_X30, stub.register(30))
    machine.reg_write(arm.UC_ARM64_REG_SP, stub.register(_SP))
    machine.reg_write(arm.UC_ARM64_REG_NZCV, stub.register(_CPSR) & 0xF0000000)
    for number in range(32):
        machine.reg_write(arm.UC_ARM64_REG_Q0 + number, stub.register(_V0 + number))
    machine.reg_write(arm.UC_ARM64_REG_FPSR, stub.register(_FPSR))
    machine.reg_write(arm.UC_ARM64_REG_FPCR, stub.register(_FPCR))
    machine.reg_write(arm.UC_ARM64_REG_TPIDR_EL0, stub.thread_pointer())
    machine.reg_write(arm.UC_ARM64_REG_X0, _NO_SUCH_PROCESS)  # the first marker's own answer
    try:
        machine.emu_start(stub.register(_PC), 0, timeout=int(_LIMIT_S * 1e6))
    except unicorn.UcError as error:
        faults.append(f"Unicorn: {error}")
    if len(stretches) != 3:
        raise CountingError(faults[0] if faults else "the call did not come to its end")
    empty, whole = stretches[1], stretches[2] - stretches[1]
    return whole - empty
