"""The engine on Ray: a pool of actors of Ray Data computes shards, on one machine or many, and Ray replaces what dies.

The data set is the numbers of the shards. A worker that has one asks for the shard itself, and only what is asked for,
or will be next, is made and held: so memory does not grow with the users, and a shard is the same however often it is
asked for.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from exporter.core.errors import CocorrError, RuntimeCrashError, RuntimeTimeoutError
from exporter.fleet import frames, ray_worker, shipment
from exporter.fleet.engine import AGAIN, START_LIMIT_S, Task, Work, error_of, limit_of
from safeio.errors import printable

if TYPE_CHECKING:
    import pyarrow

_MOST_TRIES = 4
"""How often a shard is given to a worker: one that is asked for more often ends whoever computes it."""
_LOOK_S = 0.2
_DETAIL = 300


def run(work: Work, tasks: Iterator[Task], count: int, workers: int, threads: int) -> Generator[Task]:
    """Yield each of `count` tasks with what a worker computed of it, in the order in which they end.

    This process is connected to Ray. `tasks` are taken one by one, some `workers` ahead of what is asked for. All is
    ended with the generator. Raises what `engine.run` raises, but that a worker that dies is replaced, a few times for
    each shard.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "max_concurrency": 2 * workers + 100}
    desk = ray.remote(ray_worker.Desk).options(**options, scheduling_strategy=here).remote()
    parcels = shipment.packed(work.settings, work.paths, ray.put)
    pool = _Pool(workers, _share(workers, threads), work.variables)
    answers = pool.answers(count, work.module, dict(work.settings), parcels, desk)
    feed = _Feed(desk, tasks, workers)
    feed.start()
    try:
        with closing(answers):
            for answer in (row for table in answers for row in table.to_pylist()):
                feed.check()
                if answer[ray_worker.KIND] == "error":
                    raise error_of(answer[ray_worker.PAYLOAD])
                number = feed.done(answer[ray_worker.PLACE])
                if number is not None:
                    yield Task(number, frames.to_arrays(answer[ray_worker.PAYLOAD]))
        feed.check()
    except ray.exceptions.RayError as error:
        feed.check()
        raise _broken(error) from error
    finally:
        feed.stop()


def _share(workers: int, threads: int) -> float:
    """Return how many processors Ray keeps for a worker: half of those that it takes.

    A worker holds them for good, and one that a lost machine had must find room among the others. Ray fills each
    machine to its half before it takes the next, so that each still gets as many workers as it has processors for.
    """
    import ray

    share = min(threads, ray.cluster_resources().get("CPU", 1) / workers) / 2
    return int(share) if share >= 1 else share


@dataclass(frozen=True)
class _Pool:
    """Workers, each with some processors and these variables of the environment."""

    workers: int
    processors: float
    variables: Mapping[str, str]

    def answers(self, count: int, *arguments: object) -> "Generator[pyarrow.Table]":
        """Yield what workers that are made with these arguments answer to the numbers from 0 to `count`."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        context.wait_for_min_actors_s = int(START_LIMIT_S)
        _silence()
        numbers = ray.data.from_items(list(range(count)), override_num_blocks=count)
        answered = numbers.map_batches(
            ray_worker.Worker,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=self.workers, initial_size=self.workers),
            num_cpus=self.processors,
            runtime_env={"env_vars": dict(self.variables)},
        )
        yield from answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)


def _silence() -> None:
    """Leave the words of Ray Data to its own log file; it has no option for that."""
    from ray.data._internal.logging import configure_logging

    configure_logging()
    logger = logging.getLogger("ray.data")
    for handler in logger.handlers[:]:
        if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
            logger.removeHandler(handler)


class _Feed(threading.Thread):
    """Hands to the desk what workers ask for, and ends all where one asks too often or computes too long."""

    def __init__(self, desk: Any, tasks: Iterator[Task], ahead: int) -> None:
        super().__init__(daemon=True)
        self._desk, self._tasks, self._ahead = desk, tasks, ahead
        self._error: BaseException | None = None
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._made = 0
        self._held: dict[int, tuple[int, float, object]] = {}
        """Place of a shard that is made and not done -> its number, its time limit, and where Ray has it."""
        self._tries: Counter[int] = Counter()
        self._working: dict[int, tuple[float, Any]] = {}
        """Place of a shard that a worker has -> since when, and the worker."""

    def run(self) -> None:
        """Answer until `stop` is called; after a failure with nothing, which wakes whoever reads the results."""
        import ray

        asked = self._desk.next_asked.remote()
        while not self._stopping.is_set():
            try:
                if ray.wait([asked], timeout=_LOOK_S)[0]:
                    place, worker = ray.get(asked)
                    asked = self._desk.next_asked.remote()
                    try:
                        self._answer(place, worker)
                    except BaseException:
                        self._desk.give.remote(place, None)
                        raise
                self._end_late()
            except ray.exceptions.RayError as error:
                self._fail(_broken(error))
                break
            except BaseException as error:  # told where the results are read
                self._fail(error)

    def _answer(self, place: int, worker: Any) -> None:
        if self._error is not None:
            self._desk.give.remote(place, None)
            return
        self._tries[place] += 1
        if self._tries[place] > _MOST_TRIES:
            raise RuntimeCrashError(
                f"workers ended {_MOST_TRIES} times in the middle of one and the same shard, the runtime crashes or"
                f" their machines have too little memory; {AGAIN}"
            )
        self._make(place)
        with self._lock:
            held = self._held.get(place)
            if held is not None:
                self._working[place] = time.monotonic(), worker
        self._desk.give.remote(place, None if held is None else [held[2]])
        self._make(place + self._ahead)

    def _make(self, last: int) -> None:
        """Make all shards up to a place."""
        import ray

        while self._made <= last and (task := next(self._tasks, None)) is not None:
            held = task.number, limit_of(task.arrays), ray.put(frames.of_arrays(task.arrays))
            with self._lock:
                self._held[self._made] = held
            self._made += 1

    def _end_late(self) -> None:
        """Raise RuntimeTimeoutError where a worker takes too long; the first time it loads its files too."""
        with self._lock:
            for place, (since, _) in self._working.items():
                limit_s = self._held[place][1] + START_LIMIT_S
                if self._error is None and time.monotonic() - since > limit_s:
                    raise RuntimeTimeoutError(f"a worker did not finish within {limit_s:g} s and was ended; {AGAIN}")

    def _fail(self, error: BaseException) -> None:
        """Keep the error for whoever reads the results, and end the workers that are at work, which wakes them."""
        import ray

        self._error = error
        with self._lock:
            working = [worker for _, worker in self._working.values()]
            self._working.clear()
        for worker in working:
            with suppress(ray.exceptions.RayError, ValueError):
                ray.kill(worker, no_restart=True)

    def check(self) -> None:
        """Raise what ended the feed."""
        if self._error is not None:
            raise self._error

    def done(self, place: int) -> int | None:
        """Let go of a shard that is done and return its number; None where it was done before."""
        with self._lock:
            self._working.pop(place, None)
            held = self._held.pop(place, None)
        if held is None:
            return None
        self._desk.forget.remote(place)
        return held[0]

    def stop(self) -> None:
        """Wait for the end of the thread."""
        self._stopping.set()
        self.join()


def _broken(error: Exception) -> CocorrError:
    words = " ".join(str(error).split())
    return RuntimeCrashError(f"Ray gave up: {printable(words[-_DETAIL:])}; {AGAIN}")
