"""Figures 4, 5 and 7 of the Forward-OFA paper, out of checkpoints: structures, lambda, what crosses the network.

`measure` gives what paper_figures.py keeps as JSON, each `show_...` the panels of that alone. Accuracy and the blocks
of all test users are what training wrote into config.json. Structures are those that the controller gives the golden
users whose histories are whole, and bytes those of the messages of these users, without the headers of a transport.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figure_plot import Axis, Curve, Panel

from exporter.pipeline.session import Upload
from exporter.pipeline.source import PRETRAINED
from exporter.profiles import load
from models import checkpoint as checkpoints
from models.forward_ofa.backbones.backbone import count
from models.forward_ofa.layout import layout_of
from models.forward_ofa.programs import SPEC
from models.forward_ofa.supernet import Supernet

BUDGET = ("epochs", "learning_rate", "batch_size", "targets_per_user", "temperature", "dropout", "data")
_STORED = ("fp32", "fp16", "int8")
_LETTER, _PLOT = 7.0, 328
"""Pixels of a digit below a bar, and of all bars."""
WHOLE = "the whole backbone, to a device that has nothing"


def measure(folders: Sequence[Path]) -> dict[str, Any]:
    """Read the checkpoints that were given, and the shipped one."""
    described = [describe(folder) for folder in (*folders, PRETRAINED / "ofa")]
    links = {link.name: link.down_bytes_per_s for link in load("paper-links").links}
    return {"links_bytes_per_s": links, "checkpoints": sorted(described, key=lambda row: row["compactness"])}


def describe(folder: Path) -> dict[str, Any]:
    """Return the training, the accuracy, the structures and the bytes of a checkpoint of `ofa`."""
    saved = checkpoints.read(folder)
    training, metrics = saved.config["training"], saved.config["metrics"]
    model: Supernet = checkpoints.build(saved, SPEC)
    item_ids = saved.golden["item_ids"][training["golden_cases_shortened"] :]
    with torch.no_grad():
        rows = model.structure(torch.from_numpy(item_ids)).int().tolist()
    structures = Counter(tuple(row) for row in rows)
    return {
        "name": "shipped" if folder.parent == PRETRAINED else folder.name,
        "command": training["command"],
        "method": str(saved.architecture["method"]),
        "compactness": training["compactness"],
        "budget": {key: training[key] for key in BUDGET},
        "test": metrics["test"],
        "sub_networks": metrics["sub_networks"],
        "golden_users": len(rows),
        "structures": {"".join(map(str, row)): users for row, users in structures.most_common()},
        "bytes_up": len(Upload(tuple(rows[0]), np.zeros(int(saved.architecture["dimension"]))).to_bytes()),
        "bytes_down": {stored: _mean_size(model, saved.sha256, structures, stored) for stored in _STORED},
        "bytes_of_backbone": 4 * len(model.backbone.blocks) * count(model.backbone.shapes),
    }


def _mean_size(
    model: Supernet, checkpoint: str | None, structures: Mapping[tuple[int, ...], int], stored: str
) -> float:
    """Return the bytes of a weights package, on average over users."""
    sizes = {row: layout_of(model.backbone, checkpoint, row, stored).size for row in structures}
    return sum(users * sizes[row] for row, users in structures.items()) / sum(structures.values())


def _label(row: Mapping[str, Any]) -> str:
    return f"lambda {row['compactness']:g}, {row['name']}"


def _choosing(data: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the checkpoints of Forward-OFA itself."""
    return [row for row in data["checkpoints"] if row["method"] == "forward_ofa"]


