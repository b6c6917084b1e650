"""Phones for tests of the connection `browser`: one that speaks as the page does, and one that a person holds."""

import contextlib
import copy
import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

from browser import Page
from raw_client import Client
from servers import descendants, wait_for

from exporter.connections.browser.connection import BrowserConnection
from exporter.connections.browser.stand import Stand, stand_at
from exporter.core.types import RunRequest

HANGS = "self.startRuntime = async () => { for (;;); };"


class Visitor:
    """A device that does by hand what the page does, or something else."""

    def __init__(self, stand: Stand, name: str = "Mozilla/5.0 (Linux; Android 16) Chrome/156.0.0.0") -> None:
        self._client, self._name, self.ticket, self.job = Client(stand), name, "", 1

    def hello(self) -> int:
        """Come to the page; return the status."""
        answer = self._client.answer("POST", "hello", json.dumps({"agent": self._name}).encode())
        if answer.status == 200:
            self.ticket = json.loads(answer.content)["visit"]  # type: ignore[attr-defined]
        return answer.status

    def say(self, word: str, body: object = None) -> HTTPResponse:
        """Post bytes as they are, and what else there is as JSON; `started` with the number of the job."""
        if word == "started" and body is None:
            body = {"number": self.job}
        content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
        name = f"job/{self.job}/{word}" if word in ("outputs", "response") else word
        return self._client.answer("POST", name, content, Cocorr_Visit=self.ticket)

    def status(self, word: str, body: object = None) -> int:
        """Say something and return the status."""
        return self.say(word, body).status

    def next(self, after: int) -> Any:
        """Return the event after so many."""
        return json.loads(self.say("next", {"after": after}).content)  # type: ignore[attr-defined]

    def get(self, name: str) -> int:
        """Return the status of a file."""
        return self._client.answer("GET", name).status


class Waiting:
    """The product, waiting for phones in a thread of its own."""

    def __init__(self, pool: ThreadPoolExecutor, **options: Any) -> None:
        self.way = BrowserConnection(open="phone", **options)
        self.pool, self._key = pool, (options.get("bind", "loopback"), options.get("https", False))

    @property
    def stand(self) -> Stand:
        return stand_at(*self._key)

    def run(self, request: RunRequest) -> Future[Any]:
        """Run a request; it has begun when this returns, and a device can come."""
        session = self.stand.session
        ran = self.pool.submit(self.way.run, request)
        assert wait_for(lambda: session._work is not None or ran.done())
        return ran


def started_by(request: RunRequest, script: str, folder: Path) -> RunRequest:
    """Return a request whose runtime is started in the page by another script."""
    loader = folder / "loader.js"
    loader.write_text(script)
    target = copy.copy(request.target)
    assert target.runtime.web is not None
    target.runtime = replace(target.runtime, web=replace(target.runtime.web, loader=loader))  # type: ignore[misc]
    return replace(request, target=target)


def reads(page: Page, words: str) -> str:
    """Wait until a person reads words in the page; return all that stands there then."""
    assert wait_for(lambda: words in text_of(page)), f"{words!r} is not in: {text_of(page)}"
    return text_of(page)


def text_of(page: Page) -> str:
    return str(page.evaluate("document.querySelector('main').innerText"))


def can_press(page: Page) -> bool:
    return bool(page.evaluate("!document.getElementById('run').hidden"))


def press_run(page: Page) -> None:
    """Press Run as soon as it is there."""
    assert wait_for(lambda: can_press(page)), text_of(page)
    page.click("#run")


def renderers(pid: int) -> list[int]:
    """Return the processes that run pages in a Chromium below a process; their variables are no longer to be read."""
    found = []
    for one in descendants(pid):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            if b"--type=renderer" in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
    return found
