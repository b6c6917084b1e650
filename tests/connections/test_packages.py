"""Packages of npm in the cache: a fake npm that answers from a folder, tarballs and pins made for each test."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
from commands import cocorr_export, run_here
from web_packages import web_packages

from exporter.connections.browser import npm, packages, tarball
from exporter.connections.browser.packages import find, install
from exporter.core.errors import OutputError, RuntimeMissingError, SetupError
from exporter.core.types import NpmPackage
from exporter.pipeline import reach

# Answers `npm pack NAME@VERSION`, and notes that it was asked. Where there is a pipe `hold`, it waits half-way.
FAKE_NPM = """#!{python}
import os, signal, sys
from pathlib import Path
here = Path(__file__).parent
verb, asked, *rest = sys.argv[1:]
options = dict(zip(rest[4:], rest[5:]))
assert verb == "pack" and rest[0] == "--ignore-scripts" and not os.listdir(".") and options["--prefix"] == os.getcwd()
with (here / "calls").open("a") as calls:
    calls.write(asked + "\\n")
content = (here / asked.replace("/", "+")).read_bytes()
place = Path(options["--pack-destination"], "some.tgz")
if content == b"die":
    place.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
if content == b"absent":
    print('{{"error": {{"summary": "No \\\\u001b[31mmatching version."}}}}')
    sys.exit(1)
if (here / "hold").exists():
    place.write_bytes(content[:9])
    (here / "pid").write_text(str(os.getpid()))
    (here / "hold").open("w").close()
    (here / "hold").open().read()
place.write_bytes(content)
"""
WASM = b"\0asm" * 1000
USER = b'import{a}from"@some/other";import * as b from "./local.js";console.log("@some/other")'


def packed(members: Mapping[str, bytes | tarfile.TarInfo]) -> bytes:
    """Return a tarball with these members."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in members.items():
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.name = name
            if isinstance(content, bytes):
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return stream.getvalue()


def pinned(name: str, data: bytes, files: tuple[str, ...], imports: Mapping[str, str] | None = None) -> NpmPackage:
    return NpmPackage(name, "1.0.0", tarball.integrity_of(data), files, dict(imports or {}))


OTHER_DATA = packed({"package/dist/index.js": b"export const a = 1", "package/README.md": b"not kept"})
USER_DATA = packed({"package/dist/a.wasm": WASM, "package/dist/user.js": USER, "package/x.js": b"not kept"})
OTHER = pinned("@some/other", OTHER_DATA, ("dist/index.js",))
USER_PINNED = pinned(
    "some-user",
    USER_DATA,
    ("dist/user.js", "dist/a.wasm"),
    {"@some/other": "../../@some/other/dist/index.js"},
)
BOTH = (OTHER, USER_PINNED)


@dataclass(frozen=True)
class Npm:
    """The fake npm's folder."""

    folder: Path

    def has(self, package: NpmPackage, data: bytes) -> None:
        (self.folder / f"{package.name}@{package.version}".replace("/", "+")).write_bytes(data)

    def calls(self) -> list[str]:
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_temporary_folder: Path) -> Path:
    """The cache's part for browsers, not there yet; nothing may be left in the temporary place."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "cocorr-export" / "browser"


@pytest.fixture
def fake_npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Npm:
    """An npm that has both packages."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "npm").write_text(FAKE_NPM.format(python=sys.executable))
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    fake = Npm(folder)
    fake.has(OTHER, OTHER_DATA)
    fake.has(USER_PINNED, USER_DATA)
    return fake


def nothing_half(cache: Path) -> list[str]:
    """Return the packages that lie in the cache, and see that there is nothing else but the lock."""
    names = sorted(path.name for path in cache.iterdir())
    assert [name for name in names if name.startswith(".")] == []
    return [name for name in names if name != "lock"]


