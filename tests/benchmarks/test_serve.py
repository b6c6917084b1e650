"""The load test still runs, and holds a service to answering whoever asks."""

import os
import runpy
from types import SimpleNamespace

from commands import BENCHMARKS
from planted_service import GOOD, post, serving


def test_a_line_of_the_table_counts_every_request() -> None:
    row = runpy.run_path(str(BENCHMARKS / "serve.py"))["row"]
    request = post(GOOD).replace(b"Connection: close\r\n", b"")
    with serving(queue=2) as served:
        line = row(SimpleNamespace(pid=os.getpid()), served.port, [request], 40, 0.5)
    clients, *_, sent, good, refused = (cell.replace(",", "") for cell in line.strip("| ").split(" | "))
    assert (clients, int(sent)) == ("40", int(good) + int(refused))
    assert int(good) > 0 and int(refused) > 0
