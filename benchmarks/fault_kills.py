"""Kills at every call of a command that changes a file, and in the middle of writes; then the same command again."""

import os
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import fault_hooks as hooks
import fault_processes as processes
from fault_inputs import HEAVY, Outcome, case_folder
from fault_workload import Workload
from fault_writers import BrokenError, Writer, entries

# A write past so many bytes of a file kills: SIGXFSZ with its default action, so that half of a file is there.
SIZES = (0, 1, 100, 4096, 20_000, 50_000, 100_000, 150_000, 200_000, 250_000)
ZONES = ("out", "tmp", "half")


@dataclass
class Fault:
    """One command in one situation, with something that goes wrong in one zone of its files."""

    VERB: ClassVar[str]
    writer: Writer
    with_earlier: bool
    zone: str
    after: object = field(default=None, init=False)

    @property
    def name(self) -> str:
        """Return command, situation and zone."""
        return f"{self.VERB}-{self.writer.name}-{'earlier' if self.with_earlier else 'new'}-{self.zone}"

    def needs(self) -> set[str]:
        """Return the parts of the workload that the cases are made from."""
        return self.writer.needs()

    def prepare(self, workload: Workload) -> None:
        """Run the command in this process, so that forks of it start warm, and note its result."""
        self.after = reference(self.writer, self.with_earlier, workload)


@dataclass
class Kill(Fault):
    """One command killed at calls that change its output or its temporary folder, or half through a write.

    After a kill the earlier result is whole or the new one is, and the same command again succeeds and leaves nothing.
    """

    VERB = "kill"

    def cases(self, workload: Workload) -> int:
        """Return how many calls there are at which the command can be killed."""
        if self.zone == "half":
            return len(SIZES)
        return count_calls(self.writer, self.with_earlier, self.zone, (*hooks.PATHS, "ctypes.dlsym"), workload)

    def run(self, workload: Workload, seed: int, keep: bool = False) -> Outcome:
        """Kill the command at its call number `seed`, from 0, look, run it again and look again."""
        folder = case_folder(workload, f"{self.name}-{seed}")
        before = self.writer.lay_out(workload, folder, self.with_earlier)
        there = entries(folder)
        killed = processes.run(self.writer.words, folder, self._killer(folder, seed))
        found = [] if killed.code in (-signal.SIGKILL, -signal.SIGXFSZ) else processes.faults(killed, HEAVY)
        if self.zone != "half" and killed.code != -signal.SIGKILL:
            found.append(f"call {seed} did not come: {killed.line()}")
        found += self._state(folder, (before, self.after), "after the kill")
        if self.writer.unfinished(folder):  # what a killed command left in an artifact does not make it a bad one
            judged = processes.run(("cocorr-export", "parity", self.writer.place), folder)
            found += [] if judged.code == 0 else [f"after the kill, of the artifact: {judged.line()}"]
        again = processes.run(self.writer.words, folder)
        found += processes.faults(again, HEAVY)
        if again.code != 0:
            found.append(f"the repeated command fails: {again.line()}")
        else:
            found += self._state(folder, (self.after,), "after the repeated command")
            strange = self.writer.strangers(folder, there, unfinished=False) + self.writer.unfinished(folder)
            found += (
                [f"left behind after the repeated command: {strange[0]} ({len(strange)} entries)"] if strange else []
            )
        if not keep:
            shutil.rmtree(folder)
        return Outcome(
            self.name, seed, again.code, killed.seconds + again.seconds, again.peak_bytes, tuple(found), (again.line(),)
        )

    def _state(self, folder: Path, allowed: tuple[object, ...], when: str) -> list[str]:
        try:
            state = self.writer.state(folder)
        except BrokenError as error:
            return [f"{when}: {error}"]
        if state in allowed:
            return []
        return [f"{when}: {'the result is gone' if state is None else 'another result than the old or the new one'}"]

    def _killer(self, folder: Path, seed: int) -> Callable[[], None]:
        def prepare() -> None:
            if self.zone == "half":
                signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
                resource.setrlimit(resource.RLIMIT_FSIZE, (SIZES[seed], resource.RLIM_INFINITY))
            else:
                hooks.watch(folder / self.zone, hooks.kill_at(seed + 1))

        return prepare


def reference(writer: Writer, with_earlier: bool, workload: Workload) -> object:
    """Run a command undisturbed in this process and return the essence of its result."""
    folder = case_folder(workload, f"rehearsal-{writer.name}-{os.getpid()}")
    before = writer.lay_out(workload, folder, with_earlier)
    processes.rehearse(writer.words, folder)
    after = writer.state(folder)
    if after in (None, before):
        raise RuntimeError(f"{writer.name} changes nothing that could be told: {after}")
    shutil.rmtree(folder)
    return after


def count_calls(writer: Writer, with_earlier: bool, zone: str, events: tuple[str, ...], workload: Workload) -> int:
    """Return how many calls of a command change a file in `zone`, a folder of its case."""
    folder = case_folder(workload, f"count-{writer.name}-{os.getpid()}")
    writer.lay_out(workload, folder, with_earlier)
    marks = folder / "marks"
    ended = processes.run(writer.words, folder, lambda: hooks.watch(folder / zone, hooks.count_in(marks), events))
    if ended.code != 0:
        raise RuntimeError(f"{writer.name} undisturbed: {ended.line()}")
    count = marks.stat().st_size
    shutil.rmtree(folder)
    return count


def kinds(writer: Writer) -> list[Kill]:
    """Return the kinds of kills of a command: with an earlier result and without, in all zones."""
    return [Kill(writer, with_earlier, zone) for with_earlier in (True, False) for zone in ZONES]
