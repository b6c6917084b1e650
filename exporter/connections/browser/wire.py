"""One request of HTTP/1.1 on one connection, read strictly: what two readers could take differently is refused.

Every answer ends its connection, so that nothing of a request can be taken for the beginning of the next one.
"""

import contextlib
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

HEAD_S = 20.0
"""How long a handshake and the head of a request may take together."""
TRANSFER_S = 20.0
LEAST_BYTES_PER_S = 64 * 1024
"""A body may take TRANSFER_S and the time that its size needs at this rate."""
LINGER_S = 2.0
"""How long the other side may take to read an answer, and to end what it sends, before the connection is cut."""

MAX_HEAD_BYTES = 16 * 1024
MAX_FIELDS = 64
PIECE_BYTES = 64 * 1024

_DENIED = (
    *("accelerometer", "autoplay", "camera", "display-capture", "fullscreen", "geolocation", "gyroscope"),
    *("hid", "magnetometer", "microphone", "midi", "payment", "serial", "usb"),
)
HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
        "style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": ", ".join((*(f"{name}=()" for name in _DENIED), "screen-wake-lock=(self)")),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""What every answer says."""

_END = b"\r\n\r\n"
_UNCLEAR = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\0")  # line ends that only some readers take for one
_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):([^\0-\x08\x0a-\x1f\x7f]*)")


class GoneError(Exception):
    """The other side has left, or was too slow; there is nobody to tell."""


class RefusedError(Exception):
    """A request that gets no more than a status."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True)
class Head:
    """A request without its body; names of fields are lower-case, and only the last of several like ones is kept.

    `repeated` are the names that came more than once.
    """

    method: str
    target: str
    fields: Mapping[str, str]
    repeated: frozenset[str]

    def one(self, name: str) -> str | None:
        """Return the value of a field, None without one; raises RefusedError where there are several."""
        if name in self.repeated:
            raise RefusedError(HTTPStatus.BAD_REQUEST)
        return self.fields.get(name)


def parse(head: bytes) -> Head:
    """Read the head of a request, without the empty line at its end; raises RefusedError."""
    if _UNCLEAR.search(head):
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    first, *lines = head.decode("latin-1").split("\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    if request is None or len(lines) > MAX_FIELDS:
        raise RefusedError(HTTPStatus.BAD_REQUEST)
    fields: dict[str, str] = {}
    repeated = set()
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:
            raise RefusedError(HTTPStatus.BAD_REQUEST)
        name = field[1].lower()
        if name in fields:
            repeated.add(name)
        fields[name] = field[2].strip(" \t")
    return Head(request[1], request[2], fields, frozenset(repeated))


class Connection:
    """A connection that a browser, or somebody else, has opened; all that waits has an end. Closed by its user."""

    def __init__(self, opened: socket.socket, context: ssl.SSLContext | None, peer: str) -> None:
        """Take over a socket that `peer` has connected; raises OSError where the other side has left already."""
        self.peer = peer
        self.proven = False
        """Whether the other side knew the token."""
        self._rest = b""
        self._deadline = time.monotonic() + HEAD_S
        self._socket = opened
        self._secure: ssl.SSLSocket | None = None
        if context is not None:
            # The handshake waits for the other side: it is done by the thread that serves the connection.
            self._secure = context.wrap_socket(opened, server_side=True, do_handshake_on_connect=False)
            self._socket = self._secure

    def read_head(self) -> Head:
        """Read all up to the empty line; raises RefusedError and GoneError."""
        if self._secure is not None:
            try:
                self._secure.settimeout(self._left())
                self._secure.do_handshake()
            except OSError as error:
                raise GoneError from error
        head, seen = b"", 0
        while (end := head.find(_END, max(seen - len(_END), 0))) < 0:
            # Refused now, not when the time is over: such a request may never have the end that is waited for.
            if _UNCLEAR.search(head, max(seen - 1, 0)) or len(head) >= MAX_HEAD_BYTES:
                raise RefusedError(HTTPStatus.BAD_REQUEST)
            seen = len(head)
            head += self._receive(MAX_HEAD_BYTES - seen)
        self._rest = head[end + len(_END) :]
        return parse(head[:end])

    def read_body(self, length: int) -> bytes:
        """Read so many bytes; raises GoneError."""
        self._deadline = time.monotonic() + TRANSFER_S + length / LEAST_BYTES_PER_S
        pieces = [self._rest[:length]]
        missing = length - len(pieces[0])
        while missing:
            pieces.append(self._receive(min(missing, PIECE_BYTES)))
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def send(self, status: int, kind: str, size: int, pieces: Iterable[bytes]) -> None:
        """Answer with the pieces, which should have `size` bytes together; raises GoneError.

        Where they have fewer, the connection ends early, which tells the other side that something is missing.
        """
        self._deadline = time.monotonic() + TRANSFER_S + size / LEAST_BYTES_PER_S
        own = {} if status == HTTPStatus.NO_CONTENT else {"Content-Length": str(size), "Content-Type": kind}
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in (own | HEADERS).items())]
        self._send("\r\n".join((*lines, "", "")).encode("ascii"))
        for piece in pieces:
            self._send(piece)

    def linger(self) -> None:
        """Say that no more is coming, and take what the other side still sends, for a moment.

        To close a connection on which something unread is waiting would destroy the answer on its way.
        """
        self._deadline = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError, GoneError):
            socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while True:
                self._receive(PIECE_BYTES)

    def cut(self) -> None:
        """End whatever another thread does with this connection."""
        # Not the method of the socket with TLS: it takes away what that thread is using.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give back the socket."""
        self._socket.close()

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise GoneError
        return left

    def _receive(self, most: int) -> bytes:
        try:
            self._socket.settimeout(self._left())
            piece = self._socket.recv(most)
        except OSError as error:
            raise GoneError from error
        if not piece:
            raise GoneError
        return piece

    def _send(self, piece: bytes) -> None:
        try:
            self._socket.settimeout(self._left())
            self._socket.sendall(piece)
        except OSError as error:
            raise GoneError from error
