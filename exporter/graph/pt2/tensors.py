"""The weights and constants of a saved program, made of their bytes; what is pickled is refused."""

import math
from typing import TYPE_CHECKING, Any

from exporter.core.errors import ProgramError
from exporter.graph.pt2 import checks
from exporter.graph.pt2.archive import CONSTANTS, MAX_BYTES, WEIGHTS, Opened

if TYPE_CHECKING:
    from torch import Tensor

_MOST_EXPANDED = 1 << 20  # elements that a tensor may have more than its bytes hold: constants that were expanded


def read(opened: Opened) -> "tuple[dict[str, Tensor], dict[str, Tensor]]":
    """Return the state_dict and the constants; raises ProgramError, and what torch raises for views that do not fit."""
    state, constants = (_tensors(opened, folder) for folder in (WEIGHTS, CONSTANTS))
    return state, constants


def _tensors(opened: Opened, folder: str) -> "dict[str, Tensor]":
    """Return the tensors of a folder by name; those that name one member share its memory."""
    import torch

    storages: dict[tuple[str, int], Any] = {}
    found = {}
    for name, payload in checks.payloads(opened.config(folder)).items():
        if payload.use_pickle or payload.tensor_meta is None:
            raise ProgramError(f"has {name} in a pickle, which is never loaded here; save it as a plain tensor")
        meta = payload.tensor_meta
        key = payload.path_name, meta.dtype
        if key not in storages:
            storages[key] = _storage(opened, f"{folder}{payload.path_name}", checks.dtype(meta.dtype))
        tensor = _view(name, storages[key], meta)
        is_trained = payload.is_param and folder == WEIGHTS
        found[name] = torch.nn.Parameter(tensor, tensor.is_floating_point()) if is_trained else tensor
    return found


def _storage(opened: Opened, member: str, dtype: Any) -> Any:
    """Return the bytes of a member as a flat tensor."""
    import torch

    if member not in opened.members or opened.members[member].file_size > MAX_BYTES:
        raise ProgramError(f"has no {member}; it was cut or put together by hand, save it again")
    content = bytearray(opened.zip.read(opened.members[member]))
    return torch.frombuffer(content, dtype=dtype) if content else torch.empty(0, dtype=dtype)


def _view(name: str, storage: Any, meta: Any) -> Any:
    """Return a tensor over a storage, by the sizes and strides that the file states."""
    sizes, strides, offset = (
        [size.as_int for size in part] for part in (meta.sizes, meta.strides, [meta.storage_offset])
    )
    if min(sizes, default=0) < 0 or math.prod(sizes) > max(storage.numel(), _MOST_EXPANDED):
        raise ProgramError(f"has {name} of {sizes[:8]} in {storage.numel()} numbers; save it again")
    return storage.as_strided(sizes, strides, offset[0])  # torch refuses what reads past the end
