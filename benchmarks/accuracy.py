"""The seven rows of the CoCorrRec paper's Table 1, each with its own learning rate, over three seeds, in one table.

    python benchmarks/accuracy.py --data amazon-beauty.tsv.gz amazon-video-games.tsv.gz --runs DIR [--models DIN,SCN]

Every row has the same budget: as many epochs at most, as much patience, and the same search for a learning rate among
the paper's four on the first seed. The search begins at 5e-3 and goes up, or else down, while the validation NDCG@10
rises; so it takes two to four runs. The rate that it finds is then trained from the other seeds. Equal seeds mean
equal test cases for all rows, so that differences between rows are taken seed by seed.

Each run is a checkpoint in DIR that `cocorr-train` could have written; repeat the command, and it goes on where it was.
A C++ compiler is needed: Mamba4Rec's blocks are trained compiled.
"""

import argparse
import functools
import json
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch._dynamo import config as compiler

from models.baselines.mamba4rec import Mixer
from models.training.resume import SELECTION
from models.training.run import run as train_and_write
from models.training.settings import Filters, Request, Settings

RATES = (1e-3, 2e-3, 5e-3, 1e-2)  # the paper's, in this order
FIRST = 2  # of RATES, where the search begins
ROWS = {
    "DIN": ("din", {}),
    "GRU4Rec": ("gru4rec", {}),
    "SASRec": ("sasrec", {}),
    "BERT4Rec": ("bert4rec", {}),
    "Mamba4Rec": ("mamba4rec", {}),
    "SCN": ("scn", {}),
    "SCN+GCN": ("scn", {"gcn": 1}),
}
DIFFERENCES = (("SCN", "GRU4Rec"), ("SCN", "SASRec"), ("SCN+GCN", "SCN"))
METRICS = ("UAUC", "NDCG@5", "NDCG@10", "NDCG@20", "HitRate@5", "HitRate@10", "HitRate@20")


@dataclass(frozen=True)
class Budget:
    """What every run of every row is given."""

    epochs: int
    patience: int
    weight_decay: float
    batch_size: int
    history: int
    initial_std: float | None


@dataclass(frozen=True)
class Run:
    """One training: a row of the table on a file of interactions, at a learning rate and from a seed."""

    row: str
    data: Path
    rate: float
    seed: int

    @property
    def dataset(self) -> str:
        """Return the file's name without its endings."""
        return self.data.name.partition(".")[0]

    def folder(self, runs: Path) -> Path:
        """Return where its checkpoint is kept."""
        return runs / self.dataset / f"{self.row.lower()}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True)
class Row:
    """The runs of one row on one dataset: validation NDCG@10 by learning rate, and the test of the best one by seed."""

    name: str
    dataset: str
    tried: Mapping[float, float]
    metrics: Sequence[Mapping[str, Any]]

    @property
    def rate(self) -> float:
        """Return the learning rate that was best on the validation clicks."""
        return max(self.tried, key=lambda rate: self.tried[rate])

    def values(self, metric: str) -> list[float]:
        """Return a metric of the test clicks, seed by seed."""
        return [measured(run, "test", metric) for run in self.metrics]


def measured(run: Mapping[str, Any], part: str, metric: str) -> float:
    """Return a metric of a part of a run, such as "test"; the corrected one where there are corrections."""
    return float((run.get(f"{part}_corrected") or run[part])[metric])


def search(validate: Callable[[float], float]) -> dict[float, float]:
    """Return what `validate` gives for the rates that are tried: up from the first one, or else down from it."""
    tried = {RATES[FIRST]: validate(RATES[FIRST])}
    for path in (RATES[FIRST + 1 :], RATES[FIRST - 1 :: -1]):
        before = tried[RATES[FIRST]]
        for rate in path:
            tried[rate] = validate(rate)
            if tried[rate] <= before:
                break
            before = tried[rate]
        if max(tried.values()) > tried[RATES[FIRST]]:
            break
    return tried


def train(run: Run, runs: Path, budget: Budget) -> Mapping[str, Any]:
    """Return the metrics of a run, which is trained unless its folder has them; raises ValueError for other ones."""
    torch.set_num_threads(1)
    model, architecture = ROWS[run.row]
    settings = Settings(run.seed, learning_rate=run.rate, **asdict(budget))
    folder = run.folder(runs)
    request = Request(model, architecture, run.data, folder, settings, Filters())
    if not (folder / "metrics.json").exists():
        label = f"{run.dataset} {run.row} {run.rate:g} seed {run.seed}"
        if model == "mamba4rec":
            compile_scan(runs)

        def report(_done: int, _total: int, note: str) -> None:
            if note:
                print(f"{label}: {note}", file=sys.stderr, flush=True)

        train_and_write(request, report)
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    if metrics["command"] != request.command:
        raise ValueError(f"{folder} is of another budget ({metrics['command']}); choose another folder for --runs")
    return dict(metrics)


@functools.cache  # once for a process
def compile_scan(runs: Path) -> None:
    """Let Mamba4Rec's block be compiled for training: taken one operation at a time, its row alone costs all others."""
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(runs / "compiled")
    compiler.recompile_limit = 64  # one for each length, twice: all positions, or only the last one
    plain = Mixer.forward
    compiled = torch.compile(plain, dynamic=True)
    Mixer.forward = lambda mixer, *given: (compiled if mixer.training else plain)(mixer, *given)


