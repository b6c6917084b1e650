"""Read a state dict of foreign code: safetensors, or a torch file of tensors alone; nothing in it is ever run."""

import hashlib
import io
import zipfile
from pathlib import Path

import safetensors.torch
from torch import Tensor

from models.checkpoint_files import MAX_BYTES, WEIGHTS
from models.importing import torch_file
from models.importing.origin import Origin
from safeio import files
from safeio.errors import BadInputError

MAX_AXES = 8
MAX_TIMES = 16
"""How often the weights may have the file's size in fp32: 2 where they are fp16, more where layers share theirs."""
WRAPPED = "state_dict"
"""Under which trainers keep the weights among other things."""


class ImportingError(BadInputError, ValueError):
    """Weights that cannot be imported; the message is one line."""


def read(path: Path, origin: Origin) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a file by name, as they are, and the SHA-256 of its bytes; raises ImportingError.

    Their fp32 form is bounded by what a checkpoint may hold, and by the file's size.
    """
    try:
        data = files.read_file(path, MAX_BYTES[WEIGHTS], follow_link=True)
    except files.UnreadableError as error:
        raise ImportingError(f"{path} {error}; give a state dict, a safetensors or a torch file") from error
    is_zip = data[:4] == b"PK\x03\x04"
    state = _plain(path, _load_torch(path, data, origin) if is_zip else _load_safetensors(path, data, origin), origin)
    size = 4 * sum(tensor.numel() for tensor in state.values())
    if size > MAX_BYTES[WEIGHTS]:
        raise ImportingError(f"{path}: its weights take {size} bytes in fp32, more than a checkpoint may hold")
    if size > MAX_TIMES * len(data):
        raise ImportingError(
            f"{path}: its weights take {size} bytes in fp32 of {len(data)} in the file: too many of them share their"
            f" storage; save a clone() of each, where it was made: {origin.save}"
        )
    return state, hashlib.sha256(data).hexdigest()


def _load_safetensors(path: Path, data: bytes, origin: Origin) -> object:
    try:
        return safetensors.torch.load(data)
    except Exception as error:  # the reader's own, and torch's for shapes that it cannot have
        if data[:1] == b"\x80":  # only now: a healthy file begins with the length of its header, whatever that is
            raise ImportingError(
                f"{path} is a pickle, or of a torch before 1.6, and is not loaded; save the state dict alone, where it"
                f" was made: {origin.save}"
            ) from error
        raise ImportingError(
            f"{path} is neither safetensors nor a torch file, or damaged ({_words(error)}); copy it again, or save the"
            f" state dict where it was made: {origin.save}"
        ) from error


def _load_torch(path: Path, data: bytes, origin: Origin) -> object:
    """Return what a file of torch.save holds, tensors and plain values alone."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            # torch packs nothing; what unpacks to more than the file has could take any memory.
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries) or _stated(entries) > len(data):
                raise ImportingError(
                    f"{path} is packed in a way that torch does not use; save the state dict with torch"
                )
            return torch_file.read(archive)
    except (ImportingError, MemoryError):
        raise
    except torch_file.StrangerError as error:
        raise ImportingError(
            f"{path} holds more than tensors, {_words(error)} among them, and nothing of a file is run; save the state"
            f" dict alone, where it was made: {origin.save}"
        ) from error
    except Exception as error:  # zipfile and torch raise a dozen kinds for what is damaged or of another sort
        raise ImportingError(
            f"{path} cannot be read as a state dict ({_words(error)}); save one where it was made: {origin.save}"
        ) from error


def _stated(entries: list[zipfile.ZipInfo]) -> int:
    return sum(entry.file_size for entry in entries)


def _plain(path: Path, loaded: object, origin: Origin) -> dict[str, Tensor]:
    """Return the tensors by name of a state dict, or of one under `state_dict`; raises ImportingError for others."""
    if isinstance(loaded, dict) and isinstance(loaded.get(WRAPPED), dict):
        loaded = loaded[WRAPPED]
    if not isinstance(loaded, dict) or not loaded:
        raise ImportingError(f"{path} holds no state dict but {type(loaded).__name__}; save one: {origin.save}")
    for name, tensor in loaded.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            kind = type(tensor).__name__
            raise ImportingError(f"{path}: {str(name)[:80]!r} is no plain tensor ({kind}); save one: {origin.save}")
        if tensor.dim() > MAX_AXES:
            raise ImportingError(
                f"{path}: {name[:80]!r} has {tensor.dim()} axes, which no model has; leave it out: {origin.save}"
            )
    return loaded


def _words(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
