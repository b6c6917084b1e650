"""How a training tells what it does, to whoever shows it."""

from collections.abc import Callable, Sequence

Report = Callable[[int, int, str], None]
"""Takes the batches done, all batches, and a note or ""; a total of 0 stands for before and after the training."""
Watch = Callable[[int, int], None]
"""Takes how many cases of how many were evaluated."""


class Passing(str):
    """A note that says what is done just now, and is worth showing only until the next one comes."""


def after(notes: Sequence[str], report: Report) -> Report:
    """Return a report that begins with notes once there is something to report; bad input is told without them."""
    waiting = list(notes)

    def tell(done: int, total: int, note: str) -> None:
        while waiting:
            report(0, 0, waiting.pop(0))
        report(done, total, note)

    return tell


def watching(report: Report, done: int, total: int, what: str) -> Watch:
    """Return what reports how far an evaluation is, `done` of `total` batches into the training."""
    return lambda cases, all_cases: report(done, total, Passing(f"{what}, {cases} of {all_cases} users"))


def unwatched(done: int, total: int) -> None:
    """Watch nothing."""
