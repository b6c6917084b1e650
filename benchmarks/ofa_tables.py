"""The Forward-OFA paper's tables beside what this project counts, trains and times, in Markdown.

    python benchmarks/ofa_tables.py [--checkpoints DIR...] [--users 20]

- Tables 1 and 7, methods: published figures of MovieLens-1M, and those in config.json of the checkpoints that are given
  (cocorr-train ofa, any method, backbone and data), the shipped one among them. A cost on the network is the parameters
  in 32 bits over 40 Mbit/s, as the paper counts; the paper's ablations are methods too.
- Tables 4 and 5, sizes: what whole backbones of the paper's sizes hold and compute for 5 clicks, and for Table 4 those
  of two SASRec and four NextItNet blocks, of which no published size is known here.
- Table 8: the times of ofa_adaptation.py, measured in this run on the first checkpoint that is given, or the shipped.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import accuracy_ml1m
import ofa_adaptation

from exporter.pipeline.source import PRETRAINED
from models import checkpoint as checkpoints
from models.forward_ofa.backbones.backbone import count
from models.forward_ofa.compared import sttd
from models.forward_ofa.supernet import Supernet

BITS_PER_S = 40e6
CLICKS, DIMENSION = 5, 64
MORE_PUBLISHED: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ("sasrec", "finetune"): ("0.0939", "0.1793", "3.9936"),
    ("sasrec", "sttd"): ("0.0974", "0.1823", "3.7478"),
    ("sasrec", "rare_gem"): ("0.0970", "0.1838", "3.9936"),
    ("sasrec", "gater"): ("0.0980", "0.1821", "3.9936"),
    ("sasrec", "litepred"): ("0.0990", "0.1877", ""),
    ("nextitnet", "finetune"): ("0.0879", "0.1715", ""),
    ("nextitnet", "sttd"): ("0.0920", "0.1725", "4.5957"),
    ("nextitnet", "rare_gem"): ("0.1035", "0.1921", "5.4784"),
    ("nextitnet", "gater"): ("0.0981", "0.1849", "3.8656"),
    ("nextitnet", "litepred"): ("0.0993", "0.1828", ""),
}
"""NDCG@10, Hit@10 and Mbit of what accuracy_ml1m.py does not train."""
PUBLISHED = {**accuracy_ml1m.PUBLISHED, **MORE_PUBLISHED}
PUBLISHED_MACS = {
    **dict.fromkeys([("sasrec", name) for name in ("finetune", "rare_gem")], "0.6244"),
    ("sasrec", "sttd"): "3.5735",
    ("sasrec", "gater"): "0.5738",
    ("nextitnet", "sttd"): "4.1595",
    ("nextitnet", "rare_gem"): "1.5053",
    ("nextitnet", "gater"): "0.7141",
}
"""Millions of multiply-accumulates for 5 clicks."""
PUBLISHED_SIZES: Mapping[tuple[str, int], Sequence[str | None]] = {
    ("sasrec", 6): ("3.9936", "0.6244", "50304", "8.1120", "3.7478", "3.5735"),
    ("nextitnet", 12): ("9.5846", "1.5053", "50688", "19.2691", "4.5957", "4.1595"),
}
"""In the order of `sizes`."""
SIZES = (*PUBLISHED_SIZES, ("sasrec", 2), ("nextitnet", 4))


@dataclass(frozen=True)
class Size:
    """A counted number with its unit, and how many digits behind the point are printed of it."""

    words: str
    number: float
    digits: int = 4

    def cells(self, published: str | None) -> list[str]:
        """Return what is counted, what is published, and whether all printed digits are equal."""
        counted = f"{self.number:.{self.digits}f}"
        equal = "" if published is None else "yes" if counted == published else "no"
        return [self.words, counted, published or "not known here", equal]


def sizes(backbone: str, blocks: int) -> list[Size]:
    """Return what a backbone of so many blocks and what belongs to it hold and compute, of models that are built."""
    model = Supernet(2, DIMENSION, blocks, CLICKS, backbone)
    shapes, rank = model.backbone.shapes, sttd.RANKS[backbone]
    generated = blocks * count(shapes)
    norms = sum(parameter.numel() for parameter in model.backbone.blocks.parameters())
    held = generated + (norms if backbone == "nextitnet" else 0)  # the published one too
    on_device = sum(part.numel() for net in (model.controller, model.interest) for part in net.parameters())
    mapper = sum(part.numel() for part in model.mapper.parameters())
    macs = model.backbone.macs(CLICKS, [1] * blocks)
    factors = blocks * count(sttd.factor_shapes(shapes, rank))
    return [
        Size("Mbit of the backbone", held * 32 / 1e6),
        Size(f"millions of MACs for {CLICKS} clicks", macs / 1e6),
        Size("parameters of controller and interest, on the device", on_device, 0),
        Size("millions of parameters of the mapper, in the cloud", mapper / 1e6),
        Size("Mbit of STTD's factors and biases", factors * 32 / 1e6),
        Size("millions of MACs of STTD, which rebuilds", (macs + blocks * sttd.rebuild_macs(shapes, rank)) / 1e6),
    ]


def network_ms(parameters: float) -> float:
    """Return the time that parameters in 32 bits take over the paper's link."""
    return 1e3 * 32 * parameters / BITS_PER_S


