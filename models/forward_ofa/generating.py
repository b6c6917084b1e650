"""Weights packages for many users at once: the bytes of each are those of the package that is made for that user alone.

A matrix product rounds by its shape, so that all of them have one shape here: histories and latents come in batches of
BATCH, filled up with rows that nobody reads, and each chosen block is a product of its own. What a row gives is then
the same at every place of a batch and beside any others, on one build of torch and one kind of processor.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial

import numpy as np
import torch
from torch import Tensor

from models.forward_ofa import weights_package
from models.forward_ofa.assembler import SubNetwork
from models.forward_ofa.layout import Layout, layout_of
from models.forward_ofa.supernet import Supernet
from models.forward_ofa.weights_package import SCALE, WeightsPackageError
from models.spec import Stored

BATCH = 64
"""Users of one product: enough that the mapper's weights are read once for many, few enough for a processor's cache."""


class Generator:
    """The cloud of one model: from histories to requests, and from requests to packages."""

    def __init__(self, model: Supernet) -> None:
        if model.mapper is None or model.interest is None:
            raise ValueError("this checkpoint's method has no mapper; train the method forward_ofa")
        self.model, self.mapper, self.interest = model, model.mapper, model.interest
        self.layout = lru_cache(maxsize=None)(partial(layout_of, model.backbone))

    def requests(self, item_ids: np.ndarray, structure: tuple[int, ...] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return structures int8 [U, L] and latents fp32 [U, D], as devices upload them, for histories [U, N].

        With `structure` all users run that one.
        """
        structures = np.empty((len(item_ids), self.mapper.blocks), np.int8)
        latents = np.empty((len(item_ids), self.model.items.weight.shape[1]), np.float32)
        for start in range(0, len(item_ids), BATCH):
            part = slice(start, start + BATCH)
            chosen, latent = self._requests(_filled(item_ids[part]), structure)
            count = len(item_ids[part])
            structures[part], latents[part] = chosen[:count].numpy(), latent[:count].numpy()
        return structures, latents

    def _requests(self, item_ids: np.ndarray, structure: tuple[int, ...] | None) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            ids = torch.from_numpy(item_ids)
            x, last = self.model.embed_and_mark(ids)
            if structure is None:
                chosen = self.model.structure(ids)
            else:
                chosen = torch.tensor([structure], dtype=x.dtype).expand(BATCH, -1)
            return chosen, self.interest(x, last, chosen if self.model.method.structure_vector else None)

    def packages(self, structure: tuple[int, ...], latents: np.ndarray, stored: Stored) -> Iterator["Made"]:
        """Yield the packages of users with one structure, up to BATCH at once, for latents [U, D].

        What is yielded is overwritten by the next. Raises WeightsPackageError for weights that are no finite numbers
        or that `stored` cannot hold.
        """
        layout = self.layout(structure, stored)
        room = torch.zeros(BATCH, -(-layout.size // 4), dtype=torch.float32)
        raw = room.view(torch.uint8)
        head = min((first for first, _, _ in layout.places.values()), default=layout.size)
        raw[:, :head] = torch.frombuffer(bytearray(layout.template), dtype=torch.uint8)[:head]
        for start in range(0, len(latents), BATCH):
            part = latents[start : start + BATCH]
            with torch.no_grad():
                weights = self._weights(structure, torch.from_numpy(_filled(part)), layout, room)
                _store(weights, layout, room)
            yield Made(self._network(structure), layout, weights, raw[: len(part), : layout.size])

    def package_bytes(self, structure: tuple[int, ...], stored: Stored) -> int:
        """Return the length of the package of every user of a structure."""
        return self.layout(structure, stored).size

    def _network(self, structure: tuple[int, ...]) -> SubNetwork:
        return SubNetwork(self.model.items, self.model.backbone, structure, None)

    def _weights(self, structure: tuple[int, ...], latent: Tensor, layout: Layout, room: Tensor) -> "_Weights":
        """Return the weights of each chosen block [BATCH, P], in `room` itself where that is how they are stored."""
        weight, bias, order = self._ordered
        numbers = weight.shape[0] // self.mapper.blocks
        blocks = {}
        for block, runs in enumerate(structure):
            if not runs:
                continue
            rows = slice(block * numbers, (block + 1) * numbers)
            if layout.stored == "fp32":
                first = layout.places[f"block{block}_{order[0]}"][0] // 4
                values = room[:, first : first + numbers]
            else:
                values = torch.empty(BATCH, numbers)
            torch.addmm(bias[rows], latent, weight[rows].t(), out=values)
            if not bool(torch.isfinite(values.sum())):  # a quarter of the time of looking at each
                raise WeightsPackageError("the mapper gives numbers that are not finite; train the checkpoint again")
            blocks[block] = values
        return _Weights(blocks, {name: self.model.backbone.shapes[name] for name in order})

    @cached_property
    def _ordered(self) -> tuple[Tensor, Tensor, tuple[str, ...]]:
        """Return the mapper's weights [L P, D] and biases [L P] with the tensors of a block as a file has them."""
        shapes = self.model.backbone.shapes
        order = tuple(sorted(shapes))
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        rows = torch.cat([torch.arange(starts[name], starts[name] + sizes[name]) for name in order])
        every = torch.cat([rows + block * len(rows) for block in range(self.mapper.blocks)])
        linear = self.mapper.linear
        return linear.weight.detach()[every], linear.bias.detach()[every], order


@dataclass(frozen=True)
class _Weights:
    """Packed weights [BATCH, P] of each chosen block, and the tensors of one in the order in which they are packed."""

    blocks: dict[int, Tensor]
    shapes: dict[str, tuple[int, ...]]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor by its name in a package, [BATCH, *shape]."""
        for block, values in self.blocks.items():
            start = 0
            for name, shape in self.shapes.items():
                count = math.prod(shape)
                yield f"block{block}_{name}", values[:, start : start + count].unflatten(1, shape)
                start += count


@dataclass(frozen=True)
class Made:
    """Packages of n users of one structure, up to BATCH: `rows` uint8 [n, bytes]."""

    network: SubNetwork
    layout: Layout
    weights: _Weights
    rows: Tensor

    @property
    def files(self) -> np.ndarray:
        """Return the packages, uint8 [n, bytes]; they lie where the next ones are written."""
        files: np.ndarray = self.rows.numpy()
        return files

    def scores(self, item_ids: np.ndarray, candidate_ids: np.ndarray, as_stored: bool) -> np.ndarray:
        """Return the scores [n, C] of each user's sub-network; `as_stored`: with the weights that a device reads."""
        weights = self._restored() if as_stored else self._exact()
        with torch.no_grad():
            ids = (torch.from_numpy(array) for array in (item_ids, candidate_ids))
            scores: np.ndarray = self.network(*ids, *(weights[name] for name in self.network.names)).numpy()
        return scores

    def tensors(self) -> dict[str, np.ndarray]:
        """Return the weights by name, [n, *shape], in fp32 as a device reads them from its package."""
        return {name: tensor.numpy() for name, tensor in self._restored().items()}

    def _exact(self) -> dict[str, Tensor]:
        return {name: tensor[: len(self.rows)] for name, tensor in self.weights.named()}

    def _restored(self) -> dict[str, Tensor]:
        exact = self._exact()
        return exact if self.layout.stored == "fp32" else {name: self._read(name) for name in exact}

    def _read(self, name: str) -> Tensor:
        entry, scale = self._entry(name).float(), f"{name}{SCALE}"
        return entry * self._entry(scale) if scale in self.layout.places else entry

    def _entry(self, name: str) -> Tensor:
        first, shape, dtype = self.layout.places[name]
        own = self.rows[:, first : first + math.prod(shape) * dtype.itemsize].contiguous()
        return own.view(dtype).unflatten(1, shape)


def _store(weights: _Weights, layout: Layout, room: Tensor) -> None:
    """Write weights into the rows of files, in another form than fp32."""
    if layout.stored == "fp32":
        return
    if layout.stored == "fp16":
        for block, values in weights.blocks.items():
            weights_package.in_half(torch.stack(values.aminmax()))  # which raises where the largest is too large
            at = layout.places[f"block{block}_{next(iter(weights.shapes))}"][0] // 2
            room.view(torch.float16)[:, at : at + values.shape[1]] = values
        return
    for name, tensor in weights.named():
        for entry, values in weights_package.entries(name, tensor, layout.stored, leading_axes=1):
            first, _, dtype = layout.places[entry]
            at = first // dtype.itemsize
            room.view(dtype)[:, at : at + values[0].numel()] = values.flatten(1)


def _filled(rows: np.ndarray) -> np.ndarray:
    """Return rows [n, ...] as [BATCH, ...], zeros behind them."""
    if len(rows) == BATCH:
        return np.ascontiguousarray(rows)
    whole = np.zeros((BATCH, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole
