"""A site for tests of the server, and a client that sends what no browser would."""

import http.client
import socket
import ssl
import threading
from pathlib import Path
from urllib.parse import urlsplit

from exporter.connections.browser import server
from exporter.connections.browser.server import Reply, Served, Server
from exporter.connections.browser.stand import Stand

PAGE = b"<!doctype html><title>page</title>"
MODEL = bytes(range(256)) * 40
MOST = 4096


class Stub:
    """Two files, a place that returns what is posted to it, and one that blocks until `awake` is set."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {"": Served(PAGE, "text/html"), "files/model.onnx": Served(MODEL, "model/x")}
        self.polled, self.awake = threading.Event(), threading.Event()

    def file(self, name: str) -> Served | None:
        return self.files.get(name)

    def limit(self, name: str, visit: str) -> int | None:
        return MOST if name in ("echo", "poll") else None

    def post(self, name: str, visit: str, body: bytes) -> Reply:
        if name == "poll":
            self.polled.set()
            self.awake.wait(60)
            return Reply(204)
        return Reply(200, visit.encode() + b"|" + body, "application/octet-stream")


class Client:
    """Speaks with a server by its url."""

    def __init__(self, of: Server | Stand, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(of.url)
        self.context = context
        self.address, self.port = parts.hostname or "", parts.port or 0
        self.host, self.path, self.origin = parts.netloc, parts.path, f"{parts.scheme}://{parts.netloc}"

    def open(self) -> socket.socket:
        opened = socket.create_connection((self.address, self.port), 60)
        if self.context is None:
            return opened
        return self.context.wrap_socket(opened, server_hostname=self.address)

    def raw(self, content: bytes, end: bool = True) -> bytes:
        """Send bytes as they are, say that no more come, and return all that comes back."""
        with self.open() as opened:
            try:
                opened.sendall(content)
                if end:
                    opened.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it had heard enough; its answer may be there all the same
            answer = b""
            try:
                while piece := opened.recv(65536):
                    answer += piece
            except ConnectionResetError:
                pass
            return answer

    def request(self, *changes: tuple[str, str | None], line: str | None = None, body: bytes = b"") -> bytes:
        """A request that is good but for its changes: fields with a value added, those without one left out."""
        fields = [("Host", self.host), ("Origin", self.origin), ("Content-Length", str(len(body)))]
        line = line or f"POST {self.path}echo HTTP/1.1"
        if line.startswith("GET "):
            fields = fields[:1]
        left = {name for name, _ in changes}
        fields = [one for one in fields if one[0] not in left] + [one for one in changes if one[1] is not None]
        return "\r\n".join([line, *(f"{name}: {value}" for name, value in fields), "", ""]).encode("latin-1") + body

    def get(self, name: str) -> bytes:
        return self.request(line=f"GET {self.path}{name} HTTP/1.1")

    def answer(self, method: str, name: str, body: bytes | None = None, **fields: str) -> http.client.HTTPResponse:
        """Ask as a browser does, and read the whole answer; its body is `content`."""
        kind = http.client.HTTPConnection
        if self.context is None:
            connection = kind(self.address, self.port, timeout=60)
        else:
            connection = http.client.HTTPSConnection(self.address, self.port, timeout=60, context=self.context)
        headers = {key.replace("_", "-"): value for key, value in fields.items()}
        if method == "POST":
            headers["Origin"] = self.origin
        connection.request(method, f"{self.path}{name}", body, headers)
        response = connection.getresponse()
        response.content = response.read()  # type: ignore[attr-defined]
        connection.close()
        return response


def status(answer: bytes) -> int:
    """The status of an answer, 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer else 0


def ended(opened: socket.socket) -> bool:
    """Wait until the other side has ended a connection; say whether it did so without a word."""
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:  # as the system says it where something was left unread
        return True


def threads() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith(server.THREADS)]


def all_end(left: list[threading.Thread] | None = None) -> bool:
    """Wait for the ends of threads, of all that serve a connection by default."""
    for thread in threads() if left is None else left:
        if not thread.name.endswith("accept"):
            thread.join(60)
            if thread.is_alive():
                return False
    return True


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
