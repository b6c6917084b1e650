"""What faults are tried on: clicks, two trainings, their artifacts on four targets and a weights package, all tiny.

Every part is a folder that is made once, by the commands themselves, and copied for each case.
"""

import gzip
import hashlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

MODEL = "gru4rec"
USERS, CLICKS, ITEMS = 40, 6, 150
TRAINING = ("--history", "4", "--batch-size", "64", "--learning-rate", "0.01")
PROFILE = """\
name: own
description: A profile of our own.
extends: paper-links
precision: fp32
threads: 1
history_length: 3
candidates: 20
targets:
  onnx:
    opset: 20
  tflite:
budgets:
  flops_per_token: 2.0e+5
  latency_us: 500
links:
  - name: slow
    megabytes_per_second: 5
connection: host
"""


@dataclass
class Workload:
    """The parts below `folder`; `ready` are folders that stand for parts and need not be made."""

    folder: Path
    ready: Mapping[str, Path] = field(default_factory=dict)

    def part(self, name: str) -> Path:
        """Return the folder of a part, and make it and what it is made from where it is not there."""
        if name in self.ready:
            return self.ready[name]
        place = self.folder / "parts" / name
        if not place.exists():
            making = place.with_name(f"{name}.making")
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            _PARTS[name](self, making)
            making.rename(place)
        return place

    def make(self, names: Iterable[str]) -> None:
        """Make parts two at a time, those first that others are made from."""
        wanted = set(names) - set(self.ready)
        for group in (
            ("clicks", "profiles"),
            ("checkpoint", "other-checkpoint", "ofa"),
            _EXPORTED,
            ("package", "inputs"),
        ):
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(self.part, [name for name in group if name in _needed(wanted)]))
        for name in sorted(wanted):
            self.part(name)


def command(name: str, *words: str | Path) -> None:
    """Run a command as a user does; raises RuntimeError where it fails."""
    done = subprocess.run([Path(sys.executable).with_name(name), *words], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} {' '.join(map(str, words))} ends with {done.returncode}: {done.stderr[-500:]}")


def relist(artifact: Path, name: str | None = None) -> None:
    """Write bytes and hash of the files of an artifact, or of one of them, into its manifest."""
    manifest = json.loads((artifact / "manifest.json").read_bytes())
    for entry in manifest["files"]:
        if name in (None, entry["path"]):
            data = (artifact / entry["path"]).read_bytes()
            entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (artifact / "manifest.json").write_text(json.dumps(manifest, indent=2) + "\n")


def _clicks(_: Workload, folder: Path) -> None:
    rows = [
        (f"{u + 1}", f"{(u * 31 + t * 17) % ITEMS + 1}", t % 5 + 1, 1_000_000 + t)
        for u in range(USERS)
        for t in range(CLICKS)
    ]
    named = [("user", "item", "rating", "timestamp"), *rows]
    texts = {
        "ratings.dat": "".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in rows),
        "clicks.csv": "".join(f"{u},{i},{r},{t}\n" for u, i, r, t in named),
        "amazon.csv": "".join(f"A{int(u):09},B{int(i):09},{r}.0,{t}\n" for u, i, r, t in rows),
        "clicks.tsv": "".join(f"{u}\t{i}\t{r}\t{t}\n" for u, i, r, t in named),
        "reviews.json": "".join(
            json.dumps({"user_id": u, "business_id": i, "stars": r, "date": f"2020-01-{t % 28 + 1:02} 10:00:00"}) + "\n"
            for u, i, r, t in rows
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "clicks.csv.gz").write_bytes(gzip.compress(texts["clicks.csv"].encode(), mtime=0))


def _trained(seed: int, model: str = MODEL, *more: str) -> Callable[[Workload, Path], None]:
    def make(workload: Workload, folder: Path) -> None:
        data = workload.part("clicks") / "clicks.csv"
        command(
            "cocorr-train",
            model,
            "--data",
            data,
            "--output",
            folder,
            "--seed",
            str(seed),
            "--epochs",
            "2",
            *TRAINING,
            *more,
        )

    return make


def _exported(checkpoint: str, model: str, program: str, target: str) -> Callable[[Workload, Path], None]:
    def make(workload: Workload, folder: Path) -> None:
        words = ("--program", program, "--target", target, "--checkpoint", workload.part(checkpoint))
        command("cocorr-export", model, *words, "--output", folder / "all")
        for entry in (folder / "all" / model / program / "generic" / target).iterdir():
            entry.rename(folder / entry.name)
        shutil.rmtree(folder / "all")

    return make


