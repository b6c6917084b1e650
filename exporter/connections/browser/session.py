"""What a page and this computer say to each other: one device at a time, its jobs, its beats and its answers.

The server's threads write here, the command's own thread waits here: `fileno` becomes readable with every word.
"""

import contextlib
import json
import os
import re
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.connections.browser.about import device_name
from exporter.connections.browser.device import Device, Situation, beat_of, words_of
from exporter.connections.browser.server import Reply, Served
from exporter.connections.response import MAX_RESPONSE_BYTES

_PAGE = Path(__file__).with_name("page")
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_WORDS = 8192
_RESULT = re.compile(r"job/(?P<job>[0-9]{1,9})/(?P<what>outputs|response)")
_WORDED = ("hello", "next", "beat", "started", "bye")
_LONG_POLL_S = 15.0
_FAREWELL_S = 2.0
_ENDED = "The command has ended. You can close this page."


def served(path: Path) -> Served:
    """Return a file with its media type, by its name."""
    return Served(path, _KINDS.get(path.suffix, "application/octet-stream"))


@dataclass(frozen=True)
class Work:
    """A job for a page: what it is told, the files that it may have for it, and the bytes of its outputs."""

    told: Mapping[str, Any]
    files: Mapping[str, Served]
    output_bytes: int | None


@dataclass(frozen=True)
class Answer:
    """What a page sent back, unread: the JSON document, and the outputs' bytes, None where none came."""

    response: bytes
    outputs: bytes | None


