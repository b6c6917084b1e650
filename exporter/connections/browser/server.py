"""The server of the page: one list of files, one token, and nobody's requests but those of our own page.

It is for one page on one machine or one phone, with others on the same network who may be curious or worse. Who does
not know the token learns nothing; a page of somebody else, also one whose name leads here, is refused by its Host and
its Origin; whoever is slow, sends too much or leaves takes nothing from the others.
"""

import hmac
import os
import re
import secrets
import selectors
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from exporter.connections.browser import addresses, wire
from exporter.connections.browser.certificate import Certificate, server_context
from safeio import files

MAX_CONNECTIONS = 32
THREADS = "browser-server"
"""How the names of this module's threads begin."""

_JOIN_S = 2.0
_FULL_S = 0.1  # how long to wait where the system has no descriptor left for a connection
# Names are compared as they come. What could be read as another name, a query or a way out is no name at all.
_NAME = re.compile(r"(?:[A-Za-z0-9@_-][A-Za-z0-9@._-]*(?:/[A-Za-z0-9@_-][A-Za-z0-9@._-]*)*)?")
_LENGTH = re.compile(r"[0-9]{1,12}")


@dataclass(frozen=True)
class Served:
    """What the page may have: bytes or a regular file, and its media type.

    A file is opened without following links when it is asked for, and served with the size that it has then.
    """

    content: bytes | Path
    kind: str


@dataclass(frozen=True)
class Reply:
    """The answer to a POST: 200, 204, 400, 403, 404, 409 or 410."""

    status: int
    body: bytes = b""
    kind: str = "application/json"


class Site(Protocol):
    """What is served; called from several threads at once. Names stand below the token, the page's own is empty."""

    def file(self, name: str) -> Served | None:
        """Return what a GET of `name` gives, None if there is no such name."""

    def limit(self, name: str, visit: str) -> int | None:
        """Return the most bytes that may be posted to `name` by whom `visit` names, None if there is no such name."""

    def post(self, name: str, visit: str, body: bytes) -> Reply:
        """Answer what was posted; `visit` is the request's Cocorr-Visit, empty without one. May block for a while."""


