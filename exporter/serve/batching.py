"""Users who ask at the same time are computed in one call: whoever comes while the model is busy waits for the next."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from exporter.core.types import Arrays
from exporter.serve.limits import Limits
from exporter.serve.metrics import Metrics


class FullError(Exception):
    """As many wait as may; nothing was taken."""


class LateError(Exception):
    """A user was not computed within the deadline."""


class FailedError(Exception):
    """The model could not be called."""


class UnanswerableError(Exception):
    """What a user sent gives no answer; the message is for that user, and has none of the numbers."""


@dataclass(frozen=True)
class User:
    """What one user sent: the program's inputs without the axis of users, and what the answer is to be stored in."""

    inputs: Arrays
    stored: str | None = None


Answer = bytes | UnanswerableError
Compute = Callable[[Sequence[User]], Sequence[Answer]]
"""What answers some users in one call, in their order."""


@dataclass(frozen=True)
class _Waiting:
    user: User
    answer: "asyncio.Future[Answer]"


class Batcher:
    """Collects users and computes them in a thread, one batch after the other; belongs to one event loop."""

    def __init__(self, compute: Compute, limits: Limits, metrics: Metrics, tell: Callable[[str], None]) -> None:
        self._compute, self._limits, self._metrics, self._tell = compute, limits, metrics, tell
        self._queue: deque[_Waiting] = deque()
        self._some = asyncio.Event()

    async def answer(self, user: User) -> bytes:
        """Return a user's answer; raises FullError, LateError, FailedError and UnanswerableError."""
        if len(self._queue) >= self._limits.queue:
            raise FullError
        waiting = _Waiting(user, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._metrics.waiting.set(len(self._queue))
        self._some.set()
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                answer = await waiting.answer
        except TimeoutError:
            raise LateError from None
        if isinstance(answer, UnanswerableError):
            raise answer
        return answer

    async def run(self) -> None:
        """Compute whoever waits, until this is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "model") as thread:
            while True:
                await self._some.wait()
                batch = self._next()
                if not batch:
                    self._some.clear()
                    continue
                self._metrics.batch.observe(len(batch))
                try:
                    answers = await loop.run_in_executor(thread, self._compute, [one.user for one in batch])
                    for one, answer in zip(batch, answers, strict=True):
                        if not one.answer.done():
                            one.answer.set_result(answer)
                except Exception as error:  # whatever a runtime raises: this batch fails, and the next may not
                    self._tell(f"warning: a batch of {len(batch)} failed: {type(error).__name__}: {error}")
                    for one in batch:
                        if not one.answer.done():
                            one.answer.set_exception(FailedError())

    def _next(self) -> list[_Waiting]:
        """Take the longest waiting users; whose deadline is over waits no more."""
        batch: list[_Waiting] = []
        while self._queue and len(batch) < self._limits.batch:
            waiting = self._queue.popleft()
            if not waiting.answer.done():
                batch.append(waiting)
        self._metrics.waiting.set(len(self._queue))
        return batch
