"""A small driver of Chromium by its DevTools protocol, on a pipe: no port, and nothing outlives who started it."""

import base64
import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from chromium import Chromium

LIMIT_S = 120.0  # for what hangs
FLAGS = ("--headless", "--remote-debugging-pipe", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage")
FLAGS += ("--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync")
# Puts the ends of the pipes where Chromium looks for them, and becomes Chromium.
LAUNCH = (
    "import os, sys; ends = [int(word) for word in sys.argv[1:3]]; os.dup2(ends[0], 3); os.dup2(ends[1], 4);"
    "os.close(ends[0]); os.close(ends[1]); os.execv(sys.argv[3], sys.argv[3:])"
)
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, ""), "ArrowDown": (40, "")}

Event = dict[str, Any]


class BrowserError(Exception):
    """The browser refused a call, crashed, or did not answer."""


class Browser:
    """A Chromium with a new profile in `folder`; close it, or use it in a `with`."""

    def __init__(self, chromium: Chromium, folder: Path) -> None:
        profile = folder / "profile"
        profile.mkdir(parents=True)
        places = {name: str(profile) for name in ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
        flags = [*FLAGS, f"--user-data-dir={profile}", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        its_input, self._write = _pipe(inner=0)
        self._read, its_output = _pipe(inner=1)
        self._log = folder / "chromium.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", LAUNCH, str(its_input), str(its_output), chromium.program, *flags],
                env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **places, **chromium.environment},
                pass_fds=(its_input, its_output),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(its_input)
        os.close(its_output)
        self._buffer = b""
        self._calls = 0
        self.events: list[Event] = []

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Event:
        """Call a method of the protocol and return its result; events that come before it are kept."""
        self._calls += 1
        number = self._calls
        message = {"id": number, "method": method, "params": parameters}
        text = json.dumps(message if session is None else {**message, "sessionId": session})
        data = text.encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        answer = self._until(lambda message: message.get("id") == number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']['message']}")
        result: Event = answer["result"]
        return result

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event of a page, which may have come already."""

        def fits(message: Event) -> bool:
            return message.get("method") == method and message.get("sessionId") == session

        if not any(map(fits, self.events)):
            self._until(fits)

    def _until(self, wanted: Callable[[Event], bool]) -> Event:
        deadline = time.monotonic() + LIMIT_S
        while True:
            message = self._next(deadline)
            if message.get("method") == "Inspector.targetCrashed":
                raise BrowserError("the page crashed")
            if "id" not in message:
                self.events.append(message)
            if wanted(message):
                return message

    def _next(self, deadline: float) -> Event:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise BrowserError(f"the browser did not answer within {LIMIT_S:g} s")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise BrowserError(f"the browser ended: {self._log.read_text(errors='replace')[-500:]}")
            self._buffer += read
        text, _, self._buffer = self._buffer.partition(b"\0")
        message: Event = json.loads(text)
        return message

    def new_page(self) -> "Page":
        """Open a tab whose events are collected."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        return Page(self, session)

    def close(self) -> None:
        """End the browser and all its processes, in order if it still answers."""
        with contextlib.suppress(BrowserError, OSError):
            self.call("Browser.close")
        os.close(self._write)
        os.close(self._read)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        with contextlib.suppress(ProcessLookupError):  # as it should be: nobody of its session is left
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


class Page:
    """A tab: what it loads, what it complains of, and what a person does to it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "Inspector"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Event:
        """Call a method of the protocol on this tab."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load a page, and forget what came before it."""
        self._browser.events.clear()
        failure = self.call("Page.navigate", url=url).get("errorText")
        if failure:
            raise BrowserError(f"{url}: {failure}")
        self._browser.wait_for("Page.loadEventFired", self._session)
        self.settle()

    def settle(self) -> None:
        """Wait until the page has been drawn, by when what it does at its start has been done."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, of its promise where it is one."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression[:80]}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def _events(self, method: str) -> Iterator[Event]:
        for event in self._browser.events:
            if event.get("method") == method and event.get("sessionId") == self._session:
                yield event["params"]

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console, exceptions that nobody caught, what the content policy refused."""
        logged = [event["entry"] for event in self._events("Log.entryAdded")]
        lines = [entry["text"] for entry in logged if entry["level"] in ("error", "warning")]
        for event in self._events("Runtime.consoleAPICalled"):
            if event["type"] in ("error", "warning", "assert"):
                lines.append(str([argument.get("value") for argument in event["args"]]))
        lines += [str(event["exceptionDetails"]["text"]) for event in self._events("Runtime.exceptionThrown")]
        issues = [event["issue"] for event in self._events("Audits.issueAdded")]
        return [*lines, *(json.dumps(issue) for issue in issues if issue["code"] == "ContentSecurityPolicyIssue")]

    def requests(self) -> list[str]:
        """Return the URLs of all that was asked for, also of what was not let through; data: is in the page itself."""
        urls = [event["request"]["url"] for event in self._events("Network.requestWillBeSent")]
        return [url for url in urls if not url.startswith("data:")]

    def look(self, width: int, height: int = 900, scheme: str = "light", media: str = "screen") -> None:
        """Give the page a size in CSS pixels, a colour scheme that the person prefers, and a medium."""
        phone = width < 600
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.settle()

    def click(self, selector: str) -> None:
        """Click in the middle of the first element that a CSS selector finds."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        middle = "({x, y, width, height}) => [x + width / 2, y + height / 2]"
        x, y = self.evaluate(f"({middle})({element}.getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def press(self, key: str) -> None:
        """Press a key of KEYS and let it go."""
        code, text = KEYS[key]
        common = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **common)
        self.call("Input.dispatchKeyEvent", type="keyUp", **common)
        self.settle()

    def screenshot(self, path: Path) -> None:
        """Save the whole page, also what one would scroll to, as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def print(self) -> bytes:
        """Return the page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])


def _pipe(inner: int) -> tuple[int, int]:
    """Return a pipe's ends, the one at index `inner` inheritable by the browser and numbered above 3 and 4."""
    ends = list(os.pipe())
    moved = fcntl.fcntl(ends[inner], fcntl.F_DUPFD, 10)
    os.close(ends[inner])
    ends[inner] = moved
    return ends[0], ends[1]
