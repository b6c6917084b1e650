"""Read and write checkpoints: folders of model.safetensors, config.json and golden.npz, all treated as untrusted.

A fourth file, items.tsv, has the raw id of every item where the data's ids are known (`safeio.catalogue`).
A checkpoint's golden.npz has ids and scores of a whole model; an artifact's, another file of that name, has the inputs
and outputs of one program. Nothing is unpickled, no link is followed, every declared size is bounded before
memory is taken for it, and whatever is wrong is a CheckpointError.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from models.checkpoint_files import CONFIG, FILES, GOLDEN, ITEMS, MAX_BYTES, WEIGHTS, together
from models.layers import ItemEmbedding
from models.spec import ModelSpec, require_module
from safeio import catalogue, files, npz, places, staging, strict_json
from safeio.errors import BadInputError

SCHEMA_VERSION = 1
METRICS = "metrics.json"
"""How the training went, for people and their plots; nothing here reads it."""
MAX_GOLDEN_BYTES = 64 << 20
_ADVICE = "choose another folder for the checkpoint"
_MAX_AXES = 8
_PIECE = 1 << 20  # of a tensor, of which what is made on the way to an answer takes little memory
MAX_VOCABULARY = catalogue.MAX_ROWS
MAX_SIZE = 4096
NAMES = ("backbone", "method", "structure")
"""The parts of an architecture that are words; all others are whole numbers."""
MAX_NAME = 32
GOLDEN_DTYPES = {"item_ids": np.int32, "candidate_ids": np.int32, "scores": np.float32}
POSITIVE = "positive"
"""The array of golden.npz, int32 [cases, 1], with the column of the candidate that was clicked next; may be absent."""
PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".ckpt")
NEVER_PICKLES = "this project never loads pickles; save the state_dict with safetensors as model.safetensors"


class CheckpointError(BadInputError, ValueError):
    """A checkpoint that is missing, damaged, unsafe or of another architecture; the message is one line."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was checked: fp32 `state`, `golden` arrays, one sha256 over the bytes of its files.

    That of an untrained model is in no folder and has no sha256. `items` has the raw id of each row of the item table,
    "" for row 0, and `items_file` the bytes of items.tsv; both are None where the checkpoint has rows only.
    """

    folder: Path
    model: str
    architecture: Mapping[str, Any]
    config: Mapping[str, Any]
    state: Mapping[str, Tensor]
    golden: Mapping[str, np.ndarray]
    sha256: str | None
    items: tuple[str, ...] | None = None
    items_file: bytes | None = None

    @property
    def history_length(self) -> int:
        """Return N, the number of ids in a history."""
        return int(self.config["history_length"])


def read(folder: Path | str) -> Checkpoint:
    """Read and check a checkpoint folder; raises CheckpointError."""
    folder = Path(folder)
    staging.recover(folder)
    before = files.identity(folder)
    content = {name: _read_file(folder, name) for name in FILES}
    items = read_items(folder)
    if items is not None:
        content[ITEMS] = items
    if files.identity(folder) != before:
        raise CheckpointError(f"checkpoint {folder} was replaced while it was read; start again")
    config = _parse_config(folder, content[CONFIG])
    vocabulary, history = config["architecture"]["vocabulary"], config["history_length"]
    sha256 = together({name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
    state = _parse_weights(folder, content.pop(WEIGHTS))  # which need not be held beside its own bytes
    return Checkpoint(
        folder=folder,
        model=config["model"],
        architecture=config["architecture"],
        config=config,
        state=state,
        golden=_parse_golden(folder, content[GOLDEN], vocabulary, history),
        sha256=sha256,
        items=None if items is None else _parse_items(folder, items, vocabulary),
        items_file=items,
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json of a checkpoint folder, checked as `read` does, and nothing else; raises CheckpointError."""
    staging.recover(folder)
    return _parse_config(folder, _read_file(folder, CONFIG))


def read_items(folder: Path) -> bytes | None:
    """Return the bytes of items.tsv in a checkpoint folder, None where there is none; raises CheckpointError."""
    return _read_file(folder, ITEMS) if os.path.lexists(folder / ITEMS) else None