def _package(workload: Workload, folder: Path) -> None:
    """Make a package of other weights for the same sub-network."""
    own = (workload.part("external") / "weights.safetensors").read_bytes()
    metadata = json.loads(own[8 : 8 + int.from_bytes(own[:8], "little")])["__metadata__"]
    changed = {name: tensor * np.float32(1.01) for name, tensor in safetensors.numpy.load(own).items()}
    (folder / "weights.safetensors").write_bytes(safetensors.numpy.save(changed, metadata))


def _inputs(workload: Workload, folder: Path) -> None:
    """Make inputs.npz of the first golden case of the Core ML artifact, other.npz of the second."""
    with np.load(workload.part("coreml") / "golden.npz") as golden:
        sides = {name.removeprefix("inputs."): golden[name] for name in golden.files if name.startswith("inputs.")}
    for case, name in enumerate(("inputs.npz", "other.npz")):
        arrays: dict[str, Any] = {one: array[case] for one, array in sides.items()}
        np.savez(folder / name, **arrays)


def _changed(workload: Workload, folder: Path) -> None:
    """Make an artifact whose model file is not the one that was exported: it is judged without a run."""
    shutil.copytree(workload.part("onnx"), folder, dirs_exist_ok=True)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b" ")


def _profiled(workload: Workload, folder: Path) -> None:
    shutil.copytree(workload.part("onnx"), folder, dirs_exist_ok=True)
    command("cocorr-export", "profile", folder, "--iterations", "7")  # no such model ships, so nothing is lowered


def _progress(workload: Workload, folder: Path) -> None:
    """Make the progress of a training that was killed after its first epoch."""
    code = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
import pathlib, fault_hooks; fault_hooks.watch(pathlib.Path(), fault_hooks.kill_once(pathlib.Path("ck.resume")))
from models.training.cli import main; main()
"""
    data = workload.part("clicks") / "clicks.csv"
    words = (MODEL, "--data", data, "--output", "ck", "--epochs", "2", *TRAINING)
    done = subprocess.run([sys.executable, "-P", "-c", code, *words], cwd=folder, capture_output=True, text=True)
    if done.returncode != -signal.SIGKILL or not (folder / "ck.resume").exists():
        raise RuntimeError(f"a training could not be killed after its first epoch: {done.stderr[-500:]}")


def _profiles(_: Workload, folder: Path) -> None:
    (folder / "own.yaml").write_text(PROFILE)
    (folder / "longer.yaml").write_text("name: longer\nextends: generic\nhistory_length: 1500\n")
    (folder / "history.txt").write_text("3\n17\n5\n8\n9\n")


_PARTS: dict[str, Callable[[Workload, Path], None]] = {
    "clicks": _clicks,
    "profiles": _profiles,
    "checkpoint": _trained(0),
    "other-checkpoint": _trained(1),
    "ofa": _trained(0, "ofa", "--method", "forward_ofa"),
    "executorch": _exported("checkpoint", MODEL, "rerank", "executorch"),
    "coreml": _exported("checkpoint", MODEL, "rerank", "coreml"),
    "tflite": _exported("checkpoint", MODEL, "rerank", "tflite"),
    "onnx": _exported("checkpoint", MODEL, "rerank", "onnx"),
    "other-onnx": _exported("other-checkpoint", MODEL, "rerank", "onnx"),
    "external": _exported("ofa", "ofa", "subnet_external", "onnx"),
    "package": _package,
    "inputs": _inputs,
    "changed": _changed,
    "progress": _progress,
    "profiled": _profiled,
}
_EXPORTED = ("executorch", "coreml", "tflite", "onnx", "other-onnx", "external")
_MADE_FROM = {
    **dict.fromkeys(("executorch", "coreml", "tflite", "onnx"), ("checkpoint",)),
    "checkpoint": ("clicks",),
    "other-checkpoint": ("clicks",),
    "ofa": ("clicks",),
    "other-onnx": ("other-checkpoint",),
    "external": ("ofa",),
    "package": ("external",),
    "inputs": ("coreml",),
    "changed": ("onnx",),
    "profiled": ("onnx",),
    "progress": ("clicks",),
}


def _needed(names: set[str]) -> set[str]:
    """Return names and all that they are made from."""
    below = {source for name in names for source in _MADE_FROM.get(name, ())}
    return names | (_needed(below) if below else set())
