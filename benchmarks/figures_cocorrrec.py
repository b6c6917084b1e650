"""Figures 4, 5 and 6 of the CoCorrRec paper: what is measured and counted for each, and the panels that show it.

Each `measure_...` returns what paper_figures.py keeps as JSON, each `show_...` the panels of that alone. Times are
medians of single calls on this machine, in one thread, of programs in the target's own runtime.
"""

import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import paper_tables
import torch
from figure_plot import Axis, Curve, Panel
from measuring import WARMUP

from exporter.artifact import store
from exporter.artifact.results import Refusal
from exporter.connections import running
from exporter.measure import module_hooks
from exporter.measure.growth import LENGTHS
from exporter.pipeline import ExportRequest, ProgramChoice, export
from exporter.pipeline.subjects import subject_of
from exporter.profiles import load
from models import checkpoint as checkpoints

TARGET = "onnx"
TIMED = (50, 500)
"""Calls of each length to warm up, and to measure."""
MINI_BATCH_TARGETS = ("onnx", "tflite")
ROUNDS, CALLS = 5, 1000
_LENGTH_TICKS = tuple((length, str(length)) for length in LENGTHS)


def measure_lengths() -> dict[str, Any]:
    """Count and run the artifacts of SCN and five baselines, untrained, at each length; count what hooks see, too."""
    models = {}
    for name, published in paper_tables.PUBLISHED.items():
        source, points = paper_tables.lowered(name, TARGET, TIMED)
        encode = partial(source.spec.encode, source.model)
        hooks = {
            length: module_hooks.count(source.model, partial(encode, torch.ones(1, length, dtype=torch.int32))).macs
            for length in LENGTHS
        }
        models[name] = {
            "published_millions_per_token": published,
            "hook_macs": hooks,
            "hook_macs_per_token": source.module_hook_macs(),
            "points": [asdict(point) for point in points],
        }
    return {"target": TARGET, "timed_calls": TIMED[1], "batch": paper_tables.BATCH, "models": models}


def show_lengths(data: Mapping[str, Any]) -> list[Panel]:
    """Show the artifact's own FLOPs and memory, and the published way to count beside them."""
    models, batch = data["models"], data["batch"]

    def of_points(key: str, unit: float) -> list[Curve]:
        return [
            Curve(name, [(point["tokens"], point[key] / unit) for point in model["points"]])
            for name, model in models.items()
            if all(point[key] is not None for point in model["points"])
        ]

    hooks = [
        Curve(name, [(int(length), batch * macs / 1e6) for length, macs in model["hook_macs"].items()])
        for name, model in models.items()
    ]
    clicks = Axis("clicks in the history", ticks=_LENGTH_TICKS)
    return [
        Panel(clicks, Axis("MFLOPs of a call, all operations of the artifact"), of_points("flops", 1e6)),
        Panel(clicks, Axis(f"the published count: millions, module hooks, batch {batch:,}"), hooks),
        Panel(clicks, Axis("kB of activations that the artifact plans"), of_points("planned_activation_bytes", 1e3)),
        Panel(clicks, Axis("MB of the process above the empty runtime"), of_points("artifact_rss_bytes", 1e6)),
    ]


def measure_delay() -> dict[str, Any]:
    """Time the programs of SCN with its GCN, and take the bytes and links of its exchange from their manifests."""
    network, times = paper_tables.exchange(TARGET)
    links = {link.name: (link.up_bytes_per_s, link.down_bytes_per_s) for link in load("paper-links").links}
    return {"target": TARGET, "up": network.up, "down": network.down, "p50_us": times, "links_bytes_per_s": links}


