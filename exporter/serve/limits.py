"""How much a service takes of anybody: each of these is a promise to all others who ask."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Limits of one process.

    `batch` users are computed at once and `queue` wait for that; a user is answered within `deadline_s`. A request's
    head, and then its body, must come within `read_s`, its answer be taken within `send_s`. Of `connections` those
    that ask for nothing make room for others.
    """

    batch: int
    queue: int
    deadline_s: float
    body_bytes: int
    read_s: float = 10.0
    send_s: float = 30.0
    connections: int = 512

    @property
    def request_s(self) -> float:
        """Return the longest that a request can be at work, from its head to the last byte of its answer."""
        return self.read_s + self.deadline_s + self.send_s
