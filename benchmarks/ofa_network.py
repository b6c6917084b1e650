"""Forward-OFA's traffic and times per user, on artifacts, next to sending the whole backbone (the paper's Figure 7).

    python benchmarks/ofa_network.py [--users 100] [--targets onnx,tflite] [--precisions fp32,int8] [--checkpoint DIR]
        [--output DIR]

For every user the controller's artifact runs on the device's target, its bytes go to the mapper's ONNX artifact, the
package's bytes come back, and subnet_external computes the scores with them; torch is asked the same, in fp32. The
precision is that of subnet_external, its table and its packages; the controller is in fp32. Bytes are those of the
messages themselves, without the headers of a transport; a link's time is bytes divided by its rate, no latency.
"""

import argparse
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from exporter import pipeline
from exporter.artifact.results import Refusal, Result
from exporter.core.precision import Precision, Weights
from exporter.pipeline import session
from exporter.pipeline.source import PRETRAINED
from exporter.targets import TARGETS
from models import checkpoint as checkpoints
from models.forward_ofa import assembler, weights_package
from models.forward_ofa.backbones.backbone import count
from models.forward_ofa.programs import SPEC
from models.forward_ofa.supernet import Supernet

# bytes per second; the first is the 40 Mbit/s with which the paper counts elsewhere
LINKS = {"4G 5 MB/s": 5e6, "4G 15 MB/s": 15e6, "5G 50 MB/s": 50e6, "5G 100 MB/s": 100e6}
_PARTS = ("upload", "package")


def packer(model: Supernet, checkpoint: str | None) -> session.Pack:
    """Return the cloud's code between the mapper's output and the network; packages name the checkpoint."""

    def pack(structure: np.ndarray, weights: np.ndarray, stored: Weights) -> bytes:
        chosen = structure[0].astype(int).tolist()
        tensors = assembler.block_weights(model.backbone, torch.from_numpy(weights), chosen)
        return weights_package.to_bytes(model.backbone, chosen, tensors, stored, checkpoint)

    return pack


def export(
    arguments: argparse.Namespace,
    output: Path,
    program: str,
    target: str,
    structure: str | None = None,
    precision: Precision = "fp32",
) -> Result:
    """Export one artifact; end the benchmark where it does not pass."""
    place = output / precision / (structure or "any")
    choice = pipeline.ProgramChoice("ofa", program, arguments.checkpoint, structure=structure)
    (result,) = pipeline.export(pipeline.ExportRequest(choice, target, place, precision=precision), lambda _: None)
    if isinstance(result, Refusal):
        raise SystemExit(f"{program} on {target}: {result.error}")
    if result.manifest.parity.verdict != "pass":
        raise SystemExit(f"{program} on {target}: {result.manifest.parity.reason}")
    return result


def torch_scores(model: Supernet, item_ids: np.ndarray, candidate_ids: np.ndarray) -> np.ndarray:
    """Return [U, 1, C] scores, each user with the user's own blocks and weights."""
    with torch.no_grad():
        pairs = zip(torch.from_numpy(item_ids).split(1), torch.from_numpy(candidate_ids).split(1), strict=True)
        return np.stack([model(*pair).numpy() for pair in pairs])


def main() -> None:
    """Play the sessions and print two tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--targets", default=",".join(TARGETS))
    parser.add_argument("--precisions", default="fp32,int8")
    parser.add_argument("--checkpoint", type=Path, default=PRETRAINED / "ofa")
    parser.add_argument("--output", type=Path, default=None, help="keep the artifacts here")
    arguments = parser.parse_args()

    saved = checkpoints.read(arguments.checkpoint)
    model = checkpoints.build(saved, SPEC)
    pack = packer(model, saved.sha256)
    # The last golden cases: the first quarter has histories that were shortened on purpose.
    item_ids, candidate_ids = (saved.golden[name][-arguments.users :] for name in ("item_ids", "candidate_ids"))
    expected = torch_scores(model, item_ids, candidate_ids)
    with torch.no_grad():
        rows = model.structure(torch.from_numpy(item_ids)).int().tolist()
    structures = Counter("".join(map(str, row)) for row in rows)
    print(f"{len(item_ids)} users, structures: {dict(structures.most_common())}\n")

    with tempfile.TemporaryDirectory() as temporary:
        output = arguments.output or Path(temporary)
        mapper = export(arguments, output, "mapper", "onnx")
        header = ("target", "precision", "max abs error", "top 10 equal", "controller p50", "weights in place")
        print(f"| {' | '.join(header)} | sub-network p50 |")
        print("|---|---|---|---|---|---|---|")
        last: dict[str, list[session.Session]] = {}
        for target in arguments.targets.split(","):
            controller = export(arguments, output, "controller", target)
            for precision in arguments.precisions.split(","):
                subnets = {
                    one: export(arguments, output, "subnet_external", target, one, precision) for one in structures
                }
                places = {structure: Path(subnet.place) for structure, subnet in subnets.items()}
                last[precision] = session.play(
                    Path(controller.place), Path(mapper.place), places, pack, item_ids, candidate_ids
                )
                commonest = subnets[structures.most_common(1)[0][0]]
                print(_row(target, precision, expected, last[precision], controller, commonest), flush=True)
    _print_traffic(model, last)


def _row(
    target: str,
    precision: str,
    expected: np.ndarray,
    sessions: list[session.Session],
    controller: Result,
    subnet: Result,
) -> str:
    """Return what one target did in one precision, as a row."""
    scores = np.stack([one.scores for one in sessions])
    top = [np.argsort(-array[:, 0], kind="stable")[:, :10] for array in (expected, scores)]
    equal = sum(set(left) == set(right) for left, right in zip(*map(np.ndarray.tolist, top), strict=True))
    swaps = [one.swap_ms for one in sessions if one.swap_ms is not None]
    return (
        f"| {target} | {precision} | {np.abs(scores - expected).max():.2e} | {equal} of {len(sessions)}"
        f" | {_us(controller)} | {f'{np.median(swaps):.2f} ms' if swaps else 'inputs of the call'}"
        f" | {_us(subnet)} |"
    )


def _us(result: Result) -> str:
    value = result.manifest.latency.p50_us
    return "not measured" if value is None else f"{value:.0f} us"


def _print_traffic(model: Supernet, played: dict[str, list[session.Session]]) -> None:
    """Print bytes and link times of the last target's sessions; they are the same on every target."""
    backbone = 4 * len(model.backbone.blocks) * count(model.backbone.shapes)
    rows = [
        (f"Forward-OFA, {precision}", *(np.mean([len(getattr(one, part)) for one in sessions]) for part in _PARTS))
        for precision, sessions in played.items()
    ]
    print(f"\n| per user | bytes up | bytes down | {' | '.join(LINKS)} |")
    print("|---|---|---|" + "---|" * len(LINKS))
    for name, sent, received in (*rows, ("the whole backbone", 0, backbone)):
        times = " | ".join(f"{1e3 * (sent + received) / rate:.2f} ms" for rate in LINKS.values())
        print(f"| {name} | {sent:,.0f} | {received:,.0f} | {times} |")


if __name__ == "__main__":
    main()
