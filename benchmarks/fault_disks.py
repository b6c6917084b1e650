"""A full disk and a folder that may not be written, at every write of the five commands that write."""

import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import fault_hooks as hooks
import fault_processes as processes
from fault_inputs import HEAVY, Outcome, case_folder
from fault_kills import SIZES, count_calls, reference
from fault_workload import Workload
from fault_writers import BrokenError, Writer, entries

ZONES = ("out", "tmp", "size", "denied")
NOBODY = 65534


@dataclass
class Disk:
    """One command on a disk that is full from its n-th new file on, that takes files of a size only, or is read-only.

    It ends with exit code 2 and one line, leaves nothing and keeps what stood there; or it needs no more than there is.
    """

    writer: Writer
    with_earlier: bool
    zone: str
    after: object = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Return command, situation and zone."""
        return f"disk-{self.writer.name}-{'earlier' if self.with_earlier else 'new'}-{self.zone}"

    def needs(self) -> set[str]:
        """Return the parts of the workload that the cases are made from."""
        return self.writer.needs()

    def prepare(self, workload: Workload) -> None:
        """Run the command in this process, so that forks of it start warm, and note its result."""
        self.after = reference(self.writer, self.with_earlier, workload)

    def cases(self, workload: Workload) -> int:
        """Return how many writes can fail."""
        if self.zone == "size":
            return len(SIZES)
        if self.zone == "denied":
            return (2 if self._stands else 1) if _can_be_denied(workload) else 0
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
            _protect(folder, folder / (self.writer.place if seed else "out"))
        ended = processes.run(self.writer.words, folder, self._limit(folder, seed))
        found = processes.faults(ended, HEAVY)
        if ended.code not in (0, 2):
            found.append(f"exit code {ended.code} in place of 2: {ended.line()}")
        strange = self.writer.strangers(folder, there, unfinished=ended.code != 0)
        found += [f"left behind after exit code {ended.code}: {strange[0]} ({len(strange)} entries)"] if strange else []
        try:
            state = self.writer.state(folder)
            if state != (self.after if ended.code == 0 else before):
                found.append(f"exit code {ended.code}, and the result is {'gone' if state is None else 'another one'}")
        except BrokenError as error:
            found.append(str(error))
        if not keep:
            _unprotect(folder)
            shutil.rmtree(folder)
        return Outcome(self.name, seed, ended.code, ended.seconds, ended.peak_bytes, tuple(found), (ended.line(),))

    def _limit(self, folder: Path, seed: int) -> Callable[[], None]:
        def prepare() -> None:
            if self.zone == "size":  # Python ignores SIGXFSZ, so that the write fails
                resource.setrlimit(resource.RLIMIT_FSIZE, (SIZES[seed], resource.RLIM_INFINITY))
            elif self.zone == "denied":
                become_nobody()
            else:
                hooks.watch(folder / self.zone, hooks.full_from(seed + 1), hooks.CREATING)

        return prepare


def become_nobody() -> None:
    """Give up root's rights, to whom permissions are nothing; does nothing for others."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)


def _can_be_denied(workload: Workload) -> bool:
    """Say whether a process without root's rights can run the commands here at all."""
    import sys

    process = os.fork()
    if not process:
        become_nobody()
        places = (Path(sys.executable), Path(__file__), workload.folder)
        os._exit(
            0 if all(os.access(place, os.R_OK | os.X_OK if place.is_dir() else os.R_OK) for place in places) else 1
        )
    return os.waitpid(process, 0)[1] == 0


def _protect(folder: Path, place: Path) -> None:
    """Let the user of the command read all of a case, and write everything but one folder or file and what is in it."""
    for path in (folder, *folder.rglob("*")):
        if os.geteuid() == 0:
            os.chown(path, NOBODY, NOBODY)
        path.chmod(0o755 if path.is_dir() else 0o644)
    for path in (place, *place.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _unprotect(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def kinds(writer: Writer) -> list[Disk]:
    """Return the kinds of disks for a command: with an earlier result and without, in all zones."""
    return [Disk(writer, with_earlier, zone) for with_earlier in (True, False) for zone in ZONES]
