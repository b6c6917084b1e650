"""https with a certificate that is made for a run, or with the user's; nothing is asked on a terminal."""

import os
import pty
import shutil
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import raw_client
from raw_client import MODEL, PAGE, Client, Stub

from exporter.connections.browser import wire
from exporter.connections.browser.certificate import Certificate, fingerprint, self_signed, server_context
from exporter.connections.browser.server import Server
from exporter.core.errors import BadInputError, DeviceError, SetupError

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl on this machine")


def openssl(*words: str | Path) -> str:
    return subprocess.run(["openssl", *words], check=True, capture_output=True, text=True).stdout


@needs_openssl
def test_the_page_by_https(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    made = self_signed(tmp_path, "127.0.0.1")
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    trusting = ssl.create_default_context(cafile=str(made.certificate))
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    with Server(Stub(), "127.0.0.1", made) as running:
        assert running.url.startswith("https://127.0.0.1:")
        client = Client(running, trusting)
        assert client.answer("GET", "").content == PAGE
        assert client.answer("GET", "files/model.onnx").content == MODEL
        assert client.answer("POST", "echo", b"abc", Cocorr_Visit="1").content == b"1|abc"
        with client.open() as opened:
            assert isinstance(opened, ssl.SSLSocket)
            shown = fingerprint(made)
            assert shown in openssl("x509", "-in", made.certificate, "-noout", "-fingerprint", "-sha256")
            opened.sendall(client.get(""))
            assert opened.recv(65536).startswith(b"HTTP/1.1 200 ")

        plain = Client(running)
        silent = plain.open()  # never begins its handshake: nobody waits for it
        assert client.answer("GET", "").content == PAGE
        assert b"200" not in plain.raw(plain.get(""))  # who speaks HTTP to it hears nothing
        trusting.maximum_version = ssl.TLSVersion.TLSv1_2
        assert client.answer("GET", "").content == PAGE
        with pytest.raises(OSError):
            old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            Client(running, old).open()
        monkeypatch.setattr(wire, "HEAD_S", 0.3)
        with plain.open() as slow:
            assert raw_client.ended(slow)
    assert raw_client.ended(silent)
    silent.close()
    assert raw_client.all_end()
    assert capfd.readouterr() == ("", "")


@needs_openssl
def test_a_certificate_is_for_its_address(tmp_path: Path) -> None:
    made = self_signed(tmp_path, "2001:db8::1")
    assert "IP Address:2001:DB8:0:0:0:0:0:1" in openssl("x509", "-in", made.certificate, "-noout", "-text")
    trusting = ssl.create_default_context(cafile=str(made.certificate))
    with Server(Stub(), "127.0.0.1", made) as running, pytest.raises(ssl.SSLCertVerificationError):
        Client(running, trusting).open()
    with pytest.raises(DeviceError):
        self_signed(tmp_path / "other", "127.0.0.1\nbasicConstraints = CA:TRUE")


def test_without_openssl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SetupError, match="install openssl"):
        self_signed(tmp_path, "127.0.0.1")


@needs_openssl
def test_an_openssl_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "openssl"
    tool.write_text("#!/bin/sh\necho 'no such\033[31m curve' >&2\nexit 1\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(SetupError, match=r"no such curve$"):
        self_signed(tmp_path, "127.0.0.1")


@needs_openssl
def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    made = self_signed(tmp_path, "127.0.0.1")
    (tmp_path / "other").mkdir()
    other = self_signed(tmp_path / "other", "127.0.0.1")
    garbage = raw_client.write(tmp_path / "garbage", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    bad = [
        (garbage, made.key),
        (made.certificate, garbage),
        (made.certificate, other.key),
        (made.key, made.certificate),
    ]
    bad += [
        (tmp_path / "no", made.key),
        (made.certificate, tmp_path / "no"),
        (pipe, made.key),
        (made.certificate, tmp_path),
    ]
    for pair in bad:
        with pytest.raises(BadInputError, match=r"^https: ") as caught:
            server_context(Certificate(*pair))
        assert "\n" not in str(caught.value)
    for path in (garbage, made.key, pipe, tmp_path):
        with pytest.raises(BadInputError, match=r"^https: "):
            fingerprint(Certificate(path, made.key))


@needs_openssl
def test_an_encrypted_key_asks_nobody(tmp_path: Path) -> None:
    """In a process that has a terminal, where OpenSSL would ask."""
    made = self_signed(tmp_path, "127.0.0.1")
    locked = tmp_path / "locked.pem"
    openssl("ec", "-in", made.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    script = (
        "from pathlib import Path; from exporter.connections.browser.certificate import *\n"
        f"server_context(Certificate(Path({str(made.certificate)!r}), Path({str(locked)!r})))"
    )
    terminal, inside = pty.openpty()
    # setsid: the terminal becomes the one that the process controls it from when it is opened there.
    opening = f"import os; os.open({os.ttyname(inside)!r}, os.O_RDWR)\n"
    done = subprocess.run(
        [sys.executable, "-c", opening + script],
        stdin=inside,
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("the key is encrypted; name one that needs no password")
    os.set_blocking(terminal, False)
    with pytest.raises(BlockingIOError):
        os.read(terminal, 1000)
    os.close(terminal)
    os.close(inside)
