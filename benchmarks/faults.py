"""What the commands do under faults: killed, given damaged files, and on disks that are full or may not be written.

    python benchmarks/faults.py                                   all of it, on two processors
    python benchmarks/faults.py --only run-inputs,kill-train      kinds whose names begin so
    python benchmarks/faults.py --kind manifest --seed 1234       one case, with all it says and where its files are

It prints how many cases there were of each kind and what came of them, then what went wrong, grouped, each with the
command that repeats it. The exit code is 1 where something did. With `--work DIR` what is tried on is kept for the next
run. Linux only: processes are forked, and what they change is seen at /proc.
"""

import argparse
import collections
import contextlib
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Protocol

import fault_disks
import fault_kills
from fault_inputs import Outcome
from fault_kinds import INPUTS
from fault_workload import Workload
from fault_writers import WRITERS

CHUNK = 20
QUIET = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "ORT_DISABLE_TELEMETRY"), "1")


class Kind(Protocol):
    """Cases of one kind, by seed."""

    @property
    def name(self) -> str:
        """Return what the command line calls it."""

    def needs(self) -> set[str]:
        """Return the parts of the workload that the cases are made from."""

    def prepare(self, workload: Workload) -> None:
        """Make this process one whose forks can run cases."""

    def cases(self, workload: Workload) -> int:
        """Return how many cases a full run has."""

    def run(self, workload: Workload, seed: int, keep: bool = False) -> Outcome:
        """Run the case of a seed; with `keep` its files stay."""


def kinds() -> dict[str, Kind]:
    """Return all kinds by name, those that need little first."""
    every: list[Kind] = [*INPUTS]
    for writer in WRITERS:
        every += [*fault_kills.kinds(writer), *fault_disks.kinds(writer)]
    return {kind.name: kind for kind in every}


_PREPARED: dict[str, Kind] = {}


def _prepared(name: str, workload: Workload) -> Kind:
    """Return a kind for which this process, which forks its cases, is warm."""
    if name not in _PREPARED:
        kind = kinds()[name]
        kind.prepare(workload)
        _PREPARED[name] = kind
    return _PREPARED[name]


def count(name: str, workload: Workload) -> int:
    """Return how many cases a kind has in a full run."""
    return _prepared(name, workload).cases(workload)


def run(name: str, seeds: Sequence[int], workload: Workload, keep: bool = False) -> list[Outcome]:
    """Run cases of one kind."""
    kind = _prepared(name, workload)
    return [kind.run(workload, seed, keep) for seed in seeds]


def repeat(name: str, seed: int, workload: Workload) -> int:
    """Run one case and print all about it; return the exit code."""
    with pool(1) as one:
        outcome = one.submit(run, name, [seed], workload, True).result()[0]
    print("\n".join(outcome.lines))
    print("\n".join(f"WRONG: {fault}" for fault in outcome.faults) or "nothing wrong")
    print(f"its files: {workload.folder / 'cases' / f'{name}-{seed}'}")
    return int(bool(outcome.faults))


def pool(processes: int) -> ProcessPoolExecutor:
    """Return processes that are started anew, with one thread each."""
    os.environ.update(QUIET)
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _no_monitor)


def _no_monitor() -> None:
    """Keep the converters' progress bars from starting a thread."""
    with contextlib.suppress(ImportError):
        import tqdm

        tqdm.tqdm.monitor_interval = 0


def run_all(names: Iterable[str], workload: Workload, share: float, processes: int) -> Iterator[Outcome]:
    """Run the cases of these kinds, or a share of them, each process taking the next few as it comes to them."""
    started = time.monotonic()
    with pool(processes) as workers:
        for name in names:
            total = workers.submit(count, name, workload).result()
            chosen = (
                range(total)
                if share >= 1
                else [int(n / share) for n in range(max(round(total * share), min(total, 1)))]
            )
            chunks = [chosen[start : start + CHUNK] for start in range(0, len(chosen), CHUNK)]
            print(f"... {time.monotonic() - started:.0f} s, {name}: {len(chosen)} of {total} cases", file=sys.stderr)
            if not chunks:
                print(f"{name}: nothing to be tried here", file=sys.stderr)
            for future in as_completed([workers.submit(run, name, chunk, workload) for chunk in chunks]):
                yield from future.result()


