"""How long it takes to adapt to one user: Forward-OFA's forward passes next to fine-tuning (the paper's Table 8).

    python benchmarks/ofa_adaptation.py [--users 20] [--checkpoint DIR]

Forward-OFA: the controller's graph, the mapper's and the package, by torch on one thread; the network is not in it (see
ofa_network.py). Fine-tuning: steps of Adam on a user's own clicks, each click after the first predicted from those
before it among all items, on the backbone with all blocks; the same torch, the same thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from exporter.pipeline.source import PRETRAINED
from models import checkpoint as checkpoints
from models.forward_ofa import assembler, weights_package
from models.forward_ofa.programs import SPEC, ControllerProgram, MapperProgram
from models.forward_ofa.supernet import Supernet
from models.layers import last_position

STEPS = (1, 10, 100)


def adapt(model: Supernet, item_ids: torch.Tensor) -> bytes:
    """Do all that Forward-OFA does for the user of a history [1, N]; return the package that would be sent."""
    with torch.no_grad():
        _, structure, latent = ControllerProgram(model)(item_ids)
        weights = MapperProgram(model)(structure, latent)
    chosen = structure[0].int().tolist()
    return weights_package.to_bytes(model.backbone, chosen, assembler.block_weights(model.backbone, weights, chosen))


def prefixes(item_ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return histories [n, N] and the click [n] that follows each, for the n clicks after the first of [1, N]."""
    clicks = item_ids[0][item_ids[0] != 0]
    histories = torch.zeros(len(clicks) - 1, item_ids.shape[1], dtype=torch.int32)
    for row in range(len(clicks) - 1):
        histories[row, : row + 1] = clicks[: row + 1]
    return histories, clicks[1:].long()


def fine_tune(model: Supernet, item_ids: torch.Tensor, steps: int) -> None:
    """Take steps of Adam on the blocks of the whole backbone, from the weights that the mapper starts them with."""
    blocks = [1] * len(model.backbone.blocks)
    with torch.no_grad():
        start = model.generate(item_ids, torch.ones(1, len(blocks)))
    network = assembler.assemble(
        model.items, model.backbone, blocks, assembler.block_weights(model.backbone, start, blocks)
    )
    tuned = [getattr(network, name) for name in network.names]
    optimizer = torch.optim.Adam(tuned, lr=1e-3)
    histories, targets = prefixes(item_ids)
    x, catalogue = model.items(histories).detach(), model.items.weight.detach()
    last = last_position(histories, x.dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        logits = network.user_state(x, last, ()) @ catalogue.T
        functional.cross_entropy(logits, targets).backward(inputs=tuned)
        optimizer.step()


def timed(work: Callable[[], object]) -> float:
    """Return the wall time of one call in milliseconds."""
    start = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - start)


def adaptation_times(folder: Path, users: int) -> dict[str, list[float]]:
    """Return the milliseconds that each way takes for each of so many golden users of a checkpoint, on one thread."""
    torch.set_num_threads(1)
    saved = checkpoints.read(folder)
    model = checkpoints.build(saved, SPEC)
    histories = [row for row in saved.golden["item_ids"][::-1] if np.count_nonzero(row) > 1][:users]
    times: dict[str, list[float]] = {}
    for turn, row in enumerate([histories[0], *histories]):
        item_ids = torch.from_numpy(row.copy())[None]
        measured = {"Forward-OFA": timed(lambda ids=item_ids: adapt(model, ids))}
        for steps in STEPS:
            label = f"fine-tuning, {steps} step{'s' if steps > 1 else ''}"
            measured[label] = timed(lambda ids=item_ids, steps=steps: fine_tune(model, ids, steps))
        if turn:  # the first is a warm-up
            for label, value in measured.items():
                times.setdefault(label, []).append(value)
    return times


def print_table(folder: Path, users: int) -> None:
    """Print median and maximum of each way in Markdown."""
    times = adaptation_times(folder, users)
    print(f"{len(next(iter(times.values())))} users, torch {torch.__version__}, one thread\n")
    print("| adaptation | median | maximum |\n|---|---|---|")
    for label, values in times.items():
        print(f"| {label} | {statistics.median(values):.1f} ms | {max(values):.1f} ms |")


def main() -> None:
    """Time both ways for each user in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED / "ofa")
    arguments = parser.parse_args()
    print_table(arguments.checkpoint, arguments.users)


if __name__ == "__main__":
    main()
