"""State drift of the recurrent programs: an artifact and torch step side by side, each with its own state.

    python benchmarks/state_drift.py [--models scn,gru4rec,mamba4rec] [--targets onnx,...] [--precisions fp32,fp16]
                                     [--steps 50] [--sessions 8] [--checkpoints DIR]

Errors are the largest over all sessions and candidates after each click. A rank diverges where the two order the
candidates differently. A model's weights are those in DIR/<model>, written by cocorr-train, or the shipped ones; a
model that has neither is untrained. Sessions are clicks of the golden histories, one history after another, so that
they reach over several mini-batches. The verdict is the one on the artifact, which does not depend on the drift.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from weights import request_for

from exporter import pipeline
from exporter.artifact.results import Refusal
from exporter.parity.drift import Drift, drift
from exporter.pipeline import session
from exporter.pipeline import source as sources
from exporter.targets import TARGETS
from models.spec import ProgramSpec


def clicks_of(item_ids: np.ndarray, steps: int, sessions: int) -> np.ndarray:
    """Return clicks [steps, sessions] from golden histories [cases, N], padding left out."""
    pool = item_ids[item_ids != 0]
    return np.resize(pool, steps * sessions).reshape(sessions, steps).T.astype(np.int32)


def play_torch(module: torch.nn.Module, clicks: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Return torch's scores [steps, sessions, C] for clicks [steps, sessions] and candidates [sessions, C]."""
    state, seen = module.start(clicks.shape[1]), []
    with torch.no_grad():
        for ids in clicks:
            scores, *state = module(torch.from_numpy(ids[:, None].copy()), torch.from_numpy(candidates), *state)
            seen.append(scores.numpy())
    return np.stack(seen)


def play_artifact(artifact: Path, program: ProgramSpec, states: dict, clicks: np.ndarray, candidates: np.ndarray):
    """Return an artifact's scores [steps, sessions, C]; each session's state goes from call to call."""
    seen = []
    for ids in clicks:
        inputs = {"item_id": ids[:, None, None], "candidate_ids": candidates[:, None], **states}
        outputs = session.run(artifact, inputs).outputs
        states = {given: outputs[name] for name, given in program.state.items()}
        seen.append(outputs["scores"][:, 0])
    return np.stack(seen)


def main() -> None:
    """Print a table in Markdown, a row for each model, target and precision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="scn,gru4rec,mamba4rec")
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--checkpoints", type=Path, default=Path())
    arguments = parser.parse_args()
    shown = sorted({1, 10, 20, 30, 40, arguments.steps} & set(range(1, arguments.steps + 1)))
    print(
        f"{arguments.sessions} sessions of {arguments.steps} clicks; errors after click " + ", ".join(map(str, shown))
    )
    heads = " | ".join(f"after {step}" for step in shown)
    print(f"\n| model | weights | target | precision | verdict | {heads} | largest score | first divergent rank |")
    print("|---" * (len(shown) + 7) + "|")
    with tempfile.TemporaryDirectory() as temporary:
        for model in arguments.models.split(","):
            for precision in arguments.precisions.split(","):
                for target in arguments.targets.split(","):
                    weights, verdict, row = measure(model, target, precision, Path(temporary), arguments)
                    found = [row.max_abs_error[step - 1] for step in shown]
                    errors = " | ".join(f"{error:.2e}" if np.isfinite(error) else "not finite" for error in found)
                    where = "none" if np.isfinite(row.max_abs_error).all() else "not finite"
                    if where == "none" and row.first_step is not None:
                        where = f"rank {row.first_rank[row.first_step - 1]} after click {row.first_step}"
                    names = f"{model} | {weights} | {target} | {precision} | {verdict}"
                    print(f"| {names} | {errors} | {row.scale:.2f} | {where} |", flush=True)


def measure(
    model: str, target: str, precision: str, output: Path, arguments: argparse.Namespace
) -> tuple[str, str, Drift]:
    """Export a step program, play it beside torch and return whose weights it has, its verdict and the drift."""
    weights, request = request_for(model, target, "step", precision, arguments.checkpoints, output / precision)
    (result,) = pipeline.export(request, lambda _: None)
    if isinstance(result, Refusal):
        raise SystemExit(f"{model} on {target}: {result.error}")
    source = sources.load(request.choice)
    golden = source.checkpoint.golden
    sessions = arguments.sessions
    clicks = clicks_of(golden["item_ids"], arguments.steps, sessions)
    candidates = golden["candidate_ids"][:sessions]
    names = list(source.program.state.values())
    start = {name: part.numpy()[:, None] for name, part in zip(names, source.module.start(sessions), strict=True)}
    expected = play_torch(source.module, clicks, candidates)
    actual = play_artifact(Path(result.place), source.program, start, clicks, candidates)
    return weights, result.manifest.parity.verdict, drift(expected, actual)


if __name__ == "__main__":
    main()
