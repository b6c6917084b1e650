"""How many requests a second `cocorr-export serve` answers on loopback, how long they take, and what is too much.

    python benchmarks/serve.py [--models ofa,scn] [--clients 1,8,32,64] [--seconds 5] [--queue 64] [--past 400]

The server is a process of its own, as users start it; this one is all clients, each of which asks again as soon as it
is answered, over one connection that it keeps. "a core" is by the processor time that the server itself took. The last
row of a model has more clients than may wait: each request is counted, and the run fails where one got no answer.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

_HZ = os.sysconf("SC_CLK_TCK")


@dataclass
class Load:
    """What clients saw: milliseconds of the answers with 200, answers by their status, and how many were sent."""

    milliseconds: list[float] = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)
    sent: int = 0


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> int:
    """Send one request and read its whole answer; return the status."""
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(int(line[15:]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    await reader.readexactly(length)
    return int(head[9:12])


async def client(port: int, bodies: Sequence[bytes], load: Load, end: float, number: int) -> None:
    """Ask again and again until the time is over; 50 ms after a 429, sooner than its Retry-After asks for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    at = number
    while time.monotonic() < end:
        started = time.monotonic()
        load.sent += 1
        status = await exchange(reader, writer, bodies[at % len(bodies)])
        load.answers[status] += 1
        if status == 200:
            load.milliseconds.append((time.monotonic() - started) * 1e3)
        else:
            await asyncio.sleep(0.05)
        at += 1
    writer.close()


async def loaded(port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Return what so many clients saw."""
    load, end = Load(), time.monotonic() + seconds
    await asyncio.gather(*(client(port, bodies, load, end, number) for number in range(clients)))
    return load


def bodies_of(model: str, path: str, count: int = 64) -> list[bytes]:
    """Return whole requests with numbers as of devices: normal ones, drawn."""
    rng = np.random.default_rng(0)
    requests = []
    for _ in range(count):
        if model == "ofa":
            digits = "".join(map(str, rng.integers(0, 2, 6)))
            document: dict[str, object] = {"structure": digits, "latent": rng.normal(size=64).round(6).tolist()}
        else:
            document = {"hidden_state": rng.normal(size=(10, 64)).round(6).tolist()}
        body = json.dumps(document).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        requests.append(head.encode() + body)
    return requests


async def counts(port: int) -> tuple[float, float]:
    """Return how many users and calls of the model the server counted."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = (await reader.read()).decode()
    writer.close()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("cocorr_serve_batch_users_"))
    return float(values["cocorr_serve_batch_users_sum"]), float(values["cocorr_serve_batch_users_count"])


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process, in itself and in the system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _HZ


def row(process: subprocess.Popen, port: int, bodies: Sequence[bytes], clients: int, seconds: float) -> str:
    """Measure one load and return its line of the table; raises where a request was lost."""
    users, calls = asyncio.run(counts(port))
    began, started = processor_seconds(process.pid), time.monotonic()
    load = asyncio.run(loaded(port, bodies, clients, seconds))
    took, spent = time.monotonic() - started, processor_seconds(process.pid) - began
    users_after, calls_after = asyncio.run(counts(port))
    answered, good = sum(load.answers.values()), load.answers[200]
    if answered != load.sent or good != users_after - users or set(load.answers) - {200, 429}:
        raise SystemExit(f"{load.sent} sent, {dict(load.answers)} answered, {users_after - users} computed")
    p50, p99 = np.percentile(load.milliseconds, [50, 99])
    batch = good / (calls_after - calls)
    return (
        f"| {clients} | {good / took:,.0f} | {good / spent:,.0f} | {p50:,.1f} | {p99:,.1f} | {batch:.1f} |"
        f" {load.sent:,} | {good:,} | {load.answers[429]:,} |"
    )


def measure(model: str, options: argparse.Namespace) -> None:
    """Start a server for a model, print a table, and stop it."""
    command = [sys.executable, "-m", "exporter", "serve", model, "--port", "0", "--queue", str(options.queue)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = urlsplit(str(process.stdout and process.stdout.readline()).rpartition(" ")[2].strip())
        port = int(url.port or 0)
        bodies = bodies_of(model, url.path)
        asyncio.run(loaded(port, bodies, 4, min(1.0, options.seconds)))
        print(f"\n{model}, at most {options.queue} wait\n")
        print("| clients | requests/s | a core | p50 ms | p99 ms | users a call | sent | 200 | 429 |")
        print("|---|---|---|---|---|---|---|---|---|")
        for clients in [*map(int, options.clients.split(",")), options.past]:
            print(row(process, port, bodies, clients, options.seconds), flush=True)
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            raise SystemExit(f"the server ended with {process.returncode}")
    finally:
        process.kill()


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="ofa,scn")
    parser.add_argument("--clients", default="1,8,32,64")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--queue", type=int, default=64)
    parser.add_argument("--past", type=int, default=400)
    options = parser.parse_args()
    for model in options.models.split(","):
        measure(model, options)


if __name__ == "__main__":
    main()
