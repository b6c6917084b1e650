"""What the server says, as a real browser takes it: its own page can do all it needs, and another page nothing."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import Browser, BrowserError
from chromium import chromium
from raw_client import Stub

from exporter.connections.browser import wire
from exporter.connections.browser.server import Reply, Served, Server

OWN = {
    "": ("text/html", b"<!doctype html><meta charset=utf-8><title>own</title><script src=page.js></script>"),
    "page.js": (
        "text/javascript",
        b"globalThis.heard = new Promise(done => { const worker = new Worker('worker.js', {type: 'module'});"
        b" worker.onmessage = event => done(event.data); });",
    ),
    "worker.js": (
        "text/javascript",
        b"""
        const program = Uint8Array.of(0, 97, 115, 109, 1, 0, 0, 0);
        await WebAssembly.compile(program);
        const body = new Float32Array([1, 2, 3]);
        const answer = await fetch('echo', {method: 'POST', headers: {'Cocorr-Visit': 'v'}, body});
        const model = await (await fetch('files/model.onnx')).arrayBuffer();
        postMessage([crossOriginIsolated, answer.status, (await answer.arrayBuffer()).byteLength, model.byteLength]);
    """,
    ),
}


@pytest.fixture(scope="module")
def browser(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(chromium(shared_folder), tmp_path_factory.mktemp("chromium")) as running:
        yield running


class Site(Stub):
    """The stub with a page that uses all of it; `posted` are the visits of those who posted."""

    def __init__(self) -> None:
        super().__init__()
        self.files |= {name: Served(content, kind) for name, (kind, content) in OWN.items()}
        self.posted: list[str] = []

    def post(self, name: str, visit: str, body: bytes) -> Reply:
        self.posted.append(visit)
        return super().post(name, visit, body)


def test_its_own_page_can_do_all_it_needs(browser: Browser) -> None:
    with Server(Site()) as running:
        page = browser.new_page()
        page.open(running.url)
        assert page.evaluate("globalThis.heard") == [True, 200, len("v|") + 12, 256 * 40]
        assert page.complaints() == []
        # Nothing from elsewhere:
        for refused in (
            "fetch('http://127.0.0.1:9/')",
            "fetch('data:,x')",
            "import('data:text/javascript,')",
        ):
            with pytest.raises(BrowserError):
                page.evaluate(refused)


class Elsewhere(BaseHTTPRequestHandler):
    """A page of somebody else, who forbids it nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>other</title><body>")

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()


def test_another_page_gets_and_changes_nothing(
    browser: Browser, elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows even the token, and has the same address, but another port."""
    site, came, parse = Site(), list[str](), wire.parse

    def noted(head: bytes) -> wire.Head:
        came.append(parse(head).method)
        return parse(head)

    monkeypatch.setattr(wire, "parse", noted)
    with Server(site) as running:
        page = browser.new_page()
        page.open(elsewhere)
        url = json.dumps(running.url)
        read = f"fetch({url} + 'files/model.onnx').then(answer => answer.text())"
        write = f"fetch({url} + 'echo', {{method: 'POST', body: 'x', mode: 'no-cors'}})"
        asked = f"fetch({url} + 'echo', {{method: 'POST', headers: {{'Cocorr-Visit': 'x'}}}})"
        for attempt in (read, read.replace("')", "', {mode: 'no-cors'})"), write, asked, f"import({url} + 'page.js')"):
            with pytest.raises(BrowserError):
                page.evaluate(attempt)
        frame = (
            "new Promise(done => { const frame = document.createElement('iframe'); frame.onload = () => done(0);"
            f" frame.src = {url}; document.body.append(frame); }})"
        )
        page.evaluate(frame)
        assert page.evaluate("document.querySelector('iframe').contentDocument") is None
    assert site.posted == []
    assert {"GET", "POST", "OPTIONS"} <= set(came)  # it was the server that refused them
