"""Weights packages for many users at once: the bytes of each are those of the package that is made for that user alone.

A matrix product rounds by its shape, so that all of them have one shape here: histories and latents come in batches of
BATCH, the last filled up with rows that nobody reads, and each block is a product of its own. What a row gives is then
the same at every place of a batch and beside any others, on one build of torch and one kind of processor. Users stand
in the order of their structures, so that those of a batch run nearly the same blocks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import pairwise

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
    """The cloud of one model: from histories to requests, and from requests to packages.

    These name its checkpoint by its SHA-256.
    """

    def __init__(self, model: Supernet, checkpoint: str | None) -> None:
        self.model = model
        self.mapper, self.interest = model.generating()
        self.layout = lru_cache(maxsize=None)(partial(layout_of, model.backbone, checkpoint))
        self.network = lru_cache(maxsize=None)(partial(SubNetwork, model.items, model.backbone, weights=None))

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

    def packages(self, structures: np.ndarray, latents: np.ndarray, stored: Stored) -> Iterator["Made"]:
        """Yield the packages of users with structures [U, L] and latents [U, D], up to BATCH of one structure at once.

        Users come in the order of their structures. What is yielded is overwritten by later ones. Raises
        WeightsPackageError for weights that are no finite numbers or that `stored` cannot hold.
        """
        order = _gray(structures)
        longest = max((self.package_bytes(row, stored) for row in set(map(tuple, structures.tolist()))), default=0)
        room = torch.zeros(BATCH, -(-longest // 4), dtype=torch.float32)
        # Memory that is asked for anew in each batch took a third of the time: the system clears its pages.
        numbers = self._ordered.shape[1] // self.mapper.blocks
        exact = torch.empty(1 if stored == "fp32" else self.mapper.blocks, BATCH, numbers)
        for start in range(0, len(order), BATCH):
            users = order[start : start + BATCH]
            chosen = structures[users]
            runs = [(own, self.layout(tuple(chosen[own.start].tolist()), stored)) for own in _alike(chosen)]
            blocks: list[dict[int, Tensor]] = [{} for _ in runs]
            latent = torch.from_numpy(_filled(np.pad(latents[users], ((0, 0), (0, 1)), constant_values=1)))
            for block in np.flatnonzero(chosen.any(axis=0)).tolist():
                values = exact[block % len(exact)]
                torch.mm(latent, self._ordered[:, block * numbers : (block + 1) * numbers], out=values)
                for (own, layout), found in zip(runs, blocks, strict=True):
                    if layout.structure[block]:
                        found[block] = values[own]
                        if stored == "fp32":
                            first = layout.places[f"block{block}_{next(iter(self._shapes))}"][0] // 4
                            found[block] = room[own, first : first + numbers].copy_(values[own])
            for (own, layout), found in zip(runs, blocks, strict=True):
                raw = room[own].view(torch.uint8)
                raw[:, : layout.head] = torch.frombuffer(bytearray(layout.template), dtype=torch.uint8)[: layout.head]
                weights = _Weights(found, self._shapes)
                _store(weights, layout, room[own])
                yield Made(users[own], self.network(layout.structure), layout, weights, raw[:, : layout.size])

    def package_bytes(self, structure: tuple[int, ...], stored: Stored) -> int:
        """Return the length of the package of every user of a structure."""
        return self.layout(structure, stored).size

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of the tensors of a block in the order in which a file has them."""
        return dict(sorted(self.model.backbone.shapes.items()))

    @cached_property
    def _ordered(self) -> Tensor:
        """Return the mapper's weights [D + 1, L P], the bias last, with the tensors of a block as a file has them.

        Latents with a one behind them get the bias from the product, which a pass of its own took a sixth of the time.
        """
        sizes = {name: math.prod(shape) for name, shape in self.model.backbone.shapes.items()}
        starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]).tolist(), strict=False))
        rows = torch.cat([torch.arange(starts[name], starts[name] + sizes[name]) for name in self._shapes])
        every = torch.cat([rows + block * len(rows) for block in range(self.mapper.blocks)])
        linear = self.mapper.linear
        return torch.cat([linear.weight.detach()[every].t(), linear.bias.detach()[every][None]])


@dataclass(frozen=True)
class _Weights:
    """Packed weights [n, P] of each chosen block, and the tensors of one in the order in which they are packed."""

    blocks: dict[int, Tensor]
    shapes: dict[str, tuple[int, ...]]

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield each tensor by its name in a package, [n, *shape]."""
        for block, values in self.blocks.items():
            start = 0
            for name, shape in self.shapes.items():
                count = math.prod(shape)
                yield f"block{block}_{name}", values[:, start : start + count].unflatten(1, shape)
                start += count


@dataclass(frozen=True)
class Made:
    """Packages of n users of one structure, up to BATCH: whose they are, and `rows` uint8 [n, bytes]."""

    users: np.ndarray
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
        return dict(self.weights.named())

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
    """Write weights into the rows of files, where they are in fp32 already if those are; see that all are finite."""
    if layout.stored == "int8":
        for name, tensor in weights.named():
            for entry, values, dtype in weights_package.entries(name, tensor, layout.stored, leading_axes=1):
                if dtype.is_floating_point:
                    _check_finite(values)
                at = layout.places[entry][0] // dtype.itemsize
                room.view(dtype)[:, at : at + values[0].numel()] = values.flatten(1)
        return
    for block, values in weights.blocks.items():
        if layout.stored == "fp32":
            _check_finite(values)
            continue
        extremes = torch.stack(values.aminmax())
        _check_finite(extremes)
        weights_package.in_half(extremes)  # which raises where the largest is too large
        at = layout.places[f"block{block}_{next(iter(weights.shapes))}"][0] // 2
        room.view(torch.float16)[:, at : at + values.shape[1]] = values


def _gray(structures: np.ndarray) -> np.ndarray:
    """Return the places [U] of structures [U, L] in the order of a reflected binary code: neighbours differ little.

    In plain order a batch of several structures computes twice as many blocks that some of its users do not run.
    """
    return np.lexsort((np.cumsum(structures, axis=1) % 2).T[::-1])


def _alike(structures: np.ndarray) -> Iterator[slice]:
    """Yield the runs of rows that are alike, of structures [n, L] with n above zero."""
    changes = np.flatnonzero((structures[1:] != structures[:-1]).any(axis=1)) + 1
    for first, last in pairwise([0, *changes.tolist(), len(structures)]):
        yield slice(first, last)


def _check_finite(values: Tensor) -> None:
    """Raise WeightsPackageError where some are no finite numbers."""
    if not math.isfinite(values.sum().item()):  # a quarter of the time of looking at each
        raise WeightsPackageError("the mapper gives numbers that are not finite; train the checkpoint again")


def _filled(rows: np.ndarray) -> np.ndarray:
    """Return rows [n, ...] as [BATCH, ...], zeros behind them."""
    if len(rows) == BATCH:
        return np.ascontiguousarray(rows)
    whole = np.zeros((BATCH, *rows.shape[1:]), rows.dtype)
    whole[: len(rows)] = rows
    return whole