def test_installed_once_and_served_by_url(fake_npm: Npm, cache: Path) -> None:
    with pytest.raises(
        RuntimeMissingError, match=r"^@some/other 1\.0\.0 and some-user 1\.0\.0 are not installed; get "
    ):
        find(BOTH)
    said: list[str] = []
    install(BOTH, (), said.append)
    assert said == ["fetching @some/other 1.0.0", "fetching some-user 1.0.0"]
    found = find(BOTH)
    assert list(found) == ["@some/other/dist/index.js", "some-user/dist/user.js", "some-user/dist/a.wasm"]
    assert found["some-user/dist/a.wasm"].read_bytes() == WASM
    # Only the import is another, not the text that looks like its name.
    redirected = USER.replace(b'from"@some/other"', b'from"../../@some/other/dist/index.js"')
    assert found["some-user/dist/user.js"].read_bytes() == redirected
    assert not list(cache.rglob("README.md")) and len(nothing_half(cache)) == 2
    install(BOTH, (), said.append)
    assert len(said) == len(fake_npm.calls()) == 2
    for left in (WASM[:-1], bytes(len(WASM))):  # as a power cut may leave it, or somebody
        found["some-user/dist/a.wasm"].write_bytes(left)
        with pytest.raises(
            RuntimeMissingError, match=r"^some-user 1\.0\.0 is not installed; get it with: cocorr-export bro"
        ):
            find(BOTH)
    install(BOTH, (), said.append)
    assert (find(BOTH), fake_npm.calls()[2:]) == (found, ["some-user@1.0.0"])
    assert (packages.remove(), cache.exists(), packages.remove()) == (True, False, False)


def test_any_change_of_a_pin_is_another_folder(cache: Path) -> None:
    changes = {"version": "2", "integrity": "sha512-", "files": ("dist/user.js",), "imports": {}}
    others = [NpmPackage(**{**asdict(USER_PINNED), name: value}) for name, value in changes.items()]  # type: ignore[arg-type]
    assert len({packages.place(package) for package in (USER_PINNED, *others)}) == 5


