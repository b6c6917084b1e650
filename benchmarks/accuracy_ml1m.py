"""Train DeviceRec, DUET and Forward-OFA on MovieLens-1M under one budget and set them beside the published figures.

Items with more than 20 interactions, each user's last item for the test, ranked among all items. MovieLens may not be
redistributed, so its file is given by the caller: tab separated with the columns user, item, order. Run for example
    python benchmarks/accuracy_ml1m.py --data ml-1m.tsv.gz --epochs 2 --targets-per-user 20
"""

import argparse
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from models.forward_ofa.supernet import Supernet
from models.training.cli import BLOCKS, DEFAULTS, Progress
from models.training.data import Interactions, read_interactions
from models.training.loop import Trained
from models.training.next_item import train
from models.training.settings import NextItem, Settings

LEAST = 20
USERS, ITEMS, INTERACTIONS = 6_040, 3_011, 994_852
METHODS = ("devicerec", "duet", "forward_ofa")
# NDCG@10, Hit@10 and the Mbit of the weights that a device is sent for a user on average (KDD 2025)
PUBLISHED = {
    ("sasrec", "devicerec"): ("0.0969", "0.1816", ""),
    ("sasrec", "duet"): ("0.1140", "0.2050", ""),
    ("sasrec", "forward_ofa"): ("0.1182", "0.2081", "3.64"),
    ("nextitnet", "devicerec"): ("0.0975", "0.1846", ""),
    ("nextitnet", "duet"): ("0.1175", "0.2058", ""),
    ("nextitnet", "forward_ofa"): ("0.1226", "0.2140", "3.87"),
}


@dataclass(frozen=True)
class Row:
    """One trained method and the seconds that training and test took."""

    method: str
    trained: Trained
    seconds: float


def frequent_items(interactions: Interactions, least: int = LEAST) -> Interactions:
    """Keep the items with more than `least` interactions, and give them the ids 1..V-1 in their order."""
    clicks = np.bincount(interactions.items, minlength=interactions.vocabulary)
    kept = clicks > least
    inside = kept[interactions.items]
    lengths = np.bincount(interactions.owners[inside], minlength=interactions.users)
    return replace(
        interactions,
        items=np.cumsum(kept)[interactions.items[inside]].astype(np.int32),
        starts=np.concatenate([[0], np.cumsum(lengths[lengths > 0])]),
        vocabulary=int(kept.sum()) + 1,
    )


def check_published_counts(interactions: Interactions) -> None:
    """Raise ValueError unless this is MovieLens-1M as the paper counts it."""
    found = interactions.users, interactions.vocabulary - 1, len(interactions.items)
    if found != (USERS, ITEMS, INTERACTIONS):
        raise ValueError(f"users, items, interactions are {found}, not {(USERS, ITEMS, INTERACTIONS)}: other data")


def measure(
    methods: list[str], backbone: str, interactions: Interactions, settings: Settings, options: NextItem
) -> Iterator[Row]:
    """Train each method from the same seed under the same settings, and yield it when it is tested."""
    for method in methods:
        print(f"{method} on {backbone}", file=sys.stderr)
        started = time.monotonic()
        torch.manual_seed(settings.seed)
        model = Supernet(interactions.vocabulary, 64, BLOCKS[backbone], settings.history, backbone, method)
        trained = train(model, interactions, settings, options, Progress())
        yield Row(method, trained, time.monotonic() - started)


def render(
    rows: list[Row], backbone: str, interactions: Interactions, settings: Settings, options: NextItem, command: str
) -> str:
    """Return the report in Markdown."""
    targets = "all targets" if options.targets_per_user is None else f"{options.targets_per_user} targets per user"
    lines = [
        f"# Forward-OFA on MovieLens-1M, {backbone} backbone",
        "",
        f"{interactions.users:,} users, {interactions.vocabulary - 1:,} items with more than {LEAST} interactions,"
        f" {len(interactions.items):,} interactions; test on each user's last item, ranked among all items.",
        "",
        f"    {command}",
        "",
        f"Budget: {settings.epochs} epochs of {targets}, batches of {settings.batch_size}, history"
        f" {settings.history}, AdamW at {settings.learning_rate}, weight decay {settings.weight_decay}, temperature"
        f" {options.temperature}, lambda {options.compactness}, dropout {options.dropout}, seed {settings.seed};"
        f" one thread of a {platform.machine()} processor, torch {torch.__version__}."
        " Each method keeps its epoch of best validation NDCG@10."
        " The published figures come from a training without such a bound, and from another order"
        " of clicks with equal times: they are a goal here, not a result.",
        "",
        "| method | NDCG@10 | Hit@10 | Mbit sent or held | MACs of the blocks | best epoch | s"
        " | published NDCG@10 | Hit@10 | Mbit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        test, parts = row.trained.metrics["test"], row.trained.metrics["sub_networks"]
        cells = [
            row.method,
            f"{test['NDCG@10']:.4f}",
            f"{test['HitRate@10']:.4f}",
            f"{parts['parameters'] * 32 / 1e6:.2f}",
            f"{parts['macs']:,.0f}",
            str(row.trained.best_epoch),
            f"{row.seconds:,.0f}",
            *PUBLISHED[backbone, row.method],
        ]
        lines.append(f"| {' | '.join(cells)} |")
    popular = rows[0].trained.metrics["test_by_popularity"]
    lines += ["", f"By popularity alone: NDCG@10 {popular['NDCG@10']:.4f}, Hit@10 {popular['HitRate@10']:.4f}.", ""]
    return "\n".join(lines)


def main() -> None:
    """Read, train, and write the report beside this file or where --output says."""
    parser = argparse.ArgumentParser(description="Accuracy on MovieLens-1M beside the published figures")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--backbone", choices=sorted(BLOCKS), default="sasrec")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--targets-per-user", type=int)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--history", type=int, default=10)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rate, temperature, compactness = DEFAULTS[given.backbone]
    rate = given.learning_rate or rate
    settings = Settings(given.seed, given.epochs, rate, 0.01, given.batch_size, given.history)
    options = NextItem(temperature, compactness, 0.0, given.targets_per_user)
    interactions = frequent_items(read_interactions(given.data, given.seed))
    check_published_counts(interactions)
    words = [Path(word).name if Path(word).exists() else word for word in sys.argv[1:]]
    command = " ".join(["python benchmarks/accuracy_ml1m.py", *words])
    rows: list[Row] = []
    for row in measure(given.methods, given.backbone, interactions, settings, options):
        rows.append(row)  # written each time: whoever stops a long run keeps what it has measured
        given.output.write_text(render(rows, given.backbone, interactions, settings, options, command))
    print(f"wrote {given.output}")


if __name__ == "__main__":
    main()