class Server:
    """Serves a site at `url` until it is closed; a context manager.

    `address` is the only one at which it listens, on a port that the system chooses. Raises DeviceError where that
    cannot be, and BadInputError for a certificate that cannot be used.
    """

    url: str

    def __init__(self, site: Site, address: str = "127.0.0.1", certificate: Certificate | None = None) -> None:
        self._site = site
        self._context = None if certificate is None else server_context(certificate)
        self._token = secrets.token_urlsafe(16)
        at = addresses.canonical(address)
        self._listener = addresses.listen(at)
        port = self._listener.getsockname()[1]
        self._host = f"[{at}]:{port}" if ":" in at else f"{at}:{port}"
        self._origin = f"{'http' if certificate is None else 'https'}://{self._host}"
        self.url = f"{self._origin}/{self._token}/"
        self._lock = threading.Lock()
        self._connections: dict[wire.Connection, threading.Thread] = {}  # the oldest first
        self._closed = threading.Event()
        self._waking, self._wake = socket.socketpair()
        self._acceptor = threading.Thread(target=self._accept, name=f"{THREADS}-accept", daemon=True)
        self._acceptor.start()

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening, cut all connections and end their threads.

        Wake what blocks in the site before: such a thread ends, and answers nobody, only when the site returns, and is
        waited for no longer than two seconds.
        """
        self._closed.set()
        self._wake.close()
        self._acceptor.join()
        self._listener.close()
        self._waking.close()
        with self._lock:
            left = dict(self._connections)
        for connection in left:
            connection.cut()
        end = time.monotonic() + _JOIN_S
        for thread in left.values():
            thread.join(max(end - time.monotonic(), 0))

    def _accept(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._waking, selectors.EVENT_READ)
            while not self._closed.is_set():
                selector.select()
                try:
                    opened, address = self._listener.accept()
                except (BlockingIOError, ConnectionAbortedError):
                    continue
                except OSError:
                    self._closed.wait(_FULL_S)
                    continue
                self._admit(opened, address[0])

    def _admit(self, opened: socket.socket, peer: str) -> None:
        """Serve a connection in a thread of its own, in the place of one that never showed the token if need be."""
        with self._lock:
            if len(self._connections) >= MAX_CONNECTIONS:
                strangers = [one for one in self._connections if not one.proven]
                if not strangers:
                    opened.close()
                    return
                # Of those from the address with the most, so that one who opens many takes the place of no other.
                counts = Counter(one.peer for one in strangers)
                oldest = max(strangers, key=lambda one: counts[one.peer])
                oldest.cut()
                del self._connections[oldest]
            try:
                connection = wire.Connection(opened, self._context, peer)
            except OSError:
                opened.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name=THREADS, daemon=True)
            self._connections[connection] = thread
            try:
                thread.start()
            except RuntimeError:  # the system has no thread left
                del self._connections[connection]
                connection.close()

    def _serve(self, connection: wire.Connection) -> None:
        try:
            try:
                self._answer(connection)
            except wire.RefusedError as refused:
                words = f"{refused.status} {HTTPStatus(refused.status).phrase}\n".encode()
                connection.send(refused.status, "text/plain; charset=utf-8", len(words), [words])
            connection.linger()
        except wire.GoneError:
            pass
        finally:
            connection.close()
            with self._lock:
                self._connections.pop(connection, None)

    def _answer(self, connection: wire.Connection) -> None:
        """Answer one request; raises wire.RefusedError and wire.GoneError."""
        head = connection.read_head()
        self._check_sender(head)
        if head.method not in ("GET", "POST"):
            raise wire.RefusedError(HTTPStatus.METHOD_NOT_ALLOWED)
        token, slash, name = head.target[1:].partition("/")
        # Both are looked at, whichever is wrong.
        if not (hmac.compare_digest(token, self._token) & (slash == "/") & (_NAME.fullmatch(name) is not None)):
            raise wire.RefusedError(HTTPStatus.NOT_FOUND)
        connection.proven = True
        if head.method == "GET":
            self._get(connection, head, name)
        else:
            self._post(connection, head, name)

    def _check_sender(self, head: wire.Head) -> None:
        """Refuse what a page of somebody else sends, or what comes under another name than that of `url`."""
        origin = head.one("origin")
        allowed = (self._origin,) if head.method == "POST" else (self._origin, None)
        site = head.one("sec-fetch-site")
        if head.one("host") != self._host or origin not in allowed or site not in (None, "none", "same-origin"):
            raise wire.RefusedError(HTTPStatus.FORBIDDEN)

    def _get(self, connection: wire.Connection, head: wire.Head, name: str) -> None:
        if head.fields.keys() & {"content-length", "transfer-encoding"}:
            raise wire.RefusedError(HTTPStatus.BAD_REQUEST)
        served = self._site.file(name)
        if served is None:
            raise wire.RefusedError(HTTPStatus.NOT_FOUND)
        if isinstance(served.content, bytes):
            connection.send(HTTPStatus.OK, served.kind, len(served.content), [served.content])
            return
        try:
            file = files.open_file(served.content)
        except files.UnreadableError:
            raise wire.RefusedError(HTTPStatus.NOT_FOUND) from None
        with file:
            size = os.fstat(file.fileno()).st_size
            connection.send(HTTPStatus.OK, served.kind, size, _pieces(file, size))

    def _post(self, connection: wire.Connection, head: wire.Head, name: str) -> None:
        visit = head.one("cocorr-visit") or ""
        limit = self._site.limit(name, visit)
        if limit is None:
            raise wire.RefusedError(HTTPStatus.NOT_FOUND)
        length = head.one("content-length")
        if "transfer-encoding" in head.fields or length is None or not _LENGTH.fullmatch(length):
            raise wire.RefusedError(HTTPStatus.BAD_REQUEST)
        if int(length) > limit:
            raise wire.RefusedError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        reply = self._site.post(name, visit, connection.read_body(int(length)))
        connection.send(reply.status, reply.kind, len(reply.body), [reply.body])


def _pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield `size` bytes of a file; fewer if it has become shorter, or cannot be read to its end."""
    with suppress(OSError):
        while size and (piece := file.read(min(size, wire.PIECE_BYTES))):
            yield piece
            size -= len(piece)
