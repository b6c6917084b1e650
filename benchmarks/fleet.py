"""The pace of the fleet beside single calls: users a second of one worker, and of `parity` called user by user.

    python benchmarks/fleet.py --data CLICKS [--model scn] [--target onnx] [--precision fp32 int8 fp16]
                               [--checkpoint DIR] [--users N] [--single N]

One worker judges `--users` users in each scheme, in this process and thread, after it has loaded artifact and model.
With tables of their own, schemes are judged beside torch's program with the same tables too, many users at once; a row
more has what it is with one at a time. Beside it stands, in fp32, what the same figures cost by the commands that there
were before: for each of `--single` users the artifact's folder gets golden cases with that user alone, torch's scores
among them, and `parity` runs and judges it.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from exporter import pipeline
from exporter.artifact import store as artifacts
from exporter.fleet import store
from exporter.pipeline import fleet_torch, fleet_worker
from exporter.pipeline import source as sources
from models import checkpoint as checkpoints
from models.training.users import Catalogue, read_users


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="scn")
    parser.add_argument("--target", default="onnx")
    parser.add_argument("--precision", nargs="+", default=["fp32", "int8", "fp16"])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--single", type=int, default=5)
    arguments = parser.parse_args()
    print("| way | users | users a second | of it the runtime |")
    print("|---|---|---|---|")
    for precision in arguments.precision:
        asked = pipeline.FleetRequest(
            arguments.model,
            arguments.data,
            arguments.target,
            Path(),
            precision,
            checkpoint=arguments.checkpoint,
            sample=1,
        )
        figures = measure(asked, arguments.users, arguments.single if precision == "fp32" else 0)
        print(f"| one worker, {precision} | {arguments.users:,} | {figures['fleet']:,.0f} | {figures['runtime']:.0%} |")
        if "alone" in figures:
            print(f"| the same, torch with its tables one by one | {arguments.users:,} | {figures['alone']:,.0f} | |")
        if "single" in figures:
            print(f"| `parity`, user by user, {precision} | {arguments.single} | {figures['single']:.2f} | |")


def measure(request: pipeline.FleetRequest, users: int, single: int) -> Mapping[str, float]:
    """Return users a second of one worker, of it with torch's own program one by one, and of single calls of parity;
    and the runtime's share of a worker's time.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "fleet"
        pipeline.fleet(replace(request, output=output), quiet)
        plan = store.held_plan(output)
        place, program = output / store.ARTIFACT / str(plan["artifact"]), output / store.REFERENCE
        held = sources.folder_of(pipeline.ProgramChoice(request.model, checkpoint=request.checkpoint))
        settings = {"artifact": place, "model": request.model, "checkpoint": held}
        own = {"reference": program if program.exists() else None, "versions": plan["versions"]}
        judge = fleet_worker.make_judge({**settings, **own})
        shard = cases(checkpoints.read(held), request.data, plan["candidates"] - 1, users)
        judge({name: array[:100] for name, array in shard.items()})
        whole = seconds(lambda: judge(shard))
        runtime = seconds(lambda: judge.artifact.scores(*shard.values()))
        figures = {"fleet": users / whole, "runtime": runtime / whole}
        if judge.reference is not None:
            one_by_one = fleet_torch.one_by_one(fleet_torch.of_one(torch.export.load(program)))
            alone = replace(judge, reference=fleet_torch.batched(one_by_one))
            figures["alone"] = users / seconds(lambda: alone(shard))
        if single:
            copy = Path(folder) / "alone"
            shutil.copytree(place, copy)
            by_one = seconds(lambda: [judge_alone(copy, judge, shard, user) for user in range(single)])
            figures["single"] = single / by_one
    return figures


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
