"""The seven rows of the CoCorrRec paper's Table 1, each with its own learning rate, over three seeds, in one table.

    python benchmarks/accuracy.py --data amazon-beauty.tsv.gz amazon-video-games.tsv.gz --runs DIR [--models DIN,SCN]
                                  [--batch-sizes 205,1024] [--min-user-clicks 11]

Batches are counted in positives. The published code counts rows, 1,024 a step, of which about 205 are positives, each
with its four negatives; the two budgets stand side by side, for one alone says little about which model is better.
`--min-user-clicks 11` is the paper's regime of users with more than ten clicks.

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
    filters: Filters

    @property
    def dataset(self) -> str:
        """Return the file's name without its endings."""
        return self.data.name.partition(".")[0]

    def folder(self, runs: Path, batch_size: int) -> Path:
        """Return where its checkpoint is kept."""
        return runs / self.dataset / f"{self.row.lower()}-{batch_size}-{self.rate:g}-{self.seed}"


@dataclass(frozen=True)
class Row:
    """The runs of one row on one dataset: validation NDCG@10 by learning rate, and the test of the best one by seed.

    `batch_size` is in positives a step.
    """

    name: str
    dataset: str
    batch_size: int
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
    folder = run.folder(runs, budget.batch_size)
    request = Request(model, architecture, run.data, folder, settings, run.filters)
    if not (folder / "metrics.json").exists():
        label = f"{run.dataset} {run.row} {budget.batch_size} a step {run.rate:g} seed {run.seed}"
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


def measure(name: str, data: Path, filters: Filters, seeds: int, runs: Path, budget: Budget) -> Row:
    """Search a row's learning rate on the first seed, train it from all seeds, and return what was measured."""
    first = Run(name, data, RATES[FIRST], 0, filters)
    tried = search(lambda rate: measured(train(replace(first, rate=rate), runs, budget), "validation", SELECTION))
    row = Row(name, first.dataset, budget.batch_size, tried, ())
    chosen = [replace(first, rate=row.rate, seed=seed) for seed in range(seeds)]
    return replace(row, metrics=[train(run, runs, budget) for run in chosen])


