"""Times of an exchange over links, by hand: the figures of the CoCorrRec paper's Table 5."""

import pytest

from exporter.core.sections import Link
from exporter.measure.network import transfers


def test_bytes_over_bandwidth_plus_the_round_trip() -> None:
    links = [
        Link("slow", 5e6, 5e6, None),
        Link("uneven", 1e6, 4e6, 30.0),
    ]
    slow, uneven = transfers(2560, 4160, links, 134.4)
    assert (slow.link, slow.up_ms, slow.down_ms, slow.round_trip_ms) == ("slow", 0.512, 0.832, None)
    assert slow.device_calls_meanwhile == pytest.approx(10)
    assert slow.total_ms == pytest.approx(1.344)  # 0.00134 s in the paper's setting
    assert (uneven.up_ms, uneven.down_ms, uneven.total_ms) == (2.56, 1.04, pytest.approx(33.6))
    assert transfers(0, 0, [], None) == ()
