"""A full disk and a folder that may not be written, at every write of the five commands that write."""

import ctypes
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import fault_hooks as hooks
import fault_processes as processes
from fault_inputs import HEAVY, Outcome, case_folder
from fault_kills import SIZES, Fault, count_calls
from fault_workload import Workload
from fault_writers import BrokenError, Writer, entries

ZONES = ("out", "tmp", "size", "denied")

# From linux/capability.h and linux/prctl.h: CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER.
_OVERRIDES = (1, 2, 3)
_CAPABILITY_VERSION, _BOUNDING_SET_DROP = 0x20080522, 24


@dataclass
class Disk(Fault):
    """One command on a disk that is full from its n-th new file on, that takes files of a size only, or is read-only.

    It ends with exit code 2 and one line, leaves nothing and keeps what stood there; or it needs no more than there is.
    """

    VERB = "disk"

    def cases(self, workload: Workload) -> int:
        """Return how many writes can fail."""
        if self.zone == "size":
            return len(SIZES)
        if self.zone == "denied":
            return (2 if self._stands else 1) if _can_be_denied(case_folder(workload, f"denied-{os.getpid()}")) else 0
        return count_calls(self.writer, self.with_earlier, self.zone, hooks.CREATING, workload)

    @property
    def _stands(self) -> bool:
        return self.with_earlier or self.writer.begins is not None

    def run(self, workload: Workload, seed: int, keep: bool = False) -> Outcome:
        """Let write number `seed`, from 0, fail, and look at what is there afterwards."""
        folder = case_folder(workload, f"{self.name}-{seed}")
        before = self.writer.lay_out(workload, folder, self.with_earlier)
        there = entries(folder)
        if self.zone == "denied":
            _set_modes(folder / (self.writer.place if seed else "out"), 0o555, 0o444)
        ended = processes.run(self.writer.words, folder, self._limit(folder, seed))
        found = processes.faults(ended, HEAVY)
        if ended.code not in (0, 2):
            found.append(f"exit code {ended.code} in place of 2: {ended.line()}")
        strange = self.writer.strangers(folder, there, unfinished=ended.code != 0) + self.writer.unfinished(folder)
        found += [f"left behind after exit code {ended.code}: {strange[0]} ({len(strange)} entries)"] if strange else []
        try:
            state = self.writer.state(folder)
            if state != (self.after if ended.code == 0 else before):
                found.append(f"exit code {ended.code}, and the result is {'gone' if state is None else 'another one'}")
        except BrokenError as error:
            found.append(str(error))
        if not keep:
            _set_modes(folder / "out", 0o755, 0o644)
            shutil.rmtree(folder)
        return Outcome(self.name, seed, ended.code, ended.seconds, ended.peak_bytes, tuple(found), (ended.line(),))

    def _limit(self, folder: Path, seed: int) -> Callable[[], None]:
        def prepare() -> None:
            if self.zone == "size":  # Python ignores SIGXFSZ, so that the write fails
                resource.setrlimit(resource.RLIMIT_FSIZE, (SIZES[seed], resource.RLIM_INFINITY))
            elif self.zone == "denied":
                obey_permissions()
            else:
                hooks.watch(folder / self.zone, hooks.full_from(seed + 1), hooks.CREATING)

        return prepare


def obey_permissions() -> None:
    """Give up root's right to read and write whatever the permissions say, for this process and those that it starts.

    Does nothing for other users, who have no such right. See capabilities(7).
    """
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)()
    failed = libc.capget(header, sets)
    for capability in _OVERRIDES:
        failed |= libc.prctl(_BOUNDING_SET_DROP, capability, 0, 0, 0)
        for place in range(3):  # effective, permitted and inheritable; capabilities from 32 on are in the second half
            sets[place] &= ~(1 << capability)
    failed |= libc.capset(header, sets)
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _can_be_denied(folder: Path) -> bool:
    """Say whether a process here can be one for which permissions count."""
    process = os.fork()
    if not process:
        code = 1
        try:
            obey_permissions()
            folder.chmod(0o555)
            code = int(os.access(folder, os.W_OK))
        finally:
            os._exit(code)
    denied = os.waitpid(process, 0)[1] == 0
    folder.chmod(0o755)
    return denied


def _set_modes(folder: Path, of_folders: int, of_files: int) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(of_folders if path.is_dir() else of_files)


def kinds(writer: Writer) -> list[Disk]:
    """Return the kinds of disks for a command: with an earlier result and without, in all zones."""
    return [Disk(writer, with_earlier, zone) for with_earlier in (True, False) for zone in ZONES]
