"""Folders that replace others: whole or not at all, whoever is killed, and whoever else is at work."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from safeio import locks, places, staging
from safeio.errors import BadInputError, OutputError

ADVICE = "choose another"
HOLD = """
import sys
from pathlib import Path
from safeio import locks, staging
with {made} as folder:
    (Path(folder) / "half").write_text("x")
    print(folder, flush=True)
    sys.stdin.read()
"""


def foreign(folder: Path) -> str | None:
    return next((path.name for path in folder.iterdir() if path.name not in {"content", "half"}), None)


def write(place: Path, text: str) -> None:
    with staging.staging(place, foreign, ADVICE) as folder:
        (folder / "content").write_text(text)


def hold(made: str, *arguments: Path) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that makes a folder and stays in it; return it and the folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(made=made), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_a_folder_replaces_another_and_nothing_else_stays(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    write(place, "old")
    write(place, "new")
    assert (place / "content").read_text() == "new"
    assert [path.name for path in place.parent.iterdir()] == ["b"]


def test_a_failure_leaves_everything_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staging.staging(tmp_path / "x" / "y" / "z", foreign, ADVICE) as folder:
        (folder / "content").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []  # not even the folders above it


@pytest.mark.parametrize("kind", ["staging.staging(Path(sys.argv[1]), lambda _: None, '')", "staging.scratch('test')"])
def test_the_living_are_left_alone_and_the_dead_are_cleared(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose process lives is told by the lock that the system keeps, not by a number that another process may have."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    place = tmp_path / "b"
    process, folder = hold(kind, place)

    def work() -> None:
        write(place, "ours")
        with staging.scratch("test"):
            pass

    work()
    assert (folder / "half").exists()
    process.kill()
    process.wait()
    assert (folder / "half").exists()  # nobody could tidy up
    work()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b"]


def test_what_was_moved_aside_comes_back_where_there_is_no_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "b"
    monkeypatch.setattr(staging, "_exchange", lambda new, old: False)
    write(place, "old")
    write(place, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
    place.rename(locks.new_name(place, locks.ASIDE))  # killed between the two renames
    staging.recover(place)
    assert (place / "content").read_text() == "new"
    place.rename(locks.new_name(place, locks.ASIDE))
    with pytest.raises(RuntimeError), staging.staging(place, foreign, ADVICE):
        raise RuntimeError
    assert (place / "content").read_text() == "new"


def test_what_is_replaced_goes_even_where_its_owner_may_not_write_in_it(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may write everywhere")
    write(tmp_path / "b", "old")
    (tmp_path / "b").chmod(0o500)
    write(tmp_path / "b", "new")
    assert ([path.name for path in tmp_path.iterdir()], (tmp_path / "b" / "content").read_text()) == (["b"], "new")


def test_a_link_under_such_a_name_is_not_touched(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    locks.new_name(tmp_path / "b").symlink_to(theirs)
    write(tmp_path / "b", "x")
    assert theirs.exists()
    assert sum(path.is_symlink() for path in tmp_path.iterdir()) == 1


def test_a_place_that_is_held_is_refused_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.0)
    write(tmp_path / "b", "old")
    holding = os.open(tmp_path / "b", os.O_RDONLY)
    assert locks.try_lock(holding)
    with pytest.raises(OutputError, match="in use"):
        write(tmp_path / "b", "new")
    os.close(holding)
    assert (tmp_path / "b" / "content").read_text() == "old"


def test_no_temporary_place_lies_in_an_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "manifest.json").write_text('{"schema_version": 1, "files": []}')
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(OutputError, match=r"inside the artifact .* TMPDIR"), staging.scratch("test"):
        pass


def test_a_look_at_a_folder_makes_nothing_that_a_kill_would_leave_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would remove it: it is beside no place that is written next."""
    monkeypatch.setattr(locks, "new_file", lambda choose: pytest.fail(f"{choose()} was made"))
    places.check_within(tmp_path, ADVICE)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with staging.scratch("test"):
        pass


