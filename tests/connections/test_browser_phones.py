"""A person at a phone: what the page shows, what the command makes of it, and what is left when it is ended."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_models
from browser import Browser, Page
from chromium import chromium
from commands import run_here
from onnx import numpy_helper
from phone import HANGS, Visitor, can_press, press_run, reads, renderers, started_by, text_of
from servers import descendants, wait_for

from exporter.artifact import store
from exporter.connections.browser.connection import BrowserConnection
from exporter.core.errors import DeviceError, RuntimeTimeoutError

PHONE = "name: phone\nextends: phone-browser\nconnection:\n  browser:\n    open: phone\n    bind: loopback\n"
WEB = PHONE.replace("open: phone", "open: chromium")


@pytest.fixture(scope="module")
def hand(shared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """The browser of all phones."""
    with Browser(chromium(shared_folder), tmp_path_factory.mktemp("hand")) as browser:
        yield browser


@pytest.fixture
def page(hand: Browser) -> Page:
    """A phone."""
    return hand.new_page()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX artifact of a small model."""
    folder = tmp_path_factory.mktemp("made")
    command = [sys.executable, "-m", "exporter", "gru4rec", "--checkpoint", tiny_models.write("gru4rec", folder / "ck")]
    command += ["--target", "onnx", "--output", folder / "out", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return Path(json.loads(ended.stdout)["artifact"])


@pytest.fixture
def artifact(made: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return shutil.copytree(made, tmp_path / "artifact")


@dataclass
class Command:
    """`cocorr-export` in a process of its own, whose stderr is read while it runs."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.lines.extend(iter(self.process.stderr.readline, ""))

    def url(self) -> str:
        """Return the URL that it tells to open, as soon as it does."""
        assert wait_for(lambda: self._urls() or self.process.poll() is not None)
        assert self._urls(), self.lines
        return self._urls()[-1]

    def _urls(self) -> list[str]:
        return [line.split()[-1] for line in list(self.lines) if line.startswith("... open this page with")]

    def end(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and stdout."""
        out, _ = self.process.stdout.read(), self._reader.join(300)  # type: ignore[union-attr]
        return self.process.wait(300), out


@pytest.fixture
def start(web_runtimes, nothing_left: Path, tmp_path: Path) -> Iterator:
    """Starts a command with a profile; none that is still running outlives a test."""
    commands: list[Command] = []

    def begin(profile: str, *words: str | Path, temporary: Path = nothing_left) -> Command:
        path = tmp_path / "profile.yaml"
        path.write_text(profile)
        process = subprocess.Popen(
            [sys.executable, "-m", "exporter", *words, "--connection", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
        )
        commands.append(Command(process))
        return commands[-1]

    yield begin
    for command in commands:
        command.process.kill()
        command.end()


def test_two_phones_one_after_the_other(start, artifact: Path, hand: Browser, page: Page) -> None:
    command = start(PHONE, "profile", artifact, "--iterations", "10", "--devices", "2", "--json")
    url = command.url()
    page.open(url)
    assert wait_for(lambda: can_press(page))
    shown = reads(page, "Ready.")
    assert "gru4rec/rerank (onnx, " in shown and "onnxruntime-web" in shown
    assert f"{tiny_models.CASES} cases, then 10 timed samples" in shown and "Keep the screen on" in shown
    assert page.complaints() == []
    second = hand.new_page()
    second.open(url)
    reads(second, "Another device is at work")
    page.click("#run")
    shown = reads(page, "Pass: this device gives what torch gives.")
    reads(page, "This device is done.")
    assert f"Cases\n{tiny_models.CASES}" in text_of(page) and "A call, median" in shown and not can_press(page)
    press_run(second)
    reads(second, "Pass: this device gives what torch gives.")
    code, out = command.end()
    assert code == 0, command.lines
    reads(second, "The command has ended.")
    document = json.loads(out)["artifacts"]
    manifest = store.read_manifest(artifact)
    assert manifest.devices is not None and len(document) == len(manifest.devices) == 2
    for one, device in zip(document, manifest.devices, strict=True):
        assert one["parity"]["verdict"] == device.parity.verdict == "pass" and device.latency.p50_us > 0
        assert " in headless Chrome " in device.parity.executed_on and device.wasm_heap_bytes > 2**20
        assert device.latency.iterations == 10
    assert manifest.latency == manifest.devices[1].latency and manifest.parity == manifest.devices[1].parity
    asked = [line for line in command.lines if "press Run" in line]
    assert len(asked) == 2 and "the next device's browser" in asked[1]
    assert not any(line.startswith("error") for line in command.lines)


@dataclass(frozen=True)
class At:
    """Where a device comes to, by its address alone."""

    url: str


@pytest.mark.parametrize("words", [("parity",), ("profile", "--iterations", "5")])
def test_a_second_phone_that_goes_takes_nothing_from_the_first(
    words: tuple[str, ...], start, artifact: Path, page: Page
) -> None:
    command = start(PHONE, words[0], artifact, *words[1:], "--devices", "2", "--json")
    url = command.url()
    page.open(url)
    press_run(page)
    reads(page, "This device is done.")
    second = Visitor(At(url))
    assert wait_for(lambda: second.hello() == 200)
    event = second.next(0)
    second.job = event["job"]["number"]
    assert (second.status("started"), second.status("bye")) == (204, 204)
    code, out = command.end()
    first, other = json.loads(out)["artifacts"]
    assert (code, first["parity"]["verdict"]) == (2, "pass")
    assert "left the page before the results were there" in other["error"] and set(other) == {"artifact", "error"}
    assert command.lines[-1] == f"error: {other['error']}\n"
    if words[0] == "profile":
        assert [device.parity.verdict for device in store.read_manifest(artifact).devices or ()] == ["pass"]


def test_a_phone_that_goes_after_its_verdict_costs_the_other_lengths_only(start, artifact: Path, page: Page) -> None:
    checkpoint = artifact.parent / "ck"
    made = tiny_models.write("gru4rec", checkpoint)
    command = start(PHONE, "profile", artifact, "--iterations", "5", "--checkpoint", made, "--json")
    page.open(command.url())
    press_run(page)
    reads(page, "Pass: this device gives what torch gives.")
    page.call("Page.navigate", url="about:blank")
    code, out = command.end()
    document = json.loads(out)
    assert code == 0 and document["latency"]["p50_us"] > 0
    points = document["growth"]["points"]
    assert len(points) > 1 and "left the page" in points[-1]["reason"] and points[-1]["p50_us"] is None
    assert store.read_manifest(artifact).latency.connection == "browser"


def test_a_phone_on_which_it_fails(start, artifact: Path, page: Page) -> None:
    model = onnx.load(artifact / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.5), tensor.name))
    onnx.save(model, artifact / "model.onnx")
    listed = [{"path": one.path, "bytes": one.bytes, "sha256": one.sha256} for one in store.list_files(artifact)]
    manifest = json.loads((artifact / "manifest.json").read_text())
    (artifact / "manifest.json").write_text(json.dumps({**manifest, "files": listed}))
    command = start(PHONE, "parity", artifact, "--json")
    page.open(command.url())
    press_run(page)
    shown = reads(page, "Fail: ")
    code, out = command.end()
    parity = json.loads(out)["parity"]
    assert (code, parity["verdict"]) == (1, "fail") and f"Fail: {parity['reason']}" in shown
    assert page.evaluate("document.getElementById('state').dataset.verdict") == "fail"
    reads(page, "The command has ended.")


def test_several_devices_are_for_phones(capfd, artifact: Path, chromium_here) -> None:
    for connection in ("host", "browser"):
        ended = run_here(capfd, "parity", artifact, "--connection", connection, "--devices", "2")
        assert ended.code == 2 and f"{connection} is one device; leave it out" in ended.error_line()


def is_alive(pid: int) -> bool:
    """Say whether a process has not ended; one that nobody waits for may stay listed."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_a_page_that_is_left_in_the_middle(waiting, page: Page, make_request, tiny_onnx, tmp_path) -> None:
    ran = waiting.run(started_by(make_request("onnx", tiny_onnx), HANGS, tmp_path))
    page.open(waiting.stand.url)
    press_run(page)
    reads(page, "Running: starting the runtime.")
    page.call("Page.navigate", url="about:blank")
    with pytest.raises(DeviceError, match=r"headless Chrome .* left the page before the results were there"):
        ran.result(300)


def test_a_page_stops_what_nobody_waits_for(waiting, page: Page, make_request, tiny_onnx, tmp_path) -> None:
    ran = waiting.run(started_by(make_request("onnx", tiny_onnx, time_limit_s=1.0), HANGS, tmp_path))
    page.open(waiting.stand.url)
    press_run(page)
    with pytest.raises(RuntimeTimeoutError, match="did not finish within 1 s"):
        ran.result(300)
    waiting.way.show("fail", "Fail: too slow", {})
    assert "this page in front until it says that you can close it" in reads(page, "Fail: too slow")
    again = waiting.run(make_request("onnx", tiny_onnx))  # on the same phone, which asks nobody any more
    assert len(again.result(300).samples_us) == 5
    waiting.way.next_device()
    assert "Fail: too slow" in reads(page, "This device is done. You can close this page.")


def test_a_page_whose_place_was_taken_waits_for_its_turn(waiting, page: Page, make_request, tiny_onnx) -> None:
    ran = waiting.run(make_request("onnx", tiny_onnx))
    page.open(waiting.stand.url)
    assert wait_for(lambda: can_press(page))
    page.evaluate("Object.defineProperty(document, 'visibilityState', {value: 'hidden'}); 0")
    session = waiting.stand.session
    assert wait_for(lambda: not session.situation().beat.is_visible)
    other = Visitor(waiting.stand)
    assert other.hello() == 200
    reads(page, "Another device is at work")
    assert not can_press(page)
    other.say("bye")
    press_run(page)
    assert "headless Chrome" in ran.result(300).executed_on


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_leaves_nothing(
    number, start, chromium_here, made: Path, nothing_left: Path, make_request, tiny_onnx
) -> None:
    command = start(WEB, "profile", made, "--iterations", "1000000", "--no-write")
    assert wait_for(lambda: renderers(command.process.pid))
    browser = descendants(command.process.pid)
    command.process.send_signal(number)
    code, out = command.end()
    assert (code, out) == ((-9 if number == signal.SIGKILL else 130), "")
    assert wait_for(lambda: not any(map(is_alive, browser))), browser
    if number == signal.SIGKILL:  # it could not even remove its folder; the next command does
        assert list(nothing_left.iterdir())
        BrowserConnection(open="chromium").run(make_request("onnx", tiny_onnx))
