"""Artifacts in each browser of this machine, over the page that a phone opens: `browsers.py ARTIFACT...`.

Chromium, Firefox and WebKitGTK each open the URL that `cocorr-export profile` prints, and press Run as a person would:
the press comes from the browser's own remote control, by DevTools, Marionette and WebDriver. What comes is a table in
Markdown, with a row that says why for a browser that is not here. WebKitGTK needs `WebKitWebDriver`, its MiniBrowser,
and Xvfb for a screen.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from exporter.connections.browser import chromium

COLUMNS = (
    "artifact",
    "browser",
    "runtime",
    "verdict",
    "largest error",
    "p50, µs",
    "timed",
    "clock step, µs",
    "isolated",
)
LIMIT_S = 120.0  # for a browser to start, and to show the button
BUTTON = "#run:not([hidden])"
PROFILE = "name: page-here\nextends: phone-browser\nconnection: {browser: {open: phone}}\n"
QUIET = ("datareporting.policy.dataSubmissionEnabled", "app.update.auto", "browser.shell.checkDefaultBrowser")

Press = Callable[[str], contextlib.AbstractContextManager[None]]
"""Opens a URL, presses Run once it is there, and keeps the page open until the `with` ends."""


class MissingError(Exception):
    """A browser is not on this machine, or cannot be driven here; the words say why."""


def needed(*names: str) -> str:
    """Return the first of these programs that is here; raises MissingError."""
    for name in names:
        if found := shutil.which(name):
            return found
    raise MissingError(f"no {names[0]} is on the PATH")


def until(happened: Callable[[], Any], what: str) -> Any:
    """Return what came once it is true; raises MissingError where it does not come."""
    deadline = time.monotonic() + LIMIT_S
    while not (came := happened()):
        if time.monotonic() > deadline:
            raise MissingError(f"{what} within {LIMIT_S:g} s")
        time.sleep(0.05)
    return came


@contextlib.contextmanager
def started(command: list[str], folder: Path, **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program in a process group of its own whose home is `folder`, and end the group."""
    places = {"HOME": str(folder), "TMPDIR": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    environment = {**os.environ, **places, **more.pop("env", {})}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=environment, **more
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def in_chromium(url: str) -> Iterator[None]:
    """Open and press in Chromium, over our own client of DevTools."""
    program = chromium.find()
    if program is None:
        raise MissingError("no Chromium is on the PATH")
    with tempfile.TemporaryDirectory() as folder, chromium.Chromium(program, Path(folder)) as browser:
        tab = browser.new_tab()
        browser.call("Page.navigate", tab, url=url)
        middle = (
            f"(() => {{ const box = document.querySelector('{BUTTON}')?.getBoundingClientRect();"
            " return box && [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )

        def place() -> Any:
            answer = browser.call("Runtime.evaluate", tab, expression=middle, returnByValue=True)
            return answer["result"].get("value")

        x, y = until(place, "no button")
        for kind in ("mousePressed", "mouseReleased"):
            browser.call("Input.dispatchMouseEvent", tab, type=kind, x=x, y=y, button="left", clickCount=1)
        yield


class Marionette:
    """Firefox's own remote control: `LENGTH:[0, NUMBER, COMMAND, PARAMETERS]` over a socket, and answers alike."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), LIMIT_S)
        self._stream = self._socket.makefile("rb")
        self._calls = 0
        self._read()

    def _read(self) -> Any:
        digits = b""
        while (byte := self._stream.read(1)) != b":":
            if not byte:
                raise MissingError("Firefox has ended")
            digits += byte
        return json.loads(self._stream.read(int(digits)))

    def call(self, command: str, **parameters: Any) -> Any:
        """Call a command and return its value; raises MissingError where it is refused."""
        self._calls += 1
        words = json.dumps([0, self._calls, command, parameters])
        self._socket.sendall(f"{len(words)}:{words}".encode())
        _, _, error, result = self._read()
        if error is not None:
            raise MissingError(f"Firefox refused {command}: {error.get('message')}")
        return result

    def close(self) -> None:
        """Give back the socket."""
        self._stream.close()
        self._socket.close()


@contextlib.contextmanager
def in_firefox(url: str) -> Iterator[None]:
    """Open and press in a headless Firefox with a new profile, which says in a file at which port it listens."""
    program = needed("firefox", "firefox-esr")
    with tempfile.TemporaryDirectory() as folder:
        profile = Path(folder) / "profile"
        profile.mkdir()
        lines = ['user_pref("marionette.port", 0);', *(f'user_pref("{name}", false);' for name in QUIET)]
        (profile / "user.js").write_text("\n".join(lines))
        command = [program, "--headless", "--new-instance", "--profile", str(profile), "--marionette"]
        with started(command, Path(folder)):
            port = profile / "MarionetteActivePort"
            number = int(until(lambda: port.exists() and port.read_text(), "Firefox did not listen"))
            with contextlib.closing(Marionette(number)) as firefox:
                firefox.call("WebDriver:NewSession", capabilities={})
                firefox.call("WebDriver:SetTimeouts", implicit=int(LIMIT_S * 1000))
                firefox.call("WebDriver:Navigate", url=url)
                found = firefox.call("WebDriver:FindElement", using="css selector", value=BUTTON)
                firefox.call("WebDriver:ElementClick", id=next(iter(found["value"].values())))
                yield


@contextlib.contextmanager
def screen(folder: Path) -> Iterator[str]:
    """Start an X server without a screen of its own, and return what DISPLAY is for it."""
    program = needed("Xvfb")
    reading, writing = os.pipe()
    try:
        with started([program, "-displayfd", str(writing), "-nolisten", "tcp"], folder, pass_fds=(writing,)):
            os.close(writing)
            writing = -1
            number = os.read(reading, 16).strip().decode()
            if not number:
                raise MissingError("Xvfb did not start")
            yield f":{number}"
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def free_port() -> int:
    """Return a port that nobody had a moment ago; WebKitWebDriver does not say which one it would choose."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def webdriver(address: str, parameters: dict[str, Any]) -> Any:
    """Post to a WebDriver and return the value of its answer; raises MissingError where it is refused."""
    request = urllib.request.Request(address, json.dumps(parameters).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as response:
            return json.load(response)["value"]
    except urllib.error.HTTPError as error:
        raise MissingError(f"WebKit refused {address.rpartition('/')[2]}: {error.read().decode()[:300]}") from None


@contextlib.contextmanager
def in_webkit(url: str) -> Iterator[None]:
    """Open and press in WebKitGTK's MiniBrowser, on a screen that nobody sees."""
    driver = needed("WebKitWebDriver")
    found = [*Path("/usr/lib").glob("*/webkit2gtk-4.*/MiniBrowser"), *Path("/usr/libexec").glob("webkit*/MiniBrowser")]
    if not found:
        raise MissingError("WebKitGTK has no MiniBrowser here")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder, screen(Path(folder)) as display:
        variables = {"DISPLAY": display, "GDK_BACKEND": "x11"}
        with started([driver, f"--port={port}"], Path(folder), env=variables):

            def listens() -> bool:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    return True
                return False

            until(listens, "WebKitWebDriver did not listen")
            options = {"binary": str(found[0]), "args": ["--automation"]}
            capabilities = {"alwaysMatch": {"webkitgtk:browserOptions": options}}
            root = f"http://127.0.0.1:{port}/session"
            session = f"{root}/{webdriver(root, {'capabilities': capabilities})['sessionId']}"
            webdriver(f"{session}/timeouts", {"implicit": int(LIMIT_S * 1000)})
            webdriver(f"{session}/url", {"url": url})
            button = webdriver(f"{session}/element", {"using": "css selector", "value": BUTTON})
            webdriver(f"{session}/element/{next(iter(button.values()))}/click", {})
            yield


BROWSERS: dict[str, Press] = {"Chromium": in_chromium, "Firefox": in_firefox, "WebKitGTK": in_webkit}


def profiled(artifact: Path, press: Press, calls: int, folder: Path) -> dict[str, Any]:
    """Have `cocorr-export profile` run an artifact in a browser; return its document. Raises MissingError."""
    profile = folder / "page-here.yaml"
    profile.write_text(PROFILE)
    command = [sys.executable, "-m", "exporter", "profile", str(artifact), "--connection", str(profile)]
    command += ["--iterations", str(calls), "--no-write", "--json"]
    with (folder / "out.json").open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if found := re.search(r"press Run: (\S+)", line):
                with press(found[1]):
                    said += process.stderr.readlines()
        if process.wait() not in (0, 1):
            raise MissingError(said[-1].strip() if said else f"profile ended with {process.returncode}")
        return json.loads((folder / "out.json").read_text())
    finally:
        process.terminate()
        process.wait()


def cells(document: dict[str, Any]) -> list[str]:
    """Return what a row has of a profile: the verdict and figures of the browser, in which its name is."""
    parity, latency = document["parity"], document["latency"]
    runtime, _, device = str(parity["executed_on"]).partition(" in ")
    error, p50, conditions = parity["max_abs_error"], latency["p50_us"], latency["conditions"]
    return [
        device or "null",
        runtime,
        parity["verdict"],
        "null" if error is None else f"{error:.1e}",
        "null" if p50 is None else f"{p50:.0f}",
        conditions.get("timed", "null"),
        conditions.get("clock_step_us", "null"),
        conditions.get("isolated", "null"),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", type=Path, nargs="+")
    parser.add_argument("--browsers", default=",".join(BROWSERS))
    parser.add_argument("--calls", type=int, default=200)
    arguments = parser.parse_args()
    print(f"| {' | '.join(COLUMNS)} |")
    print("|---" * len(COLUMNS) + "|")
    for artifact in arguments.artifacts:
        for name in arguments.browsers.split(","):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    row = cells(profiled(artifact, BROWSERS[name], arguments.calls, Path(folder)))
                except MissingError as error:
                    row = [f"{name}: null ({error})", *["null"] * (len(COLUMNS) - 2)]
            print(f"| {artifact.name} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