def show_structures(data: Mapping[str, Any]) -> list[Panel]:
    """Show how many users have which structure, and which block runs for how many."""
    rows = _choosing(data)
    shares = {
        _label(row): {name: users / row["golden_users"] for name, users in row["structures"].items()} for row in rows
    }
    total = sum(map(Counter, shares.values()), Counter())
    most = int(_PLOT / (_LETTER * len(next(iter(total)))))
    names = [name for name, _ in total.most_common(most if len(total) <= most else most - 1)]
    ticks = [*names, *(["others"] if len(total) > len(names) else [])]
    by_structure = [
        Curve(label, list(enumerate([*(share.get(name, 0) for name in names), *_rest(share, names, ticks)])))
        for label, share in shares.items()
    ]
    blocks = [[value for key, value in row["sub_networks"].items() if key.startswith("runs_block")] for row in rows]
    return [
        Panel(
            Axis("structure, a digit for each block; 1 runs", ticks=list(enumerate(ticks))),
            Axis("share of the golden users"),
            by_structure,
            bars=True,
        ),
        Panel(
            Axis("block", ticks=[(index, str(index + 1)) for index in range(max(map(len, blocks)))]),
            Axis("share of the test's users that run it"),
            [Curve(label, list(enumerate(runs))) for label, runs in zip(shares, blocks, strict=True)],
            bars=True,
        ),
    ]


def _rest(share: Mapping[str, float], names: Iterable[str], ticks: list[str]) -> list[float]:
    """Return the share of all structures that have no place of their own, where there is one for them."""
    return [sum(share.values()) - sum(share.get(name, 0) for name in names)] if "others" in ticks else []


def show_lambda(data: Mapping[str, Any]) -> list[Panel]:
    """Show accuracy and blocks over lambda; what was trained alike is one curve, and what has no lambda is level."""
    lambdas = sorted({row["compactness"] for row in _choosing(data)})
    curves: dict[str, list[Mapping[str, Any]]] = {}
    for row in data["checkpoints"]:
        curves.setdefault(_trained(row), []).append(row)
    axis = Axis("lambda, the weight of the compact constraint", True, ticks=[(one, f"{one:g}") for one in lambdas])

    def shown(part: str, key: str) -> list[Curve]:
        return [
            Curve(name, [(row["compactness"], row[part][key]) for row in rows])
            if rows[0]["method"] == "forward_ofa"
            else Curve(name, [(one, rows[0][part][key]) for one in lambdas])
            for name, rows in curves.items()
        ]

    return [
        Panel(axis, Axis("NDCG@10 of the test, among all items"), shown("test", "NDCG@10")),
        Panel(axis, Axis("blocks that run, on average over the test's users"), shown("sub_networks", "blocks")),
    ]


def _trained(row: Mapping[str, Any]) -> str:
    """Return the method and its budget, a name for what was trained alike."""
    budget = row["budget"]
    targets = budget["targets_per_user"] or "all"
    return (
        f"{row['method']}: {budget['epochs']} epochs of {targets} targets, rate {budget['learning_rate']:g}, batch"
        f" {budget['batch_size']}, tau {budget['temperature']:g}, {budget['data'].partition('.')[0]}"
    )


def show_traffic(data: Mapping[str, Any]) -> list[Panel]:
    """Show what a user's weights cost on each link, beside the whole backbone, and the accuracy that is had for it."""
    rates = sorted(set(data["links_bytes_per_s"].values()))
    rows = _choosing(data)
    sent = {_label(row): row["bytes_up"] + row["bytes_down"]["fp32"] for row in rows}
    sizes = {**sent, WHOLE: rows[0]["bytes_of_backbone"]}
    times = [Curve(name, [(rate / 1e6, 1e3 * size / rate) for rate in rates]) for name, size in sizes.items()]
    accuracy = [Curve(_label(row), [(sent[_label(row)] / 1e3, row["test"]["NDCG@10"])]) for row in rows]
    plain = [row for row in data["checkpoints"] if row["method"] == "devicerec"]
    if plain:
        accuracy.append(Curve(WHOLE, [(row["bytes_of_backbone"] / 1e3, row["test"]["NDCG@10"]) for row in plain]))
    ticks = [(rate / 1e6, f"{rate / 1e6:g}") for rate in rates]
    return [
        Panel(Axis("MB/s of the link", True, ticks=ticks), Axis("ms for a user's weights, fp32", True), times),
        Panel(Axis("kB for a user, fp32"), Axis("NDCG@10 of the test, among all items"), accuracy),
    ]