def build(checkpoint: Checkpoint, spec: ModelSpec) -> nn.Module:
    """Return the model of `spec` on these weights, which it shares, in eval mode.

    Raises CheckpointError where they do not fit.
    """
    where = f"checkpoint {checkpoint.folder}"
    if checkpoint.model != spec.name:
        raise CheckpointError(
            f"{where} is of model {checkpoint.model!r}, not {spec.name!r}; choose a checkpoint of {spec.name}"
        )
    architecture, held = checkpoint.architecture, sum(tensor.numel() for tensor in checkpoint.state.values())
    least = spec.weights(architecture)
    if least > held:  # before memory is taken for what config.json claims
        raise CheckpointError(f"{where} holds {held} weights, but {CONFIG} wants {least} or more; make the two match")
    try:
        model = spec.build(architecture)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{where}: the architecture in {CONFIG} does not fit {spec.name}: {error}; write it as training did"
        ) from error
    require_module(spec.name, model)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    actual = {name: tuple(tensor.shape) for name, tensor in checkpoint.state.items()}
    problems = [f"{name} is missing" for name in expected if name not in actual]
    problems += [f"{name} is not part of {spec.name}" for name in actual if name not in expected]
    problems += [
        f"{name} has shape {list(actual[name])} where {list(shape)} is expected"
        for name, shape in expected.items()
        if actual.get(name, shape) != shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        advice = f"make {WEIGHTS} and the architecture in {CONFIG} match"
        raise CheckpointError(f"{where} holds another architecture: {'; '.join(problems[:3])}{more}; {advice}")
    model.load_state_dict(checkpoint.state, strict=True, assign=True)  # shared: a table may be all the memory there is
    for name, module in model.named_modules():
        if isinstance(module, ItemEmbedding) and bool(module.weight[0].any()):
            raise CheckpointError(
                f"{where}: row 0 of {name}.weight is padding and must be zero; set it to zero and save again"
            )
    return model.eval()


def write(
    folder: Path | str,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    golden: Mapping[str, np.ndarray],
    metrics: Mapping[str, Any] | None = None,
    items: bytes | None = None,
) -> Checkpoint:
    """Write a whole checkpoint or nothing, check it as `read` does and put it in place.

    What stood there before is exchanged in one step. `metrics` is what metrics.json shall hold, and `items` what
    items.tsv shall (`safeio.catalogue.to_bytes`), if there shall be one. Raises CheckpointError for content that is no
    checkpoint, and OutputError for a place that cannot be written.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in state.items()}
    with staging.staging(Path(folder), _foreign, _ADVICE) as new:
        files.write_new(new / WEIGHTS, safetensors.torch.save(tensors))
        files.write_new(new / CONFIG, _serialised(config))
        with files.replacing(new / GOLDEN, _ADVICE) as file:
            npz.write(file, golden)
        if metrics is not None:
            files.write_new(new / METRICS, _serialised(metrics))
        if items is not None:
            files.write_new(new / ITEMS, items)
        read(new)
    return read(folder)


def check_destination(folder: Path | str) -> None:
    """Raise OutputError where `write` would destroy what is no checkpoint or could not write at all."""
    places.check_folder(Path(folder), _foreign, _ADVICE)


def _foreign(folder: Path) -> str | None:
    """Return the name of what is no part of a checkpoint in a folder, or None."""
    own = {*FILES, ITEMS, METRICS}
    held = sorted(folder.iterdir())
    for path in held:
        if path.name not in own or not path.is_file():
            return path.name
    if held and CONFIG not in {path.name for path in held}:
        return held[0].name
    try:
        _parse_config(folder, _read_file(folder, CONFIG))
    except CheckpointError:
        return CONFIG  # other projects have files of these names too
    return None


def _serialised(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()


def _read_file(folder: Path, name: str) -> bytes:
    """Return the bytes of one of a checkpoint's files, with advice where it is not there."""
    if not folder.is_dir():
        if folder.is_file() and folder.suffix in PICKLE_SUFFIXES:
            raise CheckpointError(f"{folder} looks like a pickle; {NEVER_PICKLES}")
        what = "is a file" if folder.exists() else "does not exist"
        raise CheckpointError(f"checkpoint folder {folder} {what}; give a folder with {', '.join(FILES)}")
    try:
        return files.read_file(folder / name, MAX_BYTES[name])
    except files.UnreadableError as error:
        if not error.missing:
            raise CheckpointError(f"{folder / name} {error}; is it the right file, and may it be read?") from error
    pickles = sorted(entry.name for entry in folder.iterdir() if entry.suffix in PICKLE_SUFFIXES)
    if name == WEIGHTS and pickles:
        raise CheckpointError(f"checkpoint {folder} has {pickles[0]} in place of {WEIGHTS}; {NEVER_PICKLES}")
    raise CheckpointError(f"checkpoint {folder} has no {name}; a checkpoint is a folder with {', '.join(FILES)}")


def _parse_config(folder: Path, data: bytes) -> dict[str, Any]:
    """Return config.json with its types and sizes checked."""

    def refuse(message: str) -> NoReturn:
        raise CheckpointError(f"{folder / CONFIG}: {message}")

    def whole_number(name: str, value: object, least: int, most: int) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            refuse(f"{name} must be a whole number from {least} to {most}, not {str(value)[:40]!r}")

    try:
        config = strict_json.loads(data)
    except ValueError as error:
        refuse(f"not valid JSON ({error}); write it again with cocorr-train or by hand")
    if not isinstance(config, dict):
        refuse("must be a JSON object")
    if config.get("schema_version") != SCHEMA_VERSION:
        refuse(f"schema_version must be {SCHEMA_VERSION}, not {str(config.get('schema_version'))[:40]!r}")
    if not isinstance(config.get("model"), str):
        refuse("model must be a string, the name of a model")
    architecture = config.get("architecture")
    if not isinstance(architecture, dict):
        refuse("architecture must be an object of whole numbers and names")
    whole_number("architecture.vocabulary", architecture.get("vocabulary"), 2, MAX_VOCABULARY)
    for name, value in architecture.items():
        if name in NAMES:
            if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME:
                refuse(f"architecture.{name} must be a name of up to {MAX_NAME} letters, not {str(value)[:40]!r}")
            continue
        whole_number(f"architecture.{name}", value, 1, MAX_VOCABULARY if name == "vocabulary" else MAX_SIZE)
    whole_number("history_length", config.get("history_length"), 1, MAX_SIZE)
    if architecture.get("history_length", config["history_length"]) != config["history_length"]:
        refuse("architecture.history_length and history_length differ; make the two match")
    for name in ("training", "metrics"):
        if not isinstance(config.get(name), dict):
            refuse(f"{name} must be an object; it may be empty")
    return config


def _parse_weights(folder: Path, data: bytes) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file in fp32."""
    path = folder / WEIGHTS
    try:
        state = safetensors.torch.load(data)
    except Exception as error:  # the reader's own, and torch's for shapes that it cannot have
        # Only now: a healthy file may begin with a pickle's first bytes, since it begins with the length of its header.
        if data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[1:2] in b"\x02\x03\x04\x05"):
            raise CheckpointError(f"{path} is a pickle; {NEVER_PICKLES}") from error
        why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(f"{path} is truncated or damaged ({why}); copy or train it again") from error
    for name, tensor in state.items():
        if tensor.dtype not in (torch.float32, torch.float16):
            raise CheckpointError(f"{path}: {name} is {tensor.dtype}; save weights as float32 or float16")
        if tensor.dim() > _MAX_AXES:
            raise CheckpointError(f"{path}: {name} has {tensor.dim()} axes, which no model has; train it again")
        if not all(bool(torch.isfinite(piece).all()) for piece in tensor.reshape(-1).split(_PIECE)):
            raise CheckpointError(
                f"{path}: {name} has NaN or infinite values; train again or take an earlier checkpoint"
            )
    return {name: tensor.float() for name, tensor in state.items()}


def _parse_items(folder: Path, data: bytes, vocabulary: int) -> tuple[str, ...]:
    """Return the raw id of each row, "" for row 0."""
    try:
        return catalogue.parse(data, vocabulary)
    except catalogue.CatalogueError as error:
        raise CheckpointError(
            f"{folder / ITEMS} {error}; train again, or remove the file to go on with rows in place of ids"
        ) from error


def _parse_golden(folder: Path, data: bytes, vocabulary: int, history: int) -> dict[str, np.ndarray]:
    """Return the arrays of golden.npz: item_ids [cases, N], candidate_ids and scores [cases, C], and maybe POSITIVE."""
    path = folder / GOLDEN

    def refuse(why: str) -> NoReturn:
        raise CheckpointError(f"{path}: {why}; write the golden cases again")

    try:
        arrays = npz.read(data, MAX_GOLDEN_BYTES)
    except npz.NpzError as error:
        raise CheckpointError(f"{path} {error}; write the golden cases again") from error
    dtypes = {**GOLDEN_DTYPES, POSITIVE: np.int32}
    if arrays.keys() - {POSITIVE} != GOLDEN_DTYPES.keys():
        refuse(f"must hold {', '.join(GOLDEN_DTYPES)}, may hold {POSITIVE}, and nothing else")
    for name, array in arrays.items():
        if array.dtype != dtypes[name] or array.ndim != 2 or min(array.shape) < 1:
            kind = f"{np.dtype(dtypes[name])} of shape [cases, n]"
            refuse(f"{name} must be {kind}, not {array.dtype} of {list(array.shape)}")
    items, candidates, scores = arrays["item_ids"], arrays["candidate_ids"], arrays["scores"]
    if items.shape[1] != history:
        refuse(f"item_ids has {items.shape[1]} ids per case, but history_length is {history}")
    if candidates.shape != scores.shape or len(candidates) != len(items):
        refuse(f"shapes {items.shape}, {candidates.shape}, {scores.shape} do not agree on cases and candidates")
    for name in ("item_ids", "candidate_ids"):
        if arrays[name].min() < 0 or arrays[name].max() >= vocabulary:
            refuse(f"{name} must be within the vocabulary, 0 to {vocabulary - 1}")
    if (np.diff(np.sort(candidates, axis=1), axis=1) == 0).any():
        refuse("candidate_ids must be distinct within a case")
    if not np.isfinite(scores).all():
        refuse("scores must be finite")
    positive = arrays.get(POSITIVE, np.zeros((len(items), 1), np.int32))
    if positive.shape != (len(items), 1) or positive.min() < 0 or positive.max() >= candidates.shape[1]:
        refuse(f"{POSITIVE} must have one column of candidate_ids for each case")
    return arrays
