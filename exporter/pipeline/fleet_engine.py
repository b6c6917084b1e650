"""Which engine computes shards: processes on this machine, or Ray where `--ray` says so."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exporter.pipeline.lengths import Report

if TYPE_CHECKING:
    from exporter.fleet.engine import Task, Work


@dataclass(frozen=True)
class Engine:
    """What was asked for: `ray` is None for processes here, else `local` or the address of a cluster.

    `workers` is None for as many as have room with their `threads`.
    """

    ray: str | None
    workers: int | None
    threads: int

    @contextmanager
    def computed(
        self, work: "Work", tasks: "Iterator[Task]", count: int, report: Report
    ) -> "Iterator[tuple[int, Generator[Task]]]":
        """Give how many workers there are, and the `count` tasks as they are done; with the body all workers end.

        Raises BadInputError for a cluster that cannot be used; the tasks raise what `engine.run` says.
        """
        if self.ray is None:
            from exporter.fleet import engine

            workers = min(self.workers or max(1, _processors() // self.threads), count)
            with closing(engine.run(work, tasks, workers)) as done:
                yield workers, done
            return
        from exporter.fleet import ray_cluster, ray_engine

        report("starting Ray" if self.ray == ray_cluster.LOCAL else f"connecting to Ray at {self.ray}")
        with ray_cluster.connected(self.ray, work.folder, _processors()):
            workers = min(self.workers or ray_cluster.room(self.threads), count)
            with closing(ray_engine.run(work, tasks, count, workers, self.threads)) as done:
                yield workers, done


def _processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