def show_delay(data: Mapping[str, Any]) -> list[Panel]:
    """Show delays over the rate of the link: bytes over rate are computed, and all else was measured."""
    us = data["p50_us"]
    up, down = (sum(data[way].values()) for way in ("up", "down"))
    links = sorted({tuple(rates) for rates in data["links_bytes_per_s"].values()})
    ticks = [(rate / 1e6, f"{rate / 1e6:g}") for rate, _ in links]
    computed = {sent / 1e6: 1e3 * (up / sent + down / received) for sent, received in links}
    exchange = {rate: wire + us["correct"] / 1e3 for rate, wire in computed.items()}
    device = (us["hidden_state"] + us["rerank_corrected"]) / 1e3
    curves = {
        "rerank on the device alone (measured)": dict.fromkeys(computed, us["rerank"] / 1e3),
        f"{up + down:,} bytes over the link's rate (computed)": computed,
        "that and the cloud's program (measured)": exchange,
        "that and the device's two programs (measured)": {rate: whole + device for rate, whole in exchange.items()},
    }
    return [
        Panel(
            Axis("MB/s of the link, both ways alike", logarithmic=True, ticks=ticks),
            Axis("ms of delay", logarithmic=True),
            [Curve(name, list(places.items())) for name, places in curves.items()],
        )
    ]


def measure_mini_batches(folders: Sequence[Path]) -> dict[str, Any]:
    """Time `rerank` of SCNs trained with several mini-batch sizes, in turn; their NDCG@10 is their training's."""
    folders = sorted(folders, key=_mini_batch)
    if not folders:
        raise SystemExit("this figure wants --checkpoints: an scn of each --mini-batch, trained alike")
    rows: dict[Path, dict[str, Any]] = {}
    for folder in folders:
        config = checkpoints.read(folder).config
        rows[folder] = {
            "mini_batch": _mini_batch(folder),
            "command": config["training"]["command"],
            "test": config["metrics"]["test"],
            "history": config["history_length"],
            "p50_us": {},
            "macs": {},
        }
    with tempfile.TemporaryDirectory() as name:
        for target in MINI_BATCH_TARGETS:
            for folder, macs, us in _timed(folders, target, Path(name)):
                rows[folder]["macs"][target] = macs
                rows[folder]["p50_us"][target] = us
    return {"rounds": ROUNDS, "calls": CALLS, "checkpoints": list(rows.values())}


def _mini_batch(folder: Path) -> int:
    return int(checkpoints.read(folder).architecture["mini_batch"])


def _timed(folders: Sequence[Path], target: str, output: Path) -> Iterator[tuple[Path, int, float]]:
    """Yield each checkpoint with MACs and microseconds of a call: the median of rounds in which they take turns."""
    made = {}
    for index, folder in enumerate(folders):
        request = ExportRequest(ProgramChoice("scn", "rerank", folder), target, output / target / str(index))
        (result,) = export(request, lambda _message: None)
        if isinstance(result, Refusal):
            raise SystemExit(f"{folder} on {target}: {result.error}")
        if result.manifest.parity.verdict != "pass":
            raise SystemExit(f"{folder} on {target}: {result.manifest.parity.reason}")
        place = Path(result.place)
        inputs, *_ = store.read_golden(place)
        first = {name: array[:1] for name, array in inputs.items()}
        made[folder] = (result.manifest, subject_of(place, result.manifest), first)
    medians: dict[Path, list[float]] = {folder: [] for folder in folders}
    for _ in range(ROUNDS):
        for folder, (_, subject, first) in made.items():
            ran = running.run(subject, first, WARMUP, CALLS).required(subject.model_file)
            medians[folder].append(statistics.median(ran.samples_us))
    for folder, (manifest, _, _) in made.items():
        yield folder, manifest.flops.macs, statistics.median(medians[folder])


def show_mini_batches(data: Mapping[str, Any]) -> list[Panel]:
    """Show NDCG@10 and the time of a call over the clicks of a mini-batch."""
    rows = data["checkpoints"]
    ticks = [(row["mini_batch"], str(row["mini_batch"])) for row in rows]
    sizes = Axis("clicks in a mini-batch, b", logarithmic=True, ticks=ticks)

    def curves(key: str, unit: float = 1) -> list[Curve]:
        return [
            Curve(target, [(row["mini_batch"], row[key][target] / unit) for row in rows]) for target in rows[0][key]
        ]

    accuracy = Curve("NDCG@10 of the test, one seed", [(row["mini_batch"], row["test"]["NDCG@10"]) for row in rows])
    return [
        Panel(sizes, Axis("NDCG@10"), [accuracy]),
        Panel(sizes, Axis("us of a call"), curves("p50_us")),
        Panel(sizes, Axis("thousands of MACs of a call"), curves("macs", 1e3)),
    ]
