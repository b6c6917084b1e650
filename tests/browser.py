"""What a person does in a browser, on the project's own client of Chromium."""

import base64
import json
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exporter.connections.browser.chromium import LIMIT_S, Chromium
from exporter.connections.browser.devtools import Message

KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), " ": (32, " "), "ArrowRight": (39, ""), "ArrowDown": (40, "")}


class BrowserError(Exception):
    """A page could not be opened, or a script in it failed."""


class Browser(Chromium):
    """A Chromium that keeps the events of its tabs."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.events: list[Message] = []
        super().__init__(program, folder)

    def hear(self, event: Message) -> None:
        """Keep an event."""
        super().hear(event)
        self.events.append(event)

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event of a page, which may have come already."""
        end = time.monotonic() + LIMIT_S
        while not any((event["method"], event.get("sessionId")) == (method, session) for event in self.events):
            if not select.select([self], [], [], max(0.0, end - time.monotonic()))[0]:
                raise BrowserError(f"no {method} within {LIMIT_S:g} s")
            self.attend()

    def new_page(self) -> "Page":
        """Open a tab whose events are collected."""
        return Page(self, self.new_tab())


class Page:
    """A tab: what it loads, what it complains of, and what a person does to it."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session
        for domain in ("Page", "Runtime", "Log", "Network", "Audits", "Inspector"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Message:
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

    def _events(self, method: str) -> Iterator[Message]:
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
