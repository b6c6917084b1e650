"""Mutated inputs: every file that a command reads, damaged by the thousand, given to the command that reads it."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

import fault_processes as processes
from fault_processes import Ended
from fault_workload import Workload, relist

Mutation = Callable[[Random, bytes], bytes]
Words = tuple[str, ...]

LIGHT, HEAVY = 1 << 30, 2 << 30
"""How much resident memory a process may come to: without a vendor's converter or reader, and with one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one case; `lines` are for a person who repeats it."""

    kind: str
    seed: int
    code: int | None
    seconds: float
    peak_bytes: int
    faults: tuple[str, ...]
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Input:
    """A kind of input: one of `files` is mutated, then one of `words` run in a folder with copies of `parts`.

    `parts` maps a name in the folder of the case to a part of the workload. `listed` is the artifact whose manifest
    gets the new hash, so that its reader is reached. `ends` are the exit codes for undamaged input. `right` is the
    checkpoint that must come out where the input is accepted.
    """

    name: str
    count: int
    files: tuple[str, ...]
    mutate: Mutation
    parts: Mapping[str, str]
    words: tuple[Words, ...]
    most_bytes: int = LIGHT
    listed: str | None = None
    ends: tuple[int, ...] = (0,)
    right: str | None = None

    def prepare(self, workload: Workload) -> None:
        """Run all words on undamaged input, in this process, so that forks of it start warm."""
        for words in dict.fromkeys(self.words):
            folder = case_folder(workload, f"rehearsal-{self.name}-{os.getpid()}")
            self._lay_out(workload, folder)
            processes.rehearse(words, folder, self.ends)
            shutil.rmtree(folder)

    def cases(self, _: Workload) -> int:
        """Return how many cases a full run has; there are as many as there are seeds."""
        return self.count

    def needs(self) -> set[str]:
        """Return the parts of the workload that the cases are made from."""
        return {part.partition("/")[0] for part in self.parts.values()} | ({self.right} if self.right else set())

    def run(self, workload: Workload, seed: int, keep: bool = False) -> Outcome:
        """Run the case of a seed; with `keep` its folder stays and the outcome's lines say where it is."""
        rng = Random(f"{self.name}-{seed}")
        folder = case_folder(workload, f"{self.name}-{seed}")
        self._lay_out(workload, folder)
        file, words = folder / rng.choice(self.files), rng.choice(self.words)
        file.write_bytes(self.mutate(rng, file.read_bytes()))
        if self.listed is not None and rng.random() < 0.95:
            relist(folder / self.listed, file.relative_to(folder / self.listed).as_posix())
        before = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
        ended = processes.run(words, folder)
        found = (
            processes.faults(ended, self.most_bytes)
            + _left(folder, before, ended)
            + self._wrong(workload, folder, ended)
        )
        if not keep:
            shutil.rmtree(folder)
        lines = (f"{' '.join(words)} in {folder}, mutated: {file.relative_to(folder)}", *_said(ended)) if keep else ()
        return Outcome(
            self.name, seed, ended.code, ended.seconds, ended.peak_bytes, tuple(found), (*lines, ended.line())
        )

    def _lay_out(self, workload: Workload, folder: Path) -> None:
        for name, part in self.parts.items():
            source = workload.part(part.partition("/")[0]) / part.partition("/")[2]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)

    def _wrong(self, workload: Workload, folder: Path, ended: Ended) -> list[str]:
        """Say where a command that took damaged progress without a word trained something else."""
        if self.right is None or ended.code != 0:
            return []
        name = "model.safetensors"
        same = (folder / "out" / "ck" / name).read_bytes() == (workload.part(self.right) / name).read_bytes()
        return [] if same else ["accepted without a word, and trained something else"]


def case_folder(workload: Workload, name: str) -> Path:
    """Return an empty folder for a case."""
    folder = workload.folder / "cases" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _left(folder: Path, before: set[str], ended: Ended) -> list[str]:
    """Say what the command left that it should not have: hidden or temporary files, or results of a refused input."""
    new = [path.relative_to(folder) for path in folder.rglob("*") if path.relative_to(folder).as_posix() not in before]
    left = [path for path in new if path.parts[0] == "tmp" and len(path.parts) > 1]
    left += [path for path in new if path not in left and any(part.startswith(".") for part in path.parts)]
    if ended.code == 2:
        left += [path for path in new if path.parts[0].startswith("out") and path not in left]
    return [f"left behind after exit code {ended.code}: {_stable(left[0])}"] if left else []


def _stable(path: Path) -> str:
    """Return a path with hexadecimal and decimal parts of names taken out, so that equal ones are grouped."""
    return "".join("#" if character in "0123456789" else character for character in path.as_posix())[:60]


def _said(ended: Ended) -> list[str]:
    return [f"  {line}" for line in [*ended.err.splitlines(), *ended.out.splitlines()][-40:]]