def published_rows() -> Iterator[list[str]]:
    """Yield the published figures of each method, on MovieLens-1M."""
    for (backbone, method), (ndcg, hit, megabits) in PUBLISHED.items():
        macs = PUBLISHED_MACS.get((backbone, method), "")
        cost = f"{1e3 * float(megabits) * 1e6 / BITS_PER_S:.1f}" if megabits else ""
        yield [backbone, method, "published: MovieLens-1M", ndcg, hit, macs, megabits, cost]


def our_row(config: Mapping[str, Any]) -> list[str]:
    """Return the figures of a checkpoint; its multiply-accumulates are those of as many clicks as it sees."""
    training, parts = config["training"], config["metrics"]["sub_networks"]
    known = config["architecture"]
    budget = (
        f"{training['data'].partition('.')[0]}, epoch {training['best_epoch']} of {training['epochs']},"
        f" {training['targets_per_user'] or 'all'} targets a user, lambda {training['compactness']:g}"
    )
    test = config["metrics"]["test"]
    return [
        str(known["backbone"]),
        str(known["method"]),
        budget,
        f"{test['NDCG@10']:.4f}",
        f"{test['HitRate@10']:.4f}",
        f"{parts['macs'] / 1e6:.4f} for {config['history_length']} clicks",
        f"{parts['parameters'] * 32 / 1e6:.4f}",
        f"{network_ms(parts['parameters']):.1f}",
    ]


def print_rows(header: Sequence[str], rows: Iterator[list[str]] | Sequence[list[str]]) -> None:
    """Print a table in Markdown."""
    print(f"| {' | '.join(header)} |\n{'|---' * len(header)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def main() -> None:
    """Print all tables; the last is measured now."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", nargs="+", type=Path, default=[])
    parser.add_argument("--users", type=int, default=20, help="whose adaptation is timed")
    arguments = parser.parse_args()
    folders = [*arguments.checkpoints, PRETRAINED / "ofa"]
    print("Tables 1 and 7: methods, MACs of published ones for 5 clicks\n")
    header = ("backbone", "method", "data and budget", "NDCG@10", "Hit@10", "M MACs", "Mbit", "ms at 40 Mbit/s")
    print_rows(header, [*published_rows(), *(our_row(checkpoints.read(folder).config) for folder in folders)])
    print("\nTables 4 and 5: sizes\n")
    counted = (
        [backbone, str(blocks), *size.cells(published)]
        for backbone, blocks in SIZES
        for size, published in zip(
            sizes(backbone, blocks), PUBLISHED_SIZES.get((backbone, blocks), [None] * 6), strict=True
        )
    )
    print_rows(("backbone", "blocks", "of", "counted", "published", "equal"), counted)
    print("\nTable 8: adaptation to one user\n")
    ofa_adaptation.print_table(folders[0], arguments.users)


if __name__ == "__main__":
    main()
