"""How long a device waits for its exchange with the cloud, over the links that its profile names."""

from collections.abc import Iterable

from exporter.core.sections import Link, Transfer


def transfers(up_bytes: int, down_bytes: int, links: Iterable[Link], device_us: float | None) -> tuple[Transfer, ...]:
    """Return bytes over bandwidth, each way, plus the round trip; headers, handshakes and losses are not in it.

    `device_us` is the time of one call on the device; None where it was not measured.
    """
    return tuple(_transfer(up_bytes, down_bytes, link, device_us) for link in links)


def _transfer(up_bytes: int, down_bytes: int, link: Link, device_us: float | None) -> Transfer:
    up_ms = 1e3 * up_bytes / link.up_bytes_per_s
    down_ms = 1e3 * down_bytes / link.down_bytes_per_s
    total_ms = up_ms + down_ms + (link.round_trip_ms or 0)
    calls = None if device_us is None else total_ms * 1e3 / device_us
    return Transfer(link.name, up_ms, down_ms, link.round_trip_ms, total_ms, calls)