def test_a_full_temporary_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with pytest.raises(OutputError, match=f"cannot write {tmp_path}: No space left .* TMPDIR"), staging.scratch("test"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), staging.scratch("test"):
        raise FileNotFoundError(errno.ENOENT, "nothing of the disk's")
    assert list(tmp_path.iterdir()) == []


def test_something_that_comes_in_between_is_not_lost(tmp_path: Path) -> None:
    place = tmp_path / "b"
    with pytest.raises(OutputError, match=r"thesis\.tex"), staging.staging(place, foreign, ADVICE):
        place.mkdir()
        (place / "thesis.tex").write_text("mine")
    assert (place / "thesis.tex").read_text() == "mine"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    (tmp_path / "file").write_text("x")
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.tex").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "content").write_text("x")
    (tmp_path / "link").symlink_to("ours")
    (tmp_path / "nowhere").symlink_to("missing")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (".", "folder that this command runs in"),
        ("..", "folder that this command runs in"),
        ("/", "."),
        ("../file", "no folder"),
        ("../pipe", "no folder"),
        ("../file/x", "no folder"),
        ("../theirs", r"thesis\.tex"),
        ("a\nb", "control characters"),
        ("a\x1b[31m", "control characters"),
        ("caf\udce9", "not UTF-8"),
        ("caf\udce9/x", "not UTF-8"),
        ("x" * 250, "too long"),
        ("/proc/x", "cannot write|no permission"),
    ],
)
def test_places_that_cannot_be_a_folder_are_refused_in_one_line(name: str, words: str, here: Path) -> None:
    before = sorted(here.rglob("*"))
    with pytest.raises(OutputError, match=words) as caught, staging.staging(Path(name), foreign, ADVICE):
        pass
    assert str(caught.value).isprintable()
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("name", ["../empty", "../ours", "../link", "new/and/deep", "../nowhere"])
def test_places_that_can(name: str, here: Path) -> None:
    write(Path(name), "new")
    assert (Path(name) / "content").read_text() == "new"
    assert (here / "link").is_symlink()


@pytest.mark.parametrize(
    "name", ["..", "../link", "../pipe", "../empty", "../no/x", "/dev/null", "/proc/x", "a\nb", "/"]
)
def test_places_that_cannot_be_a_file(name: str, here: Path) -> None:
    with pytest.raises(OutputError, match="choose another"):
        places.check_file(Path(name), ADVICE)


def test_a_link_to_a_file_is_the_users_own_and_followed(here: Path) -> None:
    (here / "ways").symlink_to("file")
    assert places.check_file(here / "ways", ADVICE) == here / "file"
    assert places.check_file(here / "nowhere", ADVICE) == here / "missing"


@pytest.mark.parametrize("name", ["artifact/new", "artifact/deep/new", "artifact/deep", "artifact/manifest.json"])
def test_nothing_is_put_into_an_artifact_but_what_is_its_own(name: str, here: Path) -> None:
    (here / "artifact" / "deep").mkdir(parents=True)
    manifest = here / "artifact" / "manifest.json"
    manifest.write_text('{"manifest_version": 3, "files": []}')  # a browser's extension, say
    assert places.check_folder(here / "artifact" / "new", foreign, ADVICE)
    manifest.write_text('{"schema_version": 3, "files": []}')
    before = sorted(here.rglob("*"))
    for check in (lambda place: places.check_folder(place, foreign, ADVICE), lambda p: places.check_file(p, ADVICE)):
        with pytest.raises(OutputError, match=r"lies inside the artifact .* choose another"):
            check(here / name)
    assert places.check_file(manifest, ADVICE, within=manifest.parent) == manifest
    assert sorted(here.rglob("*")) == before


@pytest.mark.parametrize("word", ["", "a\0b", "caf\udce9"])
def test_words_that_are_no_path(word: str) -> None:
    with pytest.raises(BadInputError):
        places.parse_path(word)
