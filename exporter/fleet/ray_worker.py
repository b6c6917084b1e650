"""What runs on a Ray cluster: the desk where shards are handed out, and the worker that computes them."""

import asyncio
import importlib
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from exporter.core.types import Arrays
from exporter.fleet import frames, shipment
from exporter.fleet.worker import Judge, told
from safeio.staging import scratch

if TYPE_CHECKING:
    import pyarrow

PLACE, KIND, PAYLOAD = "place", "kind", "payload"
"""The columns of an answer: which shard, counted from 0, a kind of frame or GONE, and what a frame has."""
GONE = "gone"


class Desk:
    """An actor beside the engine: workers ask it for shards, and the engine hands it what they ask for.

    It holds nothing that the engine could not hand it again, so that Ray may start it anew.
    """

    def __init__(self) -> None:
        self._asked: asyncio.Queue[tuple[int, object]] = asyncio.Queue()
        self._given: dict[int, asyncio.Future[object]] = {}

    async def take(self, place: int, worker: object) -> object:
        """Return the reference to a shard in a list, as soon as the engine has handed it over; None for none."""
        self._asked.put_nowait((place, worker))
        return await self._at(place)

    async def next_asked(self) -> tuple[int, object]:
        """Return the shard that a worker has asked for, and the worker; waits until one does."""
        return await self._asked.get()

    async def give(self, place: int, shard: object) -> None:
        """Hand over a shard."""
        future = self._at(place)
        if not future.done():
            future.set_result(shard)

    async def forget(self, place: int) -> None:
        """Let go of a shard that is done."""
        self._given.pop(place, None)

    def _at(self, place: int) -> "asyncio.Future[object]":
        if place not in self._given:
            self._given[place] = asyncio.get_running_loop().create_future()
        return self._given[place]


class Worker:
    """An actor of the pool: it unpacks its files and makes its judge at its first shard, and keeps it."""

    def __init__(
        self, module: str, settings: Mapping[str, object], parcels: Mapping[str, shipment.Parcel], desk: Any
    ) -> None:
        self._module, self._settings, self._parcels, self._desk = module, settings, parcels, desk
        self._judge: Judge | None = None
        self._files = ExitStack()
        """A judge may read them as long as it lives; those of a worker that is killed go when the next one starts."""

    def __call__(self, batch: "pyarrow.Table") -> "pyarrow.Table":
        """Return the answer for the one shard of a batch; an error is an answer too, which nobody tries again."""
        import pyarrow as pa

        place = batch["item"][0].as_py()
        kind, payload = self._answer(place)
        return pa.table({PLACE: [place], KIND: [kind], PAYLOAD: pa.array([payload], pa.large_binary())})

    def _answer(self, place: int) -> tuple[str, bytes]:
        import ray

        given = ray.get(self._desk.take.remote(place, ray.get_runtime_context().current_actor))
        if given is None:
            return GONE, b""
        shard = frames.to_arrays(ray.get(given[0]))
        try:
            return "arrays", frames.of_arrays(self._computed(shard))
        except Exception as error:  # runtimes raise what they like
            return "error", frames.of_words(told(error))

    def _computed(self, shard: Arrays) -> Arrays:
        import ray

        if self._judge is None:
            with ExitStack() as files:
                folder = files.enter_context(scratch("worker"))
                settings = shipment.unpacked(self._settings, self._parcels, folder, ray.get)
                self._judge = importlib.import_module(self._module).make_judge(settings)
                self._files = files.pop_all()
        return self._judge(shard)
