"""The ASGI app of a service: one endpoint that asks the model, and three that tell of the service."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.serve import bodies
from exporter.serve.batching import Batcher, Compute, FailedError, FullError, LateError, UnanswerableError
from exporter.serve.limits import Limits
from exporter.serve.metrics import CONTENT_TYPE, Metrics


@dataclass(frozen=True)
class Service:
    """What is served: what requests hold at `path`, what answers them, and facts about the model by name."""

    path: str
    bodies: bodies.Bodies
    compute: Compute
    model: Mapping[str, str]


class Counted:
    """Counts the answers of an app by their status, and how long those at one path took."""

    def __init__(self, app: ASGIApp, metrics: Metrics, path: str) -> None:
        self._app, self._metrics, self._path = app, metrics, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(str(message["status"])).inc()
                if scope["path"] == self._path:
                    self._metrics.seconds.observe(time.monotonic() - started)
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            await self._app(scope, receive, counting)


class Framed:
    """Refuses a request that two readers may end at different places, for which the next one is not read either."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it (RFC 9112, 6.1)."""
        names = {name for name, _ in scope.get("headers", ())}
        if b"transfer-encoding" in names and (b"content-length" in names or scope["http_version"] == "1.0"):
            words = "Transfer-Encoding is for HTTP/1.1, and without Content-Length; send one of the two"
            await JSONResponse(bodies.refusal(words), 400, bodies.CLOSE)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def application(
    service: Service, limits: Limits, metrics: Metrics, is_leaving: Callable[[], bool], tell: Callable[[str], None]
) -> ASGIApp:
    """Return the app; `is_leaving` says whether it is to stop, `tell` is told of what failed, without a user's data."""
    batcher = Batcher(service.compute, limits, metrics, tell)

    async def ask(request: Request) -> Response:
        if is_leaving():
            raise HTTPException(503, "the service stops; ask again elsewhere", {"Connection": "close"})
        try:
            body = await bodies.read(request, limits.body_bytes, limits.read_s)
            answer = await batcher.answer(service.bodies.parse(body))
        except ClientDisconnect:
            raise HTTPException(400, "the connection was closed before the body had come") from None
        except FullError:
            raise HTTPException(429, f"{limits.queue} users wait already; ask again", {"Retry-After": "1"}) from None
        except LateError:
            raise HTTPException(504, f"no answer within {limits.deadline_s:g} s") from None
        except UnanswerableError as error:
            raise HTTPException(422, str(error)) from None
        except FailedError:
            raise HTTPException(500, "the model could not be called") from None
        return Response(answer, media_type="application/octet-stream")

    async def live(_request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def ready(_request: Request) -> Response:
        if is_leaving():
            raise HTTPException(503, "the service stops")
        return JSONResponse({"status": "ready"})

    async def counts(_request: Request) -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @contextlib.asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(batcher.run())
        try:
            yield
        finally:
            work.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await work

    app = Starlette(
        routes=[
            Route(service.path, ask, methods=["POST"]),
            Route("/healthz", live),
            Route("/readyz", ready),
            Route("/metrics", counts),
        ],
        exception_handlers={HTTPException: _refused},
        lifespan=running,
    )
    app.router.redirect_slashes = False  # a redirect would name the Host that the request came with
    return Counted(Framed(app), metrics, service.path)


async def _refused(_request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse(bodies.refusal(error.detail), error.status_code, error.headers)