class Session:
    """The site of one command: its page, the job of the moment, and the device that does it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wakes, self._wake = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._wake, False)
        self._page = {path.name: served(path) for path in sorted(_PAGE.iterdir())}
        self._page[""] = self._page.pop("index.html")
        self._device: Device | None = None
        self._work: Work | None = None
        self._job = 0
        self._outputs: bytes | None = None
        self._answer: Answer | None = None
        self._is_over = False
        self._began = time.monotonic()

    def fileno(self) -> int:
        """Return what becomes readable when something came, until `drain`."""
        return self._wakes

    def drain(self) -> None:
        """Have `fileno` wait for what comes next."""
        while True:
            try:
                if not os.read(self._wakes, 4096):
                    return
            except BlockingIOError:
                return

    # what the server asks

    def file(self, name: str) -> Served | None:
        """Return a file of the page, or one of the job of the moment."""
        with self._changed:
            return self._page.get(name) or (None if self._work is None else self._work.files.get(name))

    def limit(self, name: str, visit: str) -> int | None:
        """Return the most bytes that may be sent to a name: few, but for the results of the device at work."""
        with self._changed:
            result = _RESULT.fullmatch(name)
            if result is None:
                return _WORDS if name in _WORDED else None
            if not self._is_at_work(visit):
                return _WORDS
            if result["what"] == "response":
                return MAX_RESPONSE_BYTES
            return None if self._work is None else self._work.output_bytes

    def post(self, name: str, visit: str, body: bytes) -> Reply:
        """Take a word of a page; one that is not of the device at work changes nothing."""
        if name == "hello":
            return self._hello(body)
        with self._changed:
            device = self._device
            if device is None or not self._is_at_work(visit):
                return Reply(410)
            device.seen = time.monotonic()
            if name == "next":
                return self._next(device, body)
            reply = self._take(device, name, body)
            self._notify()
            return reply

    def _is_at_work(self, visit: str) -> bool:
        return self._device is not None and secrets.compare_digest(self._device.ticket.encode(), visit.encode())

    def _hello(self, body: bytes) -> Reply:
        try:
            name = device_name(words_of(body))
        except ValueError:
            return Reply(400)
        with self._changed:
            if self._is_over:
                return Reply(410)
            now = time.monotonic()
            if self._device is not None and not self._device.is_idle(now):
                return Reply(409)
            self._device = Device(secrets.token_urlsafe(16), name, now)
            if self._work is not None:
                self._device.events.append({"kind": "job", "job": dict(self._work.told)})
            self._notify()
            return Reply(200, json.dumps({"visit": self._device.ticket}).encode())

    def _next(self, device: Device, body: bytes) -> Reply:
        """Answer with the event after those that the device has, once there is one; waits a while for it."""
        try:
            after = words_of(body).get("after")
        except ValueError:
            return Reply(400)
        if not isinstance(after, int) or isinstance(after, bool) or not 0 <= after <= len(device.events):
            return Reply(400)
        deadline = time.monotonic() + _LONG_POLL_S
        while after >= len(device.events) and self._device is device and not self._is_over:
            if not self._changed.wait(deadline - time.monotonic()):
                break
        device.seen = time.monotonic()
        if after >= len(device.events):
            return Reply(204 if self._device is device and not self._is_over else 410)
        return Reply(200, json.dumps(device.events[after]).encode())

    def _take(self, device: Device, name: str, body: bytes) -> Reply:
        """Take what the device at work says of its job."""
        if name == "bye":
            if device.is_known:
                device.left = True
            else:  # a look only, as of an app that reads QR codes and then opens the browser
                self._device = None
        elif (result := _RESULT.fullmatch(name)) is not None and result["job"] != str(self._job):
            pass  # of a job that nobody waits for any more; it was on its way when the next began
        elif result is not None and result["what"] == "outputs":
            if self._work is None or len(body) != self._work.output_bytes:
                return Reply(400)
            self._outputs = body
        elif result is not None:
            if self._work is None or self._answer is not None:
                return Reply(409)
            self._answer = Answer(body, self._outputs)
        else:
            try:
                document = words_of(body)
            except ValueError:
                return Reply(400)
            if name == "started" and document.get("number") == self._job and device.started is None:
                # Once a job: its time runs from here.
                device.started, device.is_known = time.monotonic(), True
            device.beat = beat_of(document, device.beat)
        return Reply(204)

    # what the command asks

    def begin(self, work: Work) -> None:
        """Give the device at work a job, or the first that comes."""
        with self._changed:
            self._work, self._outputs, self._answer = work, None, None
            self._job = work.told["number"]
            self._began = time.monotonic()
            if self._device is not None:
                self._device.started = None
                self._tell({"kind": "job", "job": dict(work.told)})

    def answer(self) -> Answer | None:
        """Return what came of the job, once it is there; its files are no longer to be had then."""
        with self._changed:
            if self._answer is not None:
                self._work = None
            return self._answer

    def situation(self) -> Situation:
        """Return how the job stands."""
        with self._changed:
            device = self._device
            if device is None:
                return Situation(self._began)
            return Situation(
                began=self._began,
                device=device.name,
                beat=device.beat,
                seen=device.seen,
                started=device.started,
                is_known=device.is_known,
                has_left=device.left,
            )

    def show(self, verdict: str, words: str, facts: list[tuple[str, str]]) -> None:
        """Have the page of the device at work show what came of its job."""
        with self._changed:
            self._tell({"kind": "verdict", "verdict": verdict, "words": words, "facts": facts})

    def dismiss(self, words: str = _ENDED) -> None:
        """Tell the device at work that it is done, wait a moment until it knows, and let the next one come."""
        with self._changed:
            device = self._device
            if device is not None and not device.left:
                self._tell({"kind": "end", "words": words})
                deadline = time.monotonic() + _FAREWELL_S
                # What was sent may yet be on its way: its page says goodbye when it has come.
                while self._device is device and not device.left and self._changed.wait(deadline - time.monotonic()):
                    pass
            self._device = None

    def close(self) -> None:
        """End what still waits here."""
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    def _tell(self, event: dict[str, Any]) -> None:
        if self._device is not None:
            self._device.events.append(event)
            self._changed.notify_all()

    def _notify(self) -> None:
        self._changed.notify_all()
        with contextlib.suppress(BlockingIOError):  # it is readable already
            os.write(self._wake, b"\0")

    def __del__(self) -> None:
        os.close(self._wakes)
        os.close(self._wake)
