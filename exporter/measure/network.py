"""How long a device waits for its exchange with the cloud, over the links that its profile names."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Transfer:
    """One exchange over one link, in milliseconds; `total_ms` counts a round trip that is not known as 0."""

    link: str
    up_ms: float
    down_ms: float
    round_trip_ms: float | None
    total_ms: float


def transfers(up_bytes: int, down_bytes: int, links: Iterable[Mapping[str, Any]]) -> list[Transfer]:
    """Return bytes over bandwidth, each way, plus the round trip; headers, handshakes and losses are not in it.

    A link has `name`, `up_bytes_per_s`, `down_bytes_per_s` and `round_trip_ms`.
    """
    found = []
    for link in links:
        up_ms = 1e3 * up_bytes / link["up_bytes_per_s"]
        down_ms = 1e3 * down_bytes / link["down_bytes_per_s"]
        wait = link["round_trip_ms"]
        found.append(Transfer(link["name"], up_ms, down_ms, wait, up_ms + down_ms + (wait or 0)))
    return found