def measure(name: str, data: Path, seeds: int, runs: Path, budget: Budget) -> Row:
    """Search a row's learning rate on the first seed, train it from all seeds, and return what was measured."""
    first = Run(name, data, RATES[FIRST], seed=0)
    tried = search(lambda rate: measured(train(replace(first, rate=rate), runs, budget), "validation", SELECTION))
    row = Row(name, first.dataset, tried, ())
    chosen = [replace(first, rate=row.rate, seed=seed) for seed in range(seeds)]
    return replace(row, metrics=[train(run, runs, budget) for run in chosen])


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def render(rows: Sequence[Row], budget: Budget, seeds: int, command: str) -> str:
    """Return the report in Markdown."""
    std = budget.initial_std
    start = "first weights as each model draws them" if std is None else f"all first weights from N(0, {std:g})"
    lines = [
        "# The models of CoCorrRec's Table 1",
        "",
        f"    {command}",
        "",
        f"Mean and sample standard deviation over {seeds} seeds; 1 positive to 100 sampled negatives per user, the last"
        " click for the test and the one before for validation. A seed draws weights, item ids, batches, negatives of"
        " training and of the test. Budget of each run: at most"
        f" {budget.epochs} epochs, ended after {budget.patience} without a better validation {SELECTION}, batches of"
        f" {budget.batch_size}, history {budget.history}, 1 to 4 negatives, AdamW with weight decay"
        f" {budget.weight_decay:g}, {start}. The learning rate is that of the best validation {SELECTION} from seed 0.",
    ]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        own = {row.name: row for row in rows if row.dataset == dataset}
        names = [name for name in ROWS if name in own]
        lines += ["", f"## {dataset}", ""]
        lines += ["| model | learning rate | best epochs | s per epoch | " + " | ".join(METRICS) + " |"]
        lines += ["|---" * (4 + len(METRICS)) + "|"]
        for name in names:
            row = own[name]
            epochs = [max(run["epochs"], key=lambda epoch: epoch[SELECTION])["epoch"] for run in row.metrics]
            seconds = [epoch["seconds"] for run in row.metrics for epoch in run["epochs"]]
            figures = [spread(row.values(metric)) for metric in METRICS]
            cells = [name, f"{row.rate:g}", ", ".join(f"{epoch:g}" for epoch in epochs)]
            lines.append(f"| {' | '.join([*cells, f'{statistics.median(seconds):.0f}', *figures])} |")
        runs = own[names[0]].metrics  # equal seeds have equal test cases
        popular = [spread([measured(run, "test_by_popularity", metric) for run in runs]) for metric in METRICS]
        lines.append(f"| by popularity | - | - | - | {' | '.join(popular)} |")
        lines += ["", f"Validation {SELECTION} of the search, by learning rate:", ""]
        lines += ["| model | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|---" * (1 + len(RATES)) + "|"]
        for name in names:
            cells = [f"{own[name].tried[rate]:.4f}" if rate in own[name].tried else "-" for rate in RATES]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        compared = [pair for pair in DIFFERENCES if own.keys() >= set(pair)]
        lines += [""] if compared else []
        lines += [difference(own[one], own[other]) for one, other in compared]
    return "\n".join([*lines, ""])


def difference(one: Row, other: Row) -> str:
    """Return a line with how much the first row's test NDCG@10 is above the second's, and the spread of that."""
    by_seed = [a - b for a, b in zip(one.values(SELECTION), other.values(SELECTION), strict=True)]
    mean, deviation = statistics.mean(by_seed), statistics.stdev(by_seed)
    spreads = statistics.stdev(one.values(SELECTION)) + statistics.stdev(other.values(SELECTION))
    verdict = "more" if abs(mean) > max(deviation, spreads) else "no more"
    return (
        f"- {one.name} less {other.name}, {SELECTION}: {mean:+.4f} ± {deviation:.4f} seed by seed, {verdict} than the"
        f" spread (both rows' deviations together: {spreads:.4f})"
    )


def main() -> None:
    """Train what is missing and write the report beside this file or where --output says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--runs", type=Path, required=True, help="a folder for the checkpoints of all runs")
    parser.add_argument("--models", default=",".join(ROWS))
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--patience", type=int, default=1)
    parser.add_argument("--weight-decay", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--history", type=int, default=10)
    parser.add_argument("--initial-std", type=float, help="of all first weights, in place of what each model draws")
    parser.add_argument("--jobs", type=int, default=2, help="rows that are trained at a time, one thread each")
    given = parser.parse_args()
    budget = Budget(
        *(given.epochs, given.patience, given.weight_decay, given.batch_size, given.history, given.initial_std)
    )
    names = given.models.split(",")
    if unknown := sorted({*names} - {*ROWS}):
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(ROWS)}")
    if given.seeds < 2:
        parser.error("a spread needs --seeds of 2 or more")
    # The last rows take longest, so they come first: at the end no core waits long for another.
    tasks = [(name, data) for name in reversed(names) for data in given.data]
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(measure, name, data, given.seeds, given.runs, budget) for name, data in tasks]
        rows = [task.result() for task in waiting]
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    given.output.write_text(render(rows, budget, given.seeds, " ".join(["python benchmarks/accuracy.py", *words])))
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
