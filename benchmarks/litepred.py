"""Predicted latencies of sub-networks beside measured ones: of structures that no fit has seen, on several runtimes.

    python benchmarks/litepred.py [--backbones sasrec,nextitnet] [--targets onnx,tflite,executorch] [--samples 24]
        [--unseen 30] [--few 6] [--profile generic] [--each]

Weights are drawn, since times do not depend on them: 6 SASRec and 12 NextItNet blocks of 64, histories of 10, 100
candidates. For each backbone and target, sampled structures and unseen ones are lowered and timed in the same rounds.
A predictor is fitted to the sampled and predicts the unseen ones. For each target but the first, the predictor of the
first is also moved there by a few of the samples, and predicts the same. Three limits lie evenly between the
shortest and the longest time of the unseen structures; under each, the slowest that is predicted to keep it is tried,
and where its measured time does not, the slowest that is predicted to be faster by more than the predictor is off.
`--each` prints every unseen structure.
"""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from exporter import profiles
from exporter.core.predictor import Costs, PredictionError
from exporter.measure import structures
from exporter.pipeline import lengths
from exporter.pipeline.source import Source
from exporter.pipeline.structure_times import time_in_rounds
from models.forward_ofa.programs import SPEC
from models.untrained import untrained
from safeio.progress import tell

BLOCKS = {"sasrec": 6, "nextitnet": 12}
LIMITS = (0.25, 0.5, 0.75)
_METHOD = "structures that no fit has seen"


@dataclass(frozen=True)
class Measured:
    """What was timed on one target: structures that are fitted to and others, with their times in microseconds."""

    sampled: list[tuple[int, ...]]
    unseen: list[tuple[int, ...]]
    of_sampled: np.ndarray
    of_unseen: np.ndarray
    executed_on: str


def drawn(backbone: str, blocks: int, program: str = "subnet") -> Source:
    """Return a sub-network with all blocks of a backbone, with drawn weights that are the same for all users."""
    architecture = {**SPEC.architecture, "backbone": backbone, "blocks": blocks, "method": "devicerec"}
    spec = replace(SPEC, architecture=architecture)
    model, checkpoint = untrained(spec, None, None)
    selection = SPEC.select(model, checkpoint.golden, None, None) if SPEC.select else None
    return Source(spec.programs[program], model, spec, checkpoint, selection)


def measure(sources: Sequence[Source], samples: int, target: str, profile_name: str) -> Measured:
    """Time sub-networks on a target, of which the first `samples` are those to fit to."""
    profile = profiles.load(profile_name)
    options = profile.options_for(target)
    lowering = lengths.Lowering(target, profile.precision, options, fold=profile.fold)
    timed = time_in_rounds(sources, lowering, profile, tell)
    chosen = [tuple(map(int, source.structure)) for source in sources]
    times = timed.times_us
    return Measured(chosen[:samples], chosen[samples:], times[:samples], times[samples:], timed.executed_on)


def predicted(costs: Costs, measured: Measured) -> np.ndarray:
    """Return what costs predict for the unseen structures."""
    return np.array([costs.predicted_us(structure) for structure in measured.unseen])


def chosen_under(costs: Costs, off_by: float, measured: Measured) -> Iterator[str]:
    """Yield for each limit what is tried under it until a measured time keeps it, as `--structure auto` does."""
    guess, times = predicted(costs, measured), measured.of_unseen
    for share in LIMITS:
        limit = float(times.min() + share * (times.max() - times.min()))
        left, tried = guess <= limit, []
        while left.any() and (not tried or times[tried[-1]] > limit):
            tried.append(max(np.flatnonzero(left), key=lambda one: guess[one]))
            left &= guess < guess[tried[-1]] * (1 - off_by)
        words = "; then ".join(beside(measured.unseen[at], guess[at], times[at]) for at in tried)
        yield f"{limit:.1f} us: {words}: {'kept' if tried and times[tried[-1]] <= limit else 'over'}"


def told(error: PredictionError) -> str:
    """Return the two cells of an error."""
    return f"{error.median:.1%} | {error.p90:.1%}"


def rows(backbone: str, blocks: int, arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the lines of one backbone: a row for each fit, and behind them what was chosen under the limits."""
    sampled = structures.sampled(blocks, arguments.samples, seed=0)
    unseen = structures.sampled(blocks, arguments.unseen, seed=1, without=sampled)
    whole = drawn(backbone, blocks)
    sources = [whole.of_structure(structure) for structure in (*sampled, *unseen)]
    first: Costs | None = None
    for target in arguments.targets.split(","):
        measured = measure(sources, len(sampled), target, arguments.profile)
        costs, held_out = structures.fit(measured.sampled, measured.of_sampled)
        error = structures.relative_error(predicted(costs, measured), measured.of_unseen, _METHOD)
        times = f"{measured.of_unseen.min():.0f} to {measured.of_unseen.max():.0f} us"
        row = f"{backbone}, {blocks} | {measured.executed_on} | {times}"
        yield f"| {row} | fitted to {len(sampled)} | {told(held_out)} | {told(error)} |"
        if first is not None:
            few = measured.sampled[: arguments.few], measured.of_sampled[: arguments.few]
            moved, of_few = structures.transfer(first, *few)
            of_moved = structures.relative_error(predicted(moved, measured), measured.of_unseen, _METHOD)
            yield f"| {row} | moved by {arguments.few} | {told(of_few)} | {told(of_moved)} |"
        first = first or costs
        yield from (f"    {target} under {line}" for line in chosen_under(costs, held_out.median, measured))
        if arguments.each:
            guesses = zip(measured.unseen, predicted(costs, measured), measured.of_unseen, strict=True)
            yield from (f"    {target} {beside(*one)}, off by {abs(one[1] / one[2] - 1):.1%}" for one in guesses)


def beside(structure: tuple[int, ...], guess: float, time: float) -> str:
    """Return a structure with its predicted and its measured time in words."""
    return f"{''.join(map(str, structure))}: predicted {guess:.1f}, measured {time:.1f} us"


def main() -> None:
    """Print a row for each fit."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--backbones", default="sasrec,nextitnet")
    parser.add_argument("--targets", default="onnx,tflite,executorch")
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--unseen", type=int, default=30)
    parser.add_argument("--few", type=int, default=6)
    parser.add_argument("--profile", default="generic")
    parser.add_argument("--each", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| blocks | ran on | p50 of the unseen | fit | left out: median | p90 | unseen: median | p90 |")
    print("|---|---|---|---|---|---|---|---|")
    for backbone in arguments.backbones.split(","):
        for line in rows(backbone, BLOCKS[backbone], arguments):
            print(line, flush=True)


if __name__ == "__main__":
    main()
