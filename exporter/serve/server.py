"""The server of a service: uvicorn on one address, with connections that cost nobody anything."""

import asyncio
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from exporter.core.errors import BadInputError
from exporter.serve.limits import Limits
from safeio.errors import one_line

_HEAD_BYTES = 16 << 10
_BACKLOG = 1024


class _Config(uvicorn.Config):
    """Holds what connections share: the limits, and which of them wait for a request, the longest waiting first."""

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        super().__init__(
            app,
            loop="asyncio",
            http=Connection,
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=_BACKLOG,
            timeout_keep_alive=int(limits.read_s),
            timeout_graceful_shutdown=int(limits.request_s) + 1,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        self.limits = limits
        self.waiting: dict[Connection, None] = {}


class Connection(H11Protocol):
    """A connection with a limit on the time that a head takes to come, and on all that follows it.

    Where there are as many as may be, the one that has waited longest for a request goes.
    """

    config: _Config

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._timer: asyncio.TimerHandle | None = None
        self._is_asking: bool | None = None
        self._has_sent_all = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, or the place of another."""
        super().connection_made(transport)
        self._follow()
        if len(self.connections) > self.config.limits.connections:
            longest = next(iter(self.config.waiting))
            del self.config.waiting[longest]  # its end is heard of later, and others may come before
            longest.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take some bytes; those of a head that is not whole give it no more time."""
        super().data_received(data)
        self._follow()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Stay for the answers to what has wholly come from a client that sends no more."""
        self._has_sent_all = True
        return self._is_at_work

    def on_response_complete(self) -> None:
        """Wait for the next request, for as long as for the first; where none can come, go."""
        self._is_asking = None
        super().on_response_complete()
        if self._has_sent_all and not self._is_at_work:
            self.transport.close()
        self._follow()

    @property
    def _is_at_work(self) -> bool:
        """Say whether there is a request that has wholly come and is not answered."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        super().connection_lost(exc)
        self.config.waiting.pop(self, None)
        if self._timer is not None:
            self._timer.cancel()

    def _follow(self) -> None:
        """Start a clock where the connection began to wait for a request, or to have one."""
        is_asking = self.cycle is not None and not self.cycle.response_complete
        if is_asking == self._is_asking or self.transport.is_closing():
            return
        self._is_asking = is_asking
        limits = self.config.limits
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(limits.request_s if is_asking else limits.read_s, self.transport.abort)
        if is_asking:
            self.config.waiting.pop(self, None)
        else:
            self.config.waiting[self] = None


class Server(uvicorn.Server):
    """Serves an app until a signal ends it; `announce` is told the address once it is open."""

    def __init__(self, app: Callable[["Server"], ASGIApp], limits: Limits, announce: Callable[[str], None]) -> None:
        self._announce = announce
        super().__init__(_Config(app(self), limits))

    @property
    def is_leaving(self) -> bool:
        """Say whether it was told to stop."""
        return self.should_exit

    @property
    def open_connections(self) -> int:
        """Return how many connections there are."""
        return len(self.server_state.connections)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and tell of it."""
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            self._announce(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")


def bind(address: str, port: int) -> socket.socket:
    """Return a socket that has an address, on a port or, for 0, any, and takes nobody yet; raises BadInputError."""
    try:
        # Its protocol is named: of other sockets asyncio does not know that no answer is to wait for a delayed ACK.
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as stack:
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
            stack.pop_all()
            return listener
    except (OSError, ValueError) as error:  # ValueError: a name with an empty label, or a long one
        raise _unusable(address, port, error) from error


def _unusable(address: str, port: int, error: OSError | ValueError) -> BadInputError:
    reason = error.strerror if isinstance(error, OSError) else "that is no address and no name of a host"
    return BadInputError(one_line(f"cannot listen at {address} port {port}: {reason}; choose another --bind or --port"))


def run(server: Server, listener: socket.socket) -> None:
    """Serve at a bound socket until SIGTERM or SIGINT: who was taken is answered, nobody new is.

    Raises BadInputError where another process has come to listen there since.
    """
    try:
        listener.listen(_BACKLOG)
    except OSError as error:
        address, port = listener.getsockname()[:2]
        raise _unusable(address, port, error) from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)  # uvicorn raises them again when it has stopped
    server.run(sockets=[listener])
