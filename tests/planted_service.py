"""A real server on a socket, in a thread, with a planted model that answers while its gate is open."""

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator, Sequence

from exporter.serve import server
from exporter.serve.app import Service, application
from exporter.serve.batching import User
from exporter.serve.bodies import Bodies, Taken
from exporter.serve.limits import Limits
from exporter.serve.metrics import Metrics

GOOD = b'{"structure": "10", "latent": [1, 2.5, -3e2]}'
BODIES = Bodies([Taken("structure", (2,), in_digits=True), Taken("latent", (3,))], ("fp32", "int8"))


class Served:
    """A server in a thread; its model answers with what it got, one call at a time, while `gate` is open."""

    def __init__(self, **limits: float) -> None:
        self.gate, self.calls, self.told = threading.Event(), [], []
        self.gate.set()
        self.fails = False
        given = {"batch": 3, "queue": 4, "deadline_s": 60.0, "body_bytes": BODIES.most_bytes, "read_s": 60.0, **limits}
        self.limits = Limits(**given)  # type: ignore[arg-type]
        self.urls: list[str] = []
        opened = threading.Event()

        def app(of: server.Server):
            self.metrics = Metrics({"model": "planted"}, lambda: of.open_connections)
            service = Service("/v1/weights", BODIES, self.compute, {})
            return application(service, self.limits, self.metrics, lambda: of.is_leaving, self.told.append)

        def announce(url: str) -> None:
            self.urls.append(url)
            opened.set()

        self.server = server.Server(app, self.limits, announce)
        listener = server.bind("127.0.0.1", 0)
        self.port = listener.getsockname()[1]
        self.thread = threading.Thread(target=self.server.run, args=([listener],))
        self.thread.start()
        assert opened.wait(60) and self.urls == [f"http://127.0.0.1:{self.port}"]

    def compute(self, users: Sequence[User]) -> list[bytes]:
        self.calls.append(len(users))
        assert self.gate.wait(60)
        if self.fails:
            raise RuntimeError("no room")
        return [json.dumps([*map(float, one.inputs["latent"]), one.stored]).encode() for one in users]

    def ask(self, body: bytes = GOOD, path: str = "/v1/weights", method: str = "POST") -> tuple[int, dict, bytes]:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()

    def raw(self, content: bytes) -> bytes:
        """Send bytes as they are and return all that comes until the server closes."""
        with self.open() as opened:
            opened.sendall(content)
            return received(opened)

    def open(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 60)

    def value(self, line: str) -> float:
        text = self.metrics.text().decode()
        return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(line)), 0.0)

    def end(self) -> None:
        self.gate.set()
        self.server.should_exit = True
        self.thread.join(60)
        assert not self.thread.is_alive()


def received(opened: socket.socket) -> bytes:
    pieces = []
    with contextlib.suppress(ConnectionResetError):
        while piece := opened.recv(65536):
            pieces.append(piece)
    return b"".join(pieces)


@contextlib.contextmanager
def serving(**limits: float) -> Iterator[Served]:
    served = Served(**limits)
    try:
        yield served
    finally:
        served.end()


def post(body: bytes, *fields: str, line: str = "POST /v1/weights HTTP/1.1", length: str | None = None) -> bytes:
    head = [line, "Host: anything.example", "Content-Type: application/json", "Connection: close", *fields]
    head += [] if length == "" else [f"Content-Length: {length or len(body)}"]
    return "\r\n".join([*head, "", ""]).encode() + body
