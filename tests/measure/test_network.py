"""Times of an exchange over links, by hand: the figures of the CoCorrRec paper's Table 5."""

import pytest

from exporter.measure.network import transfers


def test_bytes_over_bandwidth_plus_the_round_trip() -> None:
    links = [
        {"name": "slow", "up_bytes_per_s": 5e6, "down_bytes_per_s": 5e6, "round_trip_ms": None},
        {"name": "uneven", "up_bytes_per_s": 1e6, "down_bytes_per_s": 4e6, "round_trip_ms": 30.0},
    ]
    slow, uneven = transfers(2560, 4160, links)
    assert (slow.link, slow.up_ms, slow.down_ms, slow.round_trip_ms) == ("slow", 0.512, 0.832, None)
    assert slow.total_ms == pytest.approx(1.344)  # 0.00134 s in the paper's setting
    assert (uneven.up_ms, uneven.down_ms, uneven.total_ms) == (2.56, 1.04, pytest.approx(33.6))
    assert transfers(0, 0, []) == []