def of_type(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


A, B = "package/dist/a.js", "package/dist/b.js"
IMPORT = b"import {x} from 'bare';"
REFUSED: dict[str, tuple[bytes, str]] = {
    "no such member": (packed({A: b"a"}), r"has no dist/b\.js; its pin"),
    "beside the package": (packed({A: b"a", "package/../package/dist/b.js": b"b"}), r"has no dist/b\.js"),
    "a symbolic link": (
        packed({A: b"a", B: of_type(tarfile.SYMTYPE, "/etc/passwd")}),
        r"has a package/dist/b\.js that is no plain file",
    ),
    "a hard link": (
        packed({A: b"a", B: of_type(tarfile.LNKTYPE, A)}),
        r"has a package/dist/b\.js that is no plain file",
    ),
    "a folder": (packed({A: b"a", B: of_type(tarfile.DIRTYPE)}), r"has a package/dist/b\.js that is no plain file"),
    "too large": (packed({A: b"a", B: bytes(101)}), r"has a \S+b\.js of 101 bytes, and 100 is the most; its pin"),
    "cut off": (packed({A: os.urandom(90), B: os.urandom(90)})[:200], r"cannot be read: .*; its pin is wrong"),
    "no tarball": (b"<html>sign in", r"cannot be read: .*; its pin is wrong"),
    "no import": (packed({A: b"let a = 'bare'", B: b"b"}), "imports bare in 0 places, and not in one"),
    "two imports": (packed({A: IMPORT, B: b'import("bare")'}), "imports bare in 2 places, and not in one"),
}


@pytest.mark.parametrize("data, message", REFUSED.values(), ids=REFUSED)
def test_a_pinned_tarball_that_is_not_as_it_must_be(
    data: bytes, message: str, fake_npm: Npm, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarball, "MAX_FILE_BYTES", 100)
    package = pinned("some", data, ("dist/a.js", "dist/b.js"), {"bare": "./c.js"} if "import" in message else None)
    fake_npm.has(package, data)
    with pytest.raises(SetupError, match=rf"^the tarball of some 1\.0\.0 {message}") as caught:
        install((OTHER, package), (), lambda _: None)
    assert "\n" not in str(caught.value)
    assert nothing_half(cache) == [packages.place(OTHER).name]


def test_what_leads_out_of_a_package_is_never_written(fake_npm: Npm, cache: Path, tmp_path: Path) -> None:
    data = packed({"package/../../escaped.js": b"x", "/escaped.js": b"x", A: b"a"})
    package = pinned("some", data, ("dist/a.js",))
    fake_npm.has(package, data)
    install((package,), (), lambda _: None)
    assert list(find((package,))) == ["some/dist/a.js"]
    assert not list(tmp_path.rglob("escaped.js"))


def test_another_tarball_than_the_pinned_one(fake_npm: Npm, cache: Path) -> None:
    """A wrong one, none, one that is not there, and an npm that dies; then it has the right one, and goes on."""
    answers = {
        USER_DATA
        + b"\0": r"npm fetched some-user 1\.0\.0, but its SHA-512 is sha512-\S+, where sha512-\S+ is pinned; look",
        b"absent": r"npm could not fetch some-user 1\.0\.0: No matching version; try again, or give the tarball with",
        b"die": r"npm could not fetch some-user 1\.0\.0: exit status -9; try again",
    }
    for data, message in answers.items():
        fake_npm.has(USER_PINNED, data)
        with pytest.raises(SetupError, match=f"^{message}"):
            install(BOTH, (), lambda _: None)
        assert nothing_half(cache) == [packages.place(OTHER).name]
    fake_npm.has(USER_PINNED, USER_DATA)
    install(BOTH, (), lambda _: None)
    assert fake_npm.calls() == ["@some/other@1.0.0", *4 * ["some-user@1.0.0"]]
    assert len(find(BOTH)) == 3


def test_tarballs_that_the_user_has(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is in them, whatever they are called; without any npm."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(npm.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    one, two, cut = (tmp_path / name for name in ("one.tgz", "two", "cut.tgz"))
    one.write_bytes(USER_DATA)
    two.write_bytes(OTHER_DATA)
    cut.write_bytes(USER_DATA[:-1])
    said: list[str] = []
    with pytest.raises(SetupError, match=r"none of the pinned.*npm pack @some/other@1\.0\.0 some-user@1\.0\.0$"):
        install(BOTH, (one, cut), said.append)
    with pytest.raises(SetupError, match=r"the tarball .*/nowhere does not exist"):
        install(BOTH, (one, tmp_path / "nowhere"), said.append)
    assert (said, cache.exists()) == ([], False)
    with pytest.raises(
        SetupError, match=r"npm, from which @some/other 1\.0\.0 comes, is not on the PATH.* pip install.*--tar"
    ):
        install(BOTH, (one,), said.append)
    assert nothing_half(cache) == [packages.place(USER_PINNED).name]
    install(BOTH, (one, two), said.append)
    assert len(find(BOTH)) == 3
    assert said == [
        "unpacking the given tarball of some-user 1.0.0",
        "fetching @some/other 1.0.0",
        "unpacking the given tarball of @some/other 1.0.0",
    ]


def test_a_cache_that_cannot_be_written(fake_npm: Npm, cache: Path) -> None:
    cache.parent.parent.mkdir()
    cache.parent.write_bytes(b"")  # a file is in the way, also of root
    with pytest.raises(
        OutputError, match=r"^cannot write .*; make room there, or name another cache folder in XDG_CACH"
    ):
        install(BOTH, (), lambda _: None)
    assert fake_npm.calls() == []


INSTALL_THESE = """
import json, sys
from exporter.connections.browser.packages import install
from exporter.core.types import NpmPackage
install([NpmPackage(**pin) for pin in json.loads(sys.argv[1])], (), print)
"""


@pytest.fixture
def start(own_temporary_folder: Path):
    """Starts an installation of both in a process of its own; all are ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def begin() -> "subprocess.Popen[str]":
        command = [sys.executable, "-c", INSTALL_THESE, json.dumps([asdict(package) for package in BOTH])]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_two_at_once_fetch_each_package_once(
    fake_npm: Npm, cache: Path, start: "Callable[[], subprocess.Popen[str]]"
) -> None:
    ended = [(process.communicate()[1], process.returncode) for process in [start(), start()]]
    assert ended == [("", 0), ("", 0)]
    assert fake_npm.calls() == ["@some/other@1.0.0", "some-user@1.0.0"]
    assert len(find(BOTH)) == 3


def test_a_kill_leaves_nothing_that_the_next_does_not_tidy(
    fake_npm: Npm, cache: Path, own_temporary_folder: Path, start: "Callable[[], subprocess.Popen[str]]"
) -> None:
    hold = fake_npm.folder / "hold"
    os.mkfifo(hold)
    first = start()
    hold.open().read()  # npm has come half-way
    first.send_signal(signal.SIGKILL)
    first.wait()
    os.kill(int((fake_npm.folder / "pid").read_text()), signal.SIGKILL)  # it would write on, with nobody behind it
    hold.unlink()
    assert len(list(own_temporary_folder.iterdir())) == 1
    install(BOTH, (), lambda _: None)
    assert len(find(BOTH)) == 3
    assert len(nothing_half(cache)) == 2


def test_the_command_says_in_one_line_what_is_wrong(
    tmp_path: Path, fake_npm: Npm, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = reach.web_packages()[0]
    fake_npm.has(first, USER_DATA)
    ended = run_here(capfd, "browser", "install")
    assert (ended.code, f"npm fetched {tarball.title(first)}, but its SHA-512 is" in ended.error_line()) == (2, True)
    (tmp_path / "mine.tgz").write_bytes(USER_DATA)
    ended = run_here(capfd, "browser", "install", "--tarball", tmp_path / "mine.tgz")
    assert (ended.code, "mine.tgz is none of the pinned tarballs" in ended.error_line()) == (2, True)
    assert run_here(capfd, "browser", "remove").out == "removed\n"
    assert run_here(capfd, "browser", "remove").out == "nothing was installed\n"


def test_doctor_says_what_a_browser_lacks(
    fake_npm: Npm, cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(packages.chromium, "find", lambda: None)
    monkeypatch.setattr(packages.chromium, "how_to_get", lambda: "get Chromium")
    install((OTHER,), (), lambda _: None)
    row = packages.survey(BOTH)
    assert row["packages"] == {"@some/other": "1.0.0", "some-user": None, "Chromium": None}
    assert (row["ready"], row["install"]) == (
        False,
        "some-user 1.0.0 is not installed; get it with: cocorr-export browser install; "
        "no Chromium is on the PATH; get Chromium (a phone needs none here)",
    )
    monkeypatch.setattr(packages.chromium, "find", lambda: tmp_path)
    install(BOTH, (), lambda _: None)
    assert packages.survey(BOTH) == {
        "connection": "browser",
        "packages": {"@some/other": "1.0.0", "some-user": "1.0.0", "Chromium": str(tmp_path)},
        "ready": True,
        "install": None,
    }
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(Path, "home", no_home)
    assert "XDG_CACHE_HOME" in str(packages.survey(BOTH)["install"])


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_the_pins_with_the_real_npm(shared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fetched once, they are there without npm; and nothing that a page loads is imported by a bare name."""
    folder = web_packages(shared_folder)
    again = cocorr_export("browser", "install", env={"XDG_CACHE_HOME": str(folder), "PATH": ""})
    assert (again.code, again.err) == (0, "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    found = find(reach.web_packages())
    assert len(found) == sum(len(package.files) for package in reach.web_packages())
    for url, path in found.items():
        if url.endswith(".wasm"):
            assert path.read_bytes()[:4] == b"\0asm", url
            continue
        for line in path.read_text().splitlines():
            imported = re.match(r"(?:import|export)\b[^\"']*\bfrom\s*[\"']([^\"']+)[\"']", line)
            if imported is not None:
                # As a browser resolves it: below npm/, against the URL of the file.
                assert os.path.normpath(f"{url}/../{imported[1]}") in found, f"{url} imports {imported[1]}"
