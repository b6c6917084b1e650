"""The five commands that write, each with an earlier result in its place or with none, and how whole its result is."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fault_workload import MODEL, TRAINING, Workload

Essence = Callable[[Path], object]


@dataclass(frozen=True)
class Writer:
    """A command that writes a result at `place`, below `out` in the folder of a case.

    `essence` returns what tells one whole result from another, and raises where a result is not whole. `begins` is the
    part that stands at the place where there is no earlier result, for a command that changes what is there.
    `progress` is what may stay beside the place when the command fails, since it is what the next one goes on from.
    """

    name: str
    words: tuple[str, ...]
    parts: Mapping[str, str]
    place: str
    earlier: str
    essence: Essence
    begins: str | None = None
    progress: str | None = None

    def needs(self) -> set[str]:
        """Return the parts of the workload that a case is made from."""
        parts = (*self.parts.values(), self.earlier, *([self.begins] if self.begins else []))
        return {part.partition("/")[0] for part in parts}

    def lay_out(self, workload: Workload, folder: Path, with_earlier: bool) -> object:
        """Fill the folder of a case; return the essence of what stands at the place, None for nothing."""
        parts = dict(self.parts)
        standing = self.earlier if with_earlier else self.begins
        if standing is not None:
            parts[self.place] = standing
        (folder / "out").mkdir(parents=True)
        (folder / "tmp").mkdir()
        for name, part in parts.items():
            source = workload.part(part.partition("/")[0]) / part.partition("/")[2]
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copyfile)(source, folder / name)
        return self.state(folder)

    def state(self, folder: Path) -> object:
        """Return the essence of the result, None where there is none; raises BrokenError where it is not whole."""
        place = folder / self.place
        if not place.exists() and not place.is_symlink():
            return None
        try:
            return self.essence(place)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise BrokenError(f"{self.place} is not whole: {error}") from error

    def strangers(self, folder: Path, before: set[str], unfinished: bool) -> list[str]:
        """Return what is in the folder of the case and was not before, but for the result and the way to it."""
        place = Path(self.place)
        expected = {parent.as_posix() for parent in (place, *place.parents)} if (folder / place).exists() else set()
        if unfinished and self.progress is not None:
            expected.add(self.progress)
        return [
            name
            for name in sorted(entries(folder) - before - expected)
            if place not in Path(name).parents and not _is_trial(folder / name)
        ]

    def unfinished(self, folder: Path) -> list[str]:
        """Return what a killed command left inside the result, under hidden names."""
        place = folder / self.place
        hidden = (path for path in place.rglob(".*") if not path.is_dir()) if place.is_dir() else ()
        return [path.relative_to(folder).as_posix() for path in hidden]


class BrokenError(Exception):
    """A result that is neither whole nor absent."""


def entries(folder: Path) -> set[str]:
    """Return the path of everything below a folder, relative to it."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def _is_trial(path: Path) -> bool:
    """Say whether a file is the one with which Python's tempfile tries a folder; a kill just then leaves it."""
    return (
        path.parent.name == "tmp" and re.fullmatch("[a-z0-9_]{8}", path.name) is not None and path.stat().st_size <= 4
    )


def _sha256(path: Path) -> str:
    if path.is_symlink():
        raise ValueError(f"{path.name} is a link")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _manifest(artifact: Path) -> dict[str, Any]:
    """Return the manifest of an artifact whose files are those that it lists; raises ValueError."""
    manifest: dict[str, Any] = json.loads((artifact / "manifest.json").read_bytes())
    listed = {entry["path"]: entry["sha256"] for entry in manifest["files"]}
    found = {name: _sha256(artifact / name) for name in entries(artifact) if (artifact / name).is_file()}
    found = {name: digest for name, digest in found.items() if name != "manifest.json" and not name.startswith(".")}
    if found != listed:
        raise ValueError(f"files are not as listed: {sorted(set(found.items()) ^ set(listed.items()))[0][0]}")
    if manifest["parity"]["verdict"] != "pass":
        raise ValueError(f"the verdict is {manifest['parity']['verdict']}")
    return manifest


def _checkpoint(folder: Path) -> object:
    """Return the hashes of a checkpoint's files, each of which can be read; raises ValueError."""
    json.loads((folder / "config.json").read_bytes())
    json.loads((folder / "metrics.json").read_bytes())
    with np.load(folder / "golden.npz") as golden:
        arrays = {name: golden[name].tobytes() for name in golden.files}
    data = (folder / "model.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    if 8 + int.from_bytes(data[:8], "little") + max(ends) != len(data):
        raise ValueError("model.safetensors has another length than its header says")
    strange = entries(folder) - {"config.json", "metrics.json", "golden.npz", "model.safetensors", "items.tsv"}
    if strange:
        raise ValueError(f"{sorted(strange)[0]} is no part of a checkpoint")
    return _sha256(folder / "model.safetensors"), _sha256(folder / "items.tsv"), sorted(arrays.items())


def _arrays(path: Path) -> object:
    """Return the content of an .npz; raises ValueError."""
    with np.load(path) as archive:
        return sorted((name, archive[name].tobytes()) for name in archive.files)


EXPORT = Writer(
    "export",
    ("cocorr-export", MODEL, "--target", "onnx", "--checkpoint", "in/ck", "--output", "out", "--force"),
    {"in/ck": "checkpoint"},
    f"out/{MODEL}/rerank/generic/onnx",
    "other-onnx",
    lambda place: _manifest(place)["source"]["checkpoint_sha256"],
)
PROFILE = Writer(
    "profile",
    ("cocorr-export", "profile", "out/artifact", "--iterations", "3"),
    {},
    "out/artifact",
    "profiled",
    lambda place: _manifest(place)["latency"]["iterations"],
    begins="onnx",
)
SWAP = Writer(
    "swap",
    ("cocorr-export", "swap", "in/artifact", "in/package.safetensors", "--output", "out/swapped"),
    {"in/artifact": "external", "in/package.safetensors": "package/weights.safetensors"},
    "out/swapped",
    "external",
    lambda place: (_manifest(place), _sha256(place / "weights.safetensors"))[1],
)
RUN = Writer(
    "run",
    ("cocorr-export", "run", "in/model.mlpackage", "--inputs", "in/inputs.npz", "--outputs", "out/scores.npz"),
    {"in/model.mlpackage": "coreml/model.mlpackage", "in/inputs.npz": "inputs/inputs.npz"},
    "out/scores.npz",
    "inputs/other.npz",
    _arrays,
)
TRAIN = Writer(
    "train",
    ("cocorr-train", MODEL, "--data", "in/clicks.csv", "--output", "out/ck", "--epochs", "2", *TRAINING),
    {"in/clicks.csv": "clicks/clicks.csv"},
    "out/ck",
    "other-checkpoint",
    _checkpoint,
    progress="out/ck.resume",
)
WRITERS = (RUN, PROFILE, TRAIN, SWAP, EXPORT)