def spread(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def render(rows: Sequence[Row], budget: Budget, filters: Filters, seeds: int, command: str) -> str:
    """Return the report in Markdown; the budget's own batch size is not looked at, each row has its own."""
    std = budget.initial_std
    start = "first weights as each model draws them" if std is None else f"all first weights from N(0, {std:g})"
    least = filters.min_user_clicks
    lines = [
        "# The models of CoCorrRec's Table 1",
        "",
        f"    {command}",
        "",
        f"Mean and sample standard deviation over {seeds} seeds; 1 positive to 100 sampled negatives per user, the last"
        " click for the test and the one before for validation. A seed draws weights, item ids, batches, negatives of"
        " training and of the test. Budget of each run: at most"
        f" {budget.epochs} epochs, ended after {budget.patience} without a better validation {SELECTION}, as many"
        f" positives a step as each table says, history {budget.history}, 1 to 4 negatives, AdamW with weight decay"
        f" {budget.weight_decay:g}, {start}. The learning rate is that of the best validation {SELECTION} from seed 0."
        + (f" Only users with {least} clicks or more." if least > 1 else ""),
    ]
    for dataset in dict.fromkeys(row.dataset for row in rows):
        sizes = sorted({row.batch_size for row in rows})
        by_size = {size: _by_name(rows, dataset, size) for size in sizes}
        for size, own in by_size.items():
            lines += ["", f"## {dataset}, {size:,} positives a step", "", *tables(own)]
        lines += ["", f"## {dataset}, what the step changes", "", *comparison(by_size)]
    return "\n".join([*lines, ""])


def _by_name(rows: Sequence[Row], dataset: str, size: int) -> dict[str, Row]:
    found = {row.name: row for row in rows if (row.dataset, row.batch_size) == (dataset, size)}
    return {name: found[name] for name in ROWS if name in found}


def tables(own: Mapping[str, Row]) -> list[str]:
    """Return the lines of one dataset's tables under one budget: the test, and the search for learning rates."""
    lines = ["| model | learning rate | best epochs | s per epoch | " + " | ".join(METRICS) + " |"]
    lines += ["|---" * (4 + len(METRICS)) + "|"]
    for name, row in own.items():
        epochs = [max(run["epochs"], key=lambda epoch: epoch[SELECTION])["epoch"] for run in row.metrics]
        seconds = [epoch["seconds"] for run in row.metrics for epoch in run["epochs"]]
        figures = [spread(row.values(metric)) for metric in METRICS]
        cells = [name, f"{row.rate:g}", ", ".join(f"{epoch:g}" for epoch in epochs)]
        lines.append(f"| {' | '.join([*cells, f'{statistics.median(seconds):.0f}', *figures])} |")
    runs = next(iter(own.values())).metrics  # equal seeds have equal test cases
    popular = [spread([measured(run, "test_by_popularity", metric) for run in runs]) for metric in METRICS]
    lines.append(f"| by popularity | - | - | - | {' | '.join(popular)} |")
    lines += ["", f"Validation {SELECTION} of the search, by learning rate:", ""]
    lines += ["| model | " + " | ".join(f"{rate:g}" for rate in RATES) + " |", "|---" * (1 + len(RATES)) + "|"]
    for name, row in own.items():
        cells = [f"{row.tried[rate]:.4f}" if rate in row.tried else "-" for rate in RATES]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def comparison(by_size: Mapping[int, Mapping[str, Row]]) -> list[str]:
    """Return the lines that set budgets side by side: each row's NDCG@10, and differences that outlast the budget."""
    names = list(next(iter(by_size.values())))
    lines = [f"| {SELECTION} | " + " | ".join(f"{size:,} a step" for size in by_size) + " |"]
    lines += ["|---" * (1 + len(by_size)) + "|"]
    for name in names:
        cells = [spread(own[name].values(SELECTION)) for own in by_size.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    found = [
        difference({size: (own[one], own[other]) for size, own in by_size.items()})
        for one, other in DIFFERENCES
        if {one, other} <= set(names)
    ]
    return [*lines, "", *found] if found else lines


def difference(pairs: Mapping[int, tuple[Row, Row]]) -> str:
    """Return a line with how much first rows' test NDCG@10 is above second ones', by positives a step.

    An order is told only where two budgets or more agree on it, each by more than the rows' spread.
    """
    told, signs = [], set()
    for size, (one, other) in pairs.items():
        by_seed = [a - b for a, b in zip(one.values(SELECTION), other.values(SELECTION), strict=True)]
        mean, deviation = statistics.mean(by_seed), statistics.stdev(by_seed)
        spreads = statistics.stdev(one.values(SELECTION)) + statistics.stdev(other.values(SELECTION))
        signs.add((mean > 0) - (mean < 0) if abs(mean) > max(deviation, spreads) else 0)
        told.append(f"{mean:+.4f} ± {deviation:.4f} at {size:,} (both rows' deviations together: {spreads:.4f})")
    one, other = next(iter(pairs.values()))
    if len(pairs) < 2:
        verdict = "one budget, which says nothing of an order"
    elif signs in ({1}, {-1}):
        verdict = f"{'more' if signs == {1} else 'less'} in each budget, beyond the spread"
    else:
        verdict = "no order: the budgets disagree, or the spread is larger"
    return f"- {one.name} less {other.name}, {SELECTION}, seed by seed: {'; '.join(told)}: {verdict}"


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
    parser.add_argument("--batch-sizes", default="205,1024", help="positives a step, one budget each")
    parser.add_argument("--min-user-clicks", type=int, default=1, help="leave users with fewer clicks out")
    parser.add_argument("--history", type=int, default=10)
    parser.add_argument("--initial-std", type=float, help="of all first weights, in place of what each model draws")
    parser.add_argument("--jobs", type=int, default=2, help="rows that are trained at a time, one thread each")
    given = parser.parse_args()
    sizes = [int(size) for size in given.batch_sizes.split(",")]
    budgets = [
        Budget(given.epochs, given.patience, given.weight_decay, size, given.history, given.initial_std)
        for size in sizes
    ]
    filters = Filters(min_user_clicks=given.min_user_clicks)
    names = given.models.split(",")
    if unknown := sorted({*names} - {*ROWS}):
        parser.error(f"unknown model {unknown[0]!r}; known: {', '.join(ROWS)}")
    if given.seeds < 2:
        parser.error("a spread needs --seeds of 2 or more")
    # The last rows take longest, so they come first: at the end no core waits long for another.
    tasks = [(name, data, budget) for name in reversed(names) for data in given.data for budget in budgets]
    with ProcessPoolExecutor(given.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [
            pool.submit(measure, name, data, filters, given.seeds, given.runs, budget) for name, data, budget in tasks
        ]
        rows = [task.result() for task in waiting]
    words = [Path(word).name if os.sep in word else word for word in sys.argv[1:]]
    command = " ".join(["python benchmarks/accuracy.py", *words])
    given.output.write_text(render(rows, budgets[0], filters, given.seeds, command))
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
