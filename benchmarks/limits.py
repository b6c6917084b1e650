"""The floor of a recommender's call on each target: what no rewrite of its graph can go below.

    python benchmarks/limits.py [--models scn,ofa] [--targets onnx,tflite,executorch] [--calls 2000] [--emulator]
                                [--checkpoints DIR]

Each row takes a model's ids, and is lowered through its vendor's documented call (documented.py) and called as the
tool calls artifacts. `empty` casts the candidates' ids and no more. `gathers` looks clicks and candidates up in a table
of V x D. `product` multiplies the candidates' rows with one of the clicks' as well, in the form of FORMS that is the
fastest on the target. No floor looks after ids that are not in the table.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import documented
import measuring
import torch
from torch import Tensor, nn

from exporter.core.types import Arrays
from exporter.pipeline import ExportRequest
from exporter.pipeline import source as sources
from exporter.pipeline.source import Source

FORMS = {
    "bmm": lambda rows, user: torch.bmm(rows, user[:, :, None]).squeeze(-1),
    "linear": lambda rows, user: nn.functional.linear(rows, user).squeeze(-1),
    "multiply and sum": lambda rows, user: (rows * user[:, None]).sum(-1),
}
"""Ways to write the product [1, C] of candidates' rows [1, C, D] with a user [1, D]."""


class Empty(nn.Module):
    """Takes the ids and does nothing with them but to give floats, as a ranking is."""

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return the candidates' ids as floats."""
        return candidate_ids.to(torch.float32)


class Gathers(nn.Module):
    """Looks the rows of clicks and candidates up."""

    def __init__(self, vocabulary: int, dimension: int) -> None:
        super().__init__()
        self.items = nn.Embedding(vocabulary, dimension)

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> tuple[Tensor, ...]:
        """Return [1, N, D] and [1, C, D]."""
        return self.items(item_ids), self.items(candidate_ids)


class Product(Gathers):
    """Multiplies each candidate's row with the row of the first click, in one of the FORMS."""

    def __init__(self, vocabulary: int, dimension: int, form: str) -> None:
        super().__init__(vocabulary, dimension)
        self.multiply = FORMS[form]

    def forward(self, item_ids: Tensor, candidate_ids: Tensor) -> Tensor:
        """Return [1, C]."""
        clicks, candidates = super().forward(item_ids, candidate_ids)
        return self.multiply(candidates, clicks[:, 0])


def main() -> None:
    """Print the table in Markdown."""
    arguments = measuring.options(__doc__, "scn,ofa")
    columns = ("floor", "us", "time to empty", "95 %", "bytes", "ARM64 instructions")
    measuring.print_table(columns, arguments, rows)


def rows(request: ExportRequest, arguments: argparse.Namespace, folder: Path) -> Iterator[list[str]]:
    """Yield the cells of each floor."""
    source, target = sources.load(request.choice), request.target
    inputs = one_call(source)
    empty = documented.lower(target, Empty(), inputs, folder / "empty")
    gathers = documented.lower(target, Gathers(*table(source)), inputs, folder / "gathers")
    form, product = fastest(source, target, arguments.calls, folder)
    for name, program in (("empty", empty), ("gathers", gathers), (f"product: {form}", product)):
        compared = measuring.compared(empty, program, arguments.calls)
        yield [
            name,
            f"{compared.p50_us[1]:.1f}",
            f"{compared.ratio:.2f}",
            measuring.interval(compared),
            f"{measuring.size(program):,}",
            measuring.instructions(program) if arguments.emulator else "-",
        ]


def fastest(source: Source, target: str, calls: int, folder: Path) -> tuple[str, measuring.Lowered]:
    """Return the form of the product that is the fastest on a target, and the program that has it: the floor."""
    inputs, best = one_call(source), None
    for form in FORMS:
        program = documented.lower(target, Product(*table(source), form), inputs, folder / form.replace(" ", "_"))
        if best is None or measuring.compared(best[1], program, calls).ratio < 1:
            best = form, program
    assert best is not None
    return best


def one_call(source: Source) -> Arrays:
    """Return the ids of a model's first golden case, [1, *shape]."""
    return {name: array[:1] for name, array in source.inputs.items()}


def table(source: Source) -> tuple[int, int]:
    """Return V and D."""
    architecture = source.checkpoint.architecture
    return architecture["vocabulary"], architecture["dimension"]


if __name__ == "__main__":
    main()
