"""Pages that are served to a network: what https and plain http let them do, and the code that leads there."""

import json
import os
import pickle
import re
import ssl
import subprocess
import sys
import termios
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import segno
from browser import Browser
from chromium import chromium
from phone import Waiting, press_run
from servers import UP, need_namespaces, wait_for

from exporter.connections.browser.connection import BrowserConnection
from exporter.connections.browser.qr import qr_code
from exporter.core.errors import BadInputError, DeviceError

ADDRESS = "10.77.0.1"
# In a network of its own, of which this is the only address; lo:1 is another name for the loopback interface.
IN_A_NETWORK = f"""
{UP}
address = struct.pack("16sH2x4s8x", b"lo:1", socket.AF_INET, socket.inet_aton("{ADDRESS}"))
fcntl.ioctl(s, 0x8916, address)
import json, pickle, sys
from exporter.connections.browser.connection import BrowserConnection
result = BrowserConnection(open="chromium", bind="{ADDRESS}").run(pickle.load(sys.stdin.buffer))
conditions, scores = dict(result.conditions), result.outputs["scores"].ravel().tolist()
print(json.dumps([conditions, result.threads, result.calls_per_sample, scores]))
"""


def test_plain_http_in_a_network_is_not_isolated_and_says_so(
    chromium_here, nothing_left, make_request, tiny_onnx, expected
) -> None:
    need_namespaces("-rn")
    request = make_request("onnx", tiny_onnx, threads=2)
    command = ["unshare", "-rn", sys.executable, "-c", IN_A_NETWORK]
    done = subprocess.run(command, input=pickle.dumps(request), capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    conditions, threads, calls, scores = json.loads(done.stdout)
    assert scores == pytest.approx(expected.ravel().tolist(), abs=1e-6)
    assert (conditions["isolated"], conditions["threads"], threads) == ("no", "1 of 2 asked for", 1)
    assert float(conditions["clock_step_us"]) >= 99
    assert calls > 1 and conditions["timed"] == f"means of {calls} calls, because of the clock's step"


def test_a_page_by_https_is_isolated(
    waiting, shared_folder, tmp_path, make_request, tiny_onnx, capfd: pytest.CaptureFixture[str]
) -> None:
    passing = tmp_path / "passing"  # a person passes the warning, for the page and its workers
    passing.write_text(f'#!/bin/sh\nexec {chromium(shared_folder)} "$@" --ignore-certificate-errors\n')
    passing.chmod(0o755)
    secure = Waiting(waiting.pool, https=True)
    ran = secure.run(make_request("onnx", tiny_onnx, threads=2))
    assert wait_for(lambda: secure.stand.has_invited)
    at = urlsplit(secure.stand.url)
    assert at.scheme == "https" and at.hostname is not None and at.port is not None
    certificate = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((at.hostname, at.port)))
    with Browser(passing, tmp_path / "hand") as hand:
        page = hand.new_page()
        page.open(secure.stand.url)
        press_run(page)
        result = ran.result(300)
    assert dict(result.conditions)["isolated"] == "yes" and result.threads == 2
    assert re.search(
        rf"SHA-256 is {sha256(certificate).digest().hex(':').upper()}$", capfd.readouterr().err, re.MULTILINE
    )


@pytest.mark.parametrize("host", ["127.0.0.1:1", "[2001:db8:1234:5678:9abc:def0:1234:5678]:65535"])
def test_a_code_for_a_terminal_has_the_url(host: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = f"https://{host}/{'x' * 22}/"
    with (tmp_path / "stderr").open("w", encoding="utf-8") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        drawn = qr_code(url)
    assert drawn is not None
    lines = drawn.splitlines()
    assert len({len(line) for line in lines}) == 1 and len(lines[0]) <= 80
    halves = {"█": (1, 1), "▀": (1, 0), "▄": (0, 1), " ": (0, 0)}  # what is light: upper and lower half
    rows = [[1 - halves[sign][half] for sign in line] for line in lines for half in (0, 1)]
    modules = [list(row) for row in segno.make_qr(url, error="L").matrix]
    size = len(modules)
    assert [row[2 : 2 + size] for row in rows[2 : 2 + size]] == modules
    border = rows[:2] + rows[2 + size : 4 + size] + [row[:2] + row[2 + size :] for row in rows[2 : 2 + size]]
    assert not any(map(any, border))


@pytest.mark.parametrize(("columns", "is_drawn"), [(32, False), (33, True), (0, True)])
def test_a_terminal_that_would_break_its_lines_gets_no_code(columns: int, is_drawn: bool, monkeypatch) -> None:
    master, slave = os.openpty()
    termios.tcsetwinsize(slave, (24, columns))
    with os.fdopen(master, "rb"), os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        assert (qr_code(f"http://127.0.0.1:50000/{'x' * 22}/") is not None) is is_drawn


@pytest.mark.parametrize(
    ("options", "failure", "words"),
    [
        ({"bind": "0.0.0.0"}, DeviceError, "no browser can open '0.0.0.0'"),
        ({"bind": "192.0.2.77"}, DeviceError, "is not an address of this machine"),
        ({"https": {"certificate": "none.pem", "key": "none.pem"}}, BadInputError, "none.pem does not exist"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_is_made_for_it(options, failure, words) -> None:
    with pytest.raises(failure, match=words):
        BrowserConnection(open="phone", **options).check()


def test_a_terminal_without_such_signs_gets_no_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w", encoding="ascii") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        assert qr_code("http://127.0.0.1:1/x/") is None
