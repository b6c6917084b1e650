"""What it takes to adapt to one user: Forward-OFA's passes next to fine-tuning (the paper's Table 8), time and energy.

    python benchmarks/ofa_adaptation.py [--users 20] [--checkpoint DIR]

Forward-OFA: the controller's graph on the device, the mapper's and the package in the cloud; the network is not in it
(see ofa_network.py). Fine-tuning: steps of the method Finetune on the user's history, the whole backbone, on the
device. All by torch on one thread; times are the processor's, in which others on the machine have no part.

Multiply-accumulates are half of what torch.utils.flop_counter counts in one run: of all products of matrices, forward
and backward, and of nothing else, so that Adam's dozen operations for each weight and step are not in them. Joules are
those of the processor's packages over all users, whoever else kept them busy, where Linux tells (powercap, RAPL).
"""

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from exporter.pipeline.source import PRETRAINED
from models import checkpoint as checkpoints
from models.forward_ofa import assembler, weights_package
from models.forward_ofa.compared import finetune
from models.forward_ofa.programs import SPEC, ControllerProgram, MapperProgram
from models.forward_ofa.supernet import Supernet

STEPS = (1, 10, 100)
POWERCAP = Path("/sys/class/powercap")

Call = Callable[[], object]
"""Does what there is to do for one user."""


@dataclass(frozen=True)
class Cost:
    """What adapting takes: milliseconds of each user, multiply-accumulates and joules of the average one."""

    ms: Sequence[float]
    macs: float
    joules: float | None


class Energy:
    """The counters of the processor's packages; `reason` says why there are none, and is None where there are."""

    def __init__(self, powercap: Path = POWERCAP) -> None:
        # intel-rapl:0 is a package, intel-rapl:0:1 a part of one.
        self.zones = [zone for zone in sorted(powercap.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self.reason = None if self.zones else f"{powercap} has no counter of the processor's energy"
        try:
            self.read()
        except OSError as error:
            self.reason = f"{error.filename}: {error.strerror}"

    def read(self) -> list[int]:
        """Return the counter of each package in microjoules."""
        return [int((zone / "energy_uj").read_text()) for zone in self.zones]

    def joules_since(self, before: Sequence[int]) -> float | None:
        """Return what was used since `before` was read, within one turn of each counter; None without counters."""
        if self.reason is not None:
            return None
        ranges = [int((zone / "max_energy_range_uj").read_text()) for zone in self.zones]
        return sum((now - then) % most for now, then, most in zip(self.read(), before, ranges, strict=True)) / 1e6


def ways(model: Supernet, histories: Sequence[Tensor]) -> dict[str, list[Call]]:
    """Return what is compared by its name and place: for each way a call for each user of histories [1, N]."""
    controller, mapper = ControllerProgram(model), MapperProgram(model)
    uploads = [controller(item_ids)[1:] for item_ids in histories]
    whole = torch.ones(1, len(model.backbone.blocks))
    start = model.generate(histories[0], whole)[0]  # of which only the size counts

    def pack(structure: Tensor, latent: Tensor) -> bytes:
        chosen = structure[0].int().tolist()
        weights = assembler.block_weights(model.backbone, mapper(structure, latent)[0], chosen)
        return weights_package.to_bytes(model.backbone, chosen, weights)

    def tuned(steps: int) -> list[Call]:
        table = model.items.weight
        return [partial(finetune.tune, model.states, start, item_ids, whole, table, steps) for item_ids in histories]

    return {
        "Forward-OFA: controller | device": [partial(controller, item_ids) for item_ids in histories],
        "Forward-OFA: mapper and package | cloud": [partial(pack, *upload) for upload in uploads],
        **{f"fine-tuning, {steps} step{'' if steps == 1 else 's'} | device": tuned(steps) for steps in STEPS},
    }


def measure(calls: Sequence[Call], energy: Energy) -> Cost:
    """Return what users take with a call for each; counting goes before, and is the warm-up as well."""
    with FlopCounterMode(display=False) as counter:
        for call in calls:
            call()
    macs = counter.get_total_flops() / 2 / len(calls)
    before = energy.read() if energy.reason is None else []
    ms = [timed(call) for call in calls]
    joules = energy.joules_since(before)
    return Cost(ms, macs, None if joules is None else joules / len(calls))


def timed(call: Call) -> float:
    """Return the processor time of one call in milliseconds."""
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def table(costs: Mapping[str, Cost]) -> list[str]:
    """Return the lines of a table in Markdown."""
    lines = ["| adaptation | on | median | maximum | multiply-accumulates | J |", "|---|---|---|---|---|---|"]
    for name, cost in costs.items():
        joules = "null" if cost.joules is None else f"{cost.joules:.3f}"
        times = f"{statistics.median(cost.ms):.1f} ms | {max(cost.ms):.1f} ms"
        lines.append(f"| {name} | {times} | {cost.macs:,.0f} | {joules} |")
    return lines


def print_table(folder: Path, users: int) -> None:
    """Measure each way for so many golden users of a checkpoint, and print a table in Markdown."""
    torch.set_num_threads(1)
    saved = checkpoints.read(folder)
    model = checkpoints.build(saved, SPEC)
    rows = [row for row in saved.golden["item_ids"][::-1] if np.count_nonzero(row) > 1][:users]
    histories = [torch.from_numpy(row.copy())[None] for row in rows]
    energy = Energy()
    with torch.no_grad():
        costs = {name: measure(calls, energy) for name, calls in ways(model, histories).items()}
    clicks = np.mean([np.count_nonzero(row) for row in rows])
    print(f"{len(rows)} users with {clicks:.1f} clicks, {len(model.items.weight) - 1} items", end="; ")
    print(f"torch {torch.__version__}, one thread\n\n" + "\n".join(table(costs)))
    if energy.reason is not None:
        print(f"\nJ is null: {energy.reason}; the proxy is the multiply-accumulates")


def main() -> None:
    """Measure each way for all users and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=20)
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED / "ofa")
    arguments = parser.parse_args()
    print_table(arguments.checkpoint, arguments.users)


if __name__ == "__main__":
    main()
