"""The installation's parts: the machine's own sources in both of apt's notations, and downloads that are kept."""

import hashlib
from pathlib import Path

import pytest

from exporter.connections import bundle
from exporter.connections.bundle import install, pins
from exporter.connections.bundle.apt import Package, archives
from exporter.core.errors import RuntimeMissingError

STANZAS = """\
# a comment
Types: deb deb-src
URIs: http://one.example/debian/ http://two.example/debian
Suites: stable
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc

Types: deb
URIs: http://one.example/debian-security
Suites: stable-security

Types: deb-src
URIs: http://sources.example/debian
Suites: stable

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: stable
"""
LINES = """\
deb http://three.example/debian stable main
# deb http://comment.example/debian stable main
deb [arch=amd64 signed-by=/keys/a.gpg] http://four.example/debian stable main
deb-src http://five.example/debian stable main
deb http://six.example/other stable main
"""


def test_the_debian_archives_of_both_notations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "sources.list").write_text(LINES)
    (tmp_path / "parts" / "a.sources").write_text(STANZAS)
    (tmp_path / "parts" / "b.sources.disabled").write_text(STANZAS.replace("one.", "disabled."))
    tool = tmp_path / "apt-config"
    tool.write_text(f"#!/bin/sh\necho \"LIST='{tmp_path}/sources.list'\"\necho \"PARTS='{tmp_path}/parts/'\"\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    key = "Signed-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc"
    assert list(archives()) == [
        "Types: deb\nURIs: http://three.example/debian\nComponents: main",
        "Types: deb\nURIs: http://four.example/debian\nComponents: main\nSigned-By: /keys/a.gpg",
        f"Types: deb\nURIs: http://one.example/debian/\nComponents: main\n{key}",
        f"Types: deb\nURIs: http://two.example/debian\nComponents: main\n{key}",
    ]


def test_a_whole_download_is_kept_and_a_broken_one_fetched_again(tmp_path: Path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(install, "call", lambda command, failure, environment=None: asked.append(command))
    content = b"a wheel"
    wheel = pins.Wheel("1.0", (hashlib.sha256(content).hexdigest(),))
    (tmp_path / "some-1.0.whl").write_bytes(content)
    assert install._wheel(tmp_path, "some", wheel, foreign=True) == tmp_path / "some-1.0.whl"
    assert asked == []
    (tmp_path / "some-1.0.whl").write_bytes(content[:3])
    with pytest.raises(install.SetupError, match="no wheel with the SHA-256 that is pinned"):
        install._wheel(tmp_path, "some", wheel, foreign=True)
    (command,) = asked
    assert {"--require-hashes", "--only-binary=:all:", "--no-deps"} <= set(command)
    assert (tmp_path / "some.txt").read_text() == f"some==1.0 --hash=sha256:{wheel.sha256[0]}\n"


def test_a_package_that_is_cut_off_is_not_whole(tmp_path: Path) -> None:
    file = tmp_path / "a.deb"
    package = Package("a", "1", hashlib.sha256(b"whole").hexdigest(), file)
    assert not package.whole()
    file.write_bytes(b"who")
    assert not package.whole()
    file.write_bytes(b"whole")
    assert package.whole()


def test_a_wheel_is_unpacked_without_what_it_drops(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("some/core.py", "some/tests/test_a.py", "some/sub/tests/b.py", "../escaped.py", "/absolute.py"):
            archive.writestr(name, name)
    install._unzip(path, tmp_path / "out", ("*/tests",))
    found = {str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*.py")}
    assert found == {"out/some/core.py", "out/escaped.py", "out/absolute.py"}


def test_a_user_without_a_home_is_told_what_to_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number which no account has."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert install.survey()["ready"] is False
    with pytest.raises(RuntimeMissingError, match="XDG_CACHE_HOME"):
        bundle.remove()
