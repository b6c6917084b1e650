"""The driver of Chromium, with the real one: whatever dies becomes one clear error, and nothing outlives its end."""

import base64
import contextlib
import json
import os
import platform
import queue
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from browser import Browser
from chromium import chromium

from exporter.connections.browser import chromium as driver
from exporter.connections.browser import devtools
from exporter.connections.browser.chromium import Chromium, find, how_to_get
from exporter.connections.browser.devtools import DevTools, EndedError
from exporter.core.errors import CocorrError, DeviceError, RuntimeCrashError, RuntimeMemoryError

HELD = """
import sys
from pathlib import Path
from exporter.connections.browser.chromium import Chromium

browser = Chromium(Path(sys.argv[1]), Path(sys.argv[2]))
browser.open("about:blank")
print("open", flush=True)
input()
"""
PAGE = b"""<!doctype html><title>page</title><script>
const link = Object.assign(document.createElement("a"), {href: "data:text/plain,x", download: "taken.txt"});
link.click();
Notification.requestPermission().then((allowed) =>
  fetch("told", {method: "POST", body: JSON.stringify([document.visibilityState, allowed])}));
</script>"""
FILLS_MEMORY = "const all = []; for (;;) all.push(new Array(1e5).fill(Math.random()))"


@pytest.fixture(scope="module")
def program(shared_folder: Path) -> Path:
    """A Chromium to start; skips where none can be had."""
    return chromium(shared_folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for a browser, of which no process and no file beside it may be left."""
    yield tmp_path / "here" / "browser"
    assert processes(tmp_path) == []
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["browser"]
    shutil.rmtree(tmp_path / "here")  # nothing writes there any more


def processes(folder: Path) -> list[int]:
    """Return the running processes that have a folder among their arguments or variables."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = (place / "cmdline").read_bytes() + (place / "environ").read_bytes()
            if os.fsencode(folder) + b"/here" in words and int(place.name) != os.getpid():
                found.append(int(place.name))
    return found


def wait_until(happened, seconds: float = 600) -> bool:
    """Wait for what must happen; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not happened() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(happened())


def wait_for_the_end(browser: Chromium) -> None:
    """Attend to a browser until that raises."""
    while True:
        assert select.select([browser], [], [], 600)[0]
        browser.attend()


def script(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def site() -> Iterator[tuple[str, "queue.Queue[list[str]]"]]:
    """The address of PAGE, and what it tells."""
    told: queue.Queue[list[str]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(PAGE)

        def do_POST(self) -> None:
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer(b"")

        def answer(self, content: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}/", told
        server.shutdown()


# ------------------------------------------------------------------------------------------------ pages


def test_a_page_runs_seen_and_may_nothing_else(program: Path, folder: Path, site) -> None:
    url, told = site
    with Chromium(program, folder) as browser:
        assert re.match(r"\w*Chrom\w*/\d+\.", browser.product)
        browser.open(url)
        visible, allowed = told.get(timeout=600)
        browser.attend()
        assert visible == "visible" and allowed != "granted"
        assert processes(folder.parent.parent)
    assert not list(folder.rglob("taken*"))
    browser.close()  # a second one does nothing


def test_a_page_that_is_not_there_is_named(program: Path, folder: Path, site) -> None:
    with Chromium(program, folder) as browser, pytest.raises(DeviceError, match="cannot open the page: net::ERR_"):
        browser.open("http://127.0.0.1:9/")


# ------------------------------------------------------------------------------------------------ ends


def test_a_tab_crashes(program: Path, folder: Path) -> None:
    with Browser(program, folder) as browser, pytest.raises(RuntimeCrashError, match=r"tab crashed \(SIG[A-Z]+\)"):
        browser.new_page().call("Page.crash")


def test_a_worker_runs_out_of_memory(program: Path, folder: Path, tmp_path: Path) -> None:
    """Google's start script, too, hands on through another process what the browser says."""
    small = f'exec 2> >(exec cat >&2)\nexec -a "$0" {program} "$@" --js-flags=--max-old-space-size=32\n'
    with Browser(script(tmp_path / "small", f"#!/usr/bin/env bash\n{small}"), folder) as browser:
        source = base64.b64encode(FILLS_MEMORY.encode()).decode()
        browser.new_page().evaluate(f"void new Worker('data:text/javascript;base64,{source}')")
        with pytest.raises(RuntimeMemoryError, match=r"tab ran out of memory and died \(SIG[A-Z]+\)"):
            wait_for_the_end(browser)


def processes_of(browser: Chromium, kind: str) -> list[int]:
    listed = browser.call("SystemInfo.getProcessInfo")["processInfo"]
    return [process["id"] for process in listed if process["type"] == kind]


def test_a_tab_is_killed(program: Path, folder: Path) -> None:
    with Browser(program, folder) as browser:
        browser.new_page().settle()  # by then its process has started
        for pid in processes_of(browser, "renderer"):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(RuntimeMemoryError, match=r"tab was killed .*want of memory"):
            wait_for_the_end(browser)


@pytest.mark.parametrize("start", ["exec ", ""], ids=["becomes it", "waits for it"])
def test_the_browser_is_killed(program: Path, folder: Path, tmp_path: Path, start: str) -> None:
    script = tmp_path / "start"
    script.write_text(f'#!/bin/sh\n{start}{shlex.quote(str(program))} "$@"\nexit $?\n')
    script.chmod(0o755)
    with Chromium(script, folder) as browser:
        browser.open("about:blank")
        (pid,) = processes_of(browser, "browser")
        socket = (folder / "profile" / "SingletonSocket").resolve()  # of the whole Chromium, outside of a deep folder
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(DeviceError, match=r"the browser ended \(SIGKILL\) before the run did; start this again"):
            wait_for_the_end(browser)
        with pytest.raises(DeviceError, match="before the run did"):
            browser.call("Browser.getVersion")
    assert not socket.parent.exists() or socket.is_relative_to(folder)


def test_a_tab_that_hangs_ends_with_the_browser(program: Path, folder: Path, monkeypatch) -> None:
    with Browser(program, folder) as browser:
        page = browser.new_page()
        monkeypatch.setattr(driver, "LIMIT_S", 0.5)
        with pytest.raises(DeviceError, match=r"did not answer Runtime\.evaluate within 0\.5 s"):
            page.evaluate("for (;;);")


def test_nothing_outlives_a_kill_of_ours(program: Path, folder: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", HELD, str(program), str(folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None and parent.stdout.readline() == "open\n"
        assert set(processes(tmp_path)) > {parent.pid}
        parent.send_signal(signal.SIGKILL)
    assert wait_until(lambda: processes(tmp_path) == [])


# ------------------------------------------------------------------------------------------------ no browser

SANDBOX = "[1:1:1128/1.2:FATAL:zygote_host_impl_linux.cc(128)] No usable sandbox!\n#0 0x5590 <unknown>"
LIBRARY = "chromium: error while loading shared libraries: libnss3.so: cannot open shared object file"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("#!/bin/true\n", r"does not start as a browser: it ended \(status 0\); try it by hand: .*--dump-dom"),
        (f"#!/bin/sh\necho '{SANDBOX}' >&2\nkill -TRAP $$\n", r"SIGTRAP\); let users .*\[.*: No usable sandbox!\]"),
        (f"#!/bin/sh\necho '{LIBRARY}' >&2\nexit 127\n", r"\(status 127\); install what it misses, .*libnss3\.so"),
        ("#!/bin/sh\nprintf 'gone\\033[2J\\a'\n", r"\[its last words: gone *\]$"),
        ("#!/bin/sh\necho nothing >&4\nprintf '\\0' >&4\nexec sleep 1000\n", "what the browser said cannot be read"),
        ("#!/bin/sh\nexec 3<&- 4>&-\nexec sleep 1000\n", "it closed its pipe; try it by hand"),
        ("no program", r"does not start as a browser: .*Exec format error"),
    ],
    ids=["true", "sandbox", "library", "dirty", "garbage", "closed", "format"],
)
def test_a_program_that_is_no_browser(text: str, said: str, folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(driver, "_END_S", 2.0)  # for the one that goes on
    with pytest.raises(DeviceError, match=said) as caught:
        Chromium(script(tmp_path / "program", text), folder)
    assert str(caught.value).isprintable()


def test_a_program_that_never_answers(folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(driver, "LIMIT_S", 0.5)
    silent = script(tmp_path / "program", "#!/bin/sh\nsleep 1000 &\nexec sleep 1000\n")
    with pytest.raises(DeviceError, match=r"did not answer Browser\.getVersion within 0\.5 s"):
        Chromium(silent, folder)


# ------------------------------------------------------------------------------------------------ the protocol


@pytest.fixture
def other_side() -> Iterator[tuple[DevTools, int, list[devtools.Message]]]:
    """A client, the descriptor by which the other side answers it, and the events that were heard."""
    (reading, answering), (asked, writing) = os.pipe(), os.pipe()
    heard: list[devtools.Message] = []
    client = DevTools(reading, writing, heard.append)
    yield client, answering, heard
    client.close()
    os.close(asked)
    with contextlib.suppress(OSError):
        os.close(answering)


def test_events_are_heard_in_their_order_and_none_waits_unseen(other_side) -> None:
    client, answering, heard = other_side
    os.write(answering, b'{"method":"a"}\0{"id":7,"result":{}}\0{"id":1,"result":{"x":1}}\0{"method":"b"}\0{"meth')
    assert client.call("any", 600, None, {}) == {"x": 1}
    assert [event["method"] for event in heard] == ["a", "b"]
    client.attend()
    os.write(answering, b'od":"c"}\0')
    client.attend()
    assert [event["method"] for event in heard] == ["a", "b", "c"]
    os.close(answering)
    with pytest.raises(EndedError):
        client.attend()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"\xff\0", "cannot be read"),
        (b"[" * 100_000 + b"\0", "nested too deeply"),
        (b"[]\0", "is no JSON object"),
        (b'{"id":1}\0', "has no result"),
        (b'{"id":1,"error":{"message":"\\u001b[2Jno\\n"}}\0', r"refused any: no$"),
        (b"x" * 100_002, "more than 0 MiB"),
    ],
    ids=["bytes", "nested", "list", "empty", "refused", "large"],
)
def test_what_is_no_answer(answer: bytes, said: str, other_side, monkeypatch) -> None:
    client, answering, _ = other_side
    monkeypatch.setattr(devtools, "MAX_MESSAGE_BYTES", 100_001)
    writer = threading.Thread(target=os.write, args=(answering, answer))  # more than fits in a pipe
    writer.start()
    with pytest.raises(CocorrError, match=said):
        client.call("any", 600, None, {})
    writer.join()


# ------------------------------------------------------------------------------------------------ finding one


def test_it_is_found_on_the_path_but_no_snap_is(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(driver, "_APPLICATIONS", tmp_path / "Applications")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "chromium").symlink_to(script(tmp_path / "snap", "#!/bin/sh\n"))
    assert find() is None
    bundle = tmp_path / "Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
    bundle.parent.mkdir(parents=True)
    assert find() is None
    script(bundle, "#!/bin/sh\n")
    assert find() == bundle
    chrome = script(tmp_path / "bin" / "google-chrome", "#!/bin/sh\n")
    assert find() == chrome


def test_how_to_get_it_is_a_command_of_this_system(monkeypatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: name if name == "apt-get" else None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "debian"})
    assert how_to_get() == "get it with: sudo apt-get install chromium"
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": "ubuntu"})
    assert "snap" in how_to_get() and "apt-get" not in how_to_get()
