"""The pace of the fleet beside single calls: users a second of one worker, and of `parity` called user by user.

    python benchmarks/fleet.py --data CLICKS [--model scn] [--target onnx] [--checkpoint DIR] [--users N] [--single N]

One worker judges `--users` users, in this process and thread, after it has loaded artifact and model. Beside it stands
what the same figures cost by the commands that there were before: for each of `--single` users the artifact's folder
gets golden cases with that user alone, torch's scores among them, and `parity` runs and judges it.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporter import pipeline
from exporter.artifact import store as artifacts
from exporter.fleet import store
from exporter.pipeline import fleet_worker
from exporter.pipeline import source as sources
from models import checkpoint as checkpoints
from models.training.users import Catalogue, read_users


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="scn")
    parser.add_argument("--target", default="onnx")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--single", type=int, default=5)
    arguments = parser.parse_args()
    figures = measure(
        arguments.model, arguments.target, arguments.data, arguments.checkpoint, arguments.users, arguments.single
    )
    print("| way | users | users a second | of it the runtime |")
    print("|---|---|---|---|")
    print(f"| one worker | {arguments.users:,} | {figures['fleet']:,.0f} | {figures['runtime']:.0%} |")
    print(f"| `parity`, user by user | {arguments.single} | {figures['single']:.2f} | |")


def measure(
    model: str, target: str, data: Path, checkpoint: Path | None, users: int, single: int
) -> Mapping[str, float]:
    """Return users a second of one worker and of single calls of parity, and the runtime's share of a worker's time."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "fleet"
        pipeline.fleet(pipeline.FleetRequest(model, data, target, output, checkpoint=checkpoint, sample=1), quiet)
        plan = store.held_plan(output)
        place = output / store.ARTIFACT / str(plan["artifact"])
        held = sources.folder_of(pipeline.ProgramChoice(model, checkpoint=checkpoint))
        settings = {"artifact": place, "model": model, "checkpoint": held, "reference": None}
        judge = fleet_worker.make_judge({**settings, **{name: plan[name] for name in ("golden_scale", "versions")}})
        shard = cases(checkpoints.read(held), data, plan["candidates"] - 1, users)
        judge({name: array[:100] for name, array in shard.items()})
        whole = seconds(lambda: judge(shard))
        runtime = seconds(lambda: judge.artifact.scores(*shard.values()))
        alone = Path(folder) / "alone"
        shutil.copytree(place, alone)
        by_one = seconds(lambda: [judge_alone(alone, judge, shard, user) for user in range(single)])
    return {"fleet": users / whole, "runtime": runtime / whole, "single": single / by_one}


def cases(checkpoint: checkpoints.Checkpoint, data: Path, negatives: int, users: int) -> dict[str, np.ndarray]:
    """Return the cases of the first users who can be ranked for."""
    catalogue = Catalogue(checkpoint.architecture["vocabulary"], checkpoint.items, checkpoint.config["training"])
    read = read_users(data, catalogue, negatives)
    found = read.cases(read.rankable[:users], checkpoint.history_length)
    return {"item_ids": found.item_ids, "candidate_ids": found.candidate_ids}


def judge_alone(place: Path, judge: fleet_worker.Judge, shard: Mapping[str, np.ndarray], user: int) -> None:
    """Let `parity` judge one user: golden cases with this user alone, a manifest that lists them, and the command."""
    one = {name: array[user : user + 1] for name, array in shard.items()}
    expected = judge.torch(*one.values())
    inputs = {name: array[:, None] for name, array in one.items()}
    (place / artifacts.GOLDEN).unlink()
    artifacts.write_golden(place, artifacts.Golden(inputs, {judge.artifact.manifest.ranking: expected[:, None]}))
    relisted(place)
    assert pipeline.parity(place, quiet).manifest.parity.verdict == "pass"


def relisted(place: Path) -> None:
    """Write the manifest anew with the files that are there."""
    from dataclasses import replace

    manifest = artifacts.read_manifest(place)
    artifacts.write_manifest(place, replace(manifest, files=artifacts.list_files(place)))


def quiet(_: str) -> None:
    """Tell nobody of steps."""


def seconds(call) -> float:
    """Return what a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