def table(outcomes: Mapping[str, list[Outcome]]) -> str:
    """Return a row for each kind: cases, faults, how they ended, the largest process, the slowest case."""
    rows = [f"{'kind':34} {'cases':>6} {'faults':>6} {'exit codes':36} {'MiB':>6} {'s':>6} {'seed':>6}"]
    for name, those in outcomes.items():
        codes = collections.Counter(str(outcome.code) for outcome in those)
        ended = ", ".join(f"{code}: {number}" for code, number in sorted(codes.items()))
        bad = sum(bool(outcome.faults) for outcome in those)
        peak, slowest = max(o.peak_bytes >> 20 for o in those), max(those, key=lambda o: o.seconds)
        rows.append(f"{name:34} {len(those):6} {bad:6} {ended:36} {peak:6} {slowest.seconds:6.1f} {slowest.seed:6}")
    every = [outcome for those in outcomes.values() for outcome in those]
    rows.append(f"{'all':34} {len(every):6} {sum(bool(outcome.faults) for outcome in every):6}")
    return "\n".join(rows)


def wrong(outcomes: Mapping[str, list[Outcome]]) -> list[str]:
    """Return what went wrong, grouped by kind and by what it was, each with the command that repeats the first case."""
    groups: dict[tuple[str, str], list[Outcome]] = collections.defaultdict(list)
    for name, those in outcomes.items():
        for outcome in those:
            for fault in outcome.faults:
                groups[name, fault].append(outcome)
    return [
        f"{len(those):5} x {name}: {fault}\n        python benchmarks/faults.py --kind {name} --seed {those[0].seed}"
        for (name, fault), those in sorted(groups.items(), key=lambda item: (item[0][0], -len(item[1])))
    ]


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="Kinds whose names begin with one of these words, with commas between.")
    parser.add_argument("--kind", help="One kind, of which --seed says which case.")
    parser.add_argument("--seed", type=int, help="The case of --kind.")
    parser.add_argument("--share", type=float, default=1.0, help="What share of the cases to run.")
    parser.add_argument("--processes", type=int, default=2, help="How many processes fork cases.")
    parser.add_argument("--work", type=Path, help="Where what is tried on is made and kept.")
    parser.add_argument("--list", action="store_true", help="List the kinds.")
    options = parser.parse_args()
    every = kinds()
    if options.list:
        print("\n".join(every))
        return 0
    begins = tuple((options.kind or options.only or "").split(","))
    chosen = [name for name in every if (name == options.kind if options.kind else name.startswith(begins))]
    if not chosen or (options.kind and options.seed is None):
        parser.error("no such kind, or no --seed for it; --list lists the kinds")
    work = options.work or Path(tempfile.mkdtemp(prefix="faults-"))
    work.mkdir(parents=True, exist_ok=True)
    workload = Workload(work.resolve())
    started = time.monotonic()
    workload.make({part for name in chosen for part in every[name].needs()})
    print(f"made what is tried on in {time.monotonic() - started:.0f} s", file=sys.stderr)
    if options.kind:
        return repeat(options.kind, options.seed, workload)
    outcomes: dict[str, list[Outcome]] = collections.defaultdict(list)
    started = time.monotonic()
    for outcome in run_all(chosen, workload, options.share, options.processes):
        outcomes[outcome.kind].append(outcome)
    found = wrong(outcomes)
    print(table(outcomes))
    print(f"{time.monotonic() - started:.0f} s on {options.processes} processes")
    print("\n".join(found) or "nothing went wrong")
    if options.work is None:
        shutil.rmtree(work)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
