"""Single files: no links, no pipes, no bounds crossed; written whole or not at all."""

import errno
import os
import resource
import shutil
from pathlib import Path

import pytest

from safeio import files, locks
from safeio.errors import OutputError, one_line


def test_only_regular_files_within_the_limit_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_file(tmp_path / "file", 5) == b"12345"
    assert files.read_file(tmp_path / "link", 5, follow_link=True) == b"12345"
    for name, words in {
        "link": "links are not followed",
        "pipe": "no regular file",  # and does not wait for a writer
        "": "no regular file",
        "nothing": "does not exist",
        "a\0b": "no name of a file",
        "x" * 300: "too long",
        "/dev/zero": "no regular file",
    }.items():
        with pytest.raises(files.UnreadableError, match=words):
            files.read_file(tmp_path / name, 5)
    with pytest.raises(files.UnreadableError, match="larger than 4 bytes"):
        files.read_file(tmp_path / "file", 4)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\b", "", "a\0", "\ud800"])
def test_names_that_lead_out_of_a_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(files.UnreadableError):
        files.inside(tmp_path, name)


def test_a_link_anywhere_in_a_name_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "file").write_text("x")
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file").symlink_to(tmp_path / "there" / "file")
    (folder / "out").symlink_to(tmp_path / "there")
    for name in ("sub/file", "out/file", "out"):
        with pytest.raises(files.UnreadableError, match="links are not followed"):
            files.inside(folder, name)
    assert [name for name, _ in files.tree(folder)] == ["out", "sub", "sub/file"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    place = tmp_path / "x.npz"
    files.replace_file(place, b"old", "choose another")
    with pytest.raises(KeyboardInterrupt), files.replacing(place, "choose another") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert place.read_bytes() == b"old"
    files.replace_file(place, b"new", "choose another")
    assert (place.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (b"new", ["x.npz"])


def test_a_link_in_the_way_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (tmp_path / "x").symlink_to("theirs")
    files.replace_file(tmp_path / "x", b"ours", "choose another")
    assert (tmp_path / "theirs").read_bytes() == b"theirs"
    assert not (tmp_path / "x").is_symlink()
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "x", b"again")


def test_what_the_system_refuses_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OutputError, match=r"cannot write .*: File too large; choose another"):
            files.replace_file(tmp_path / "x", bytes(100_000), "choose another")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with pytest.raises(OutputError, match="No such file or directory"):
        files.replace_file(tmp_path / "no" / "x", b"", "choose another")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_is_found_behind_what_a_library_makes_of_it() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    wrapped = RuntimeError("converter")
    wrapped.__cause__ = ValueError("inner")
    wrapped.__cause__.__context__ = full
    copied = shutil.Error([("a", "b", "[Errno 28] No space left on device")])
    assert files.write_failure(full) == files.write_failure(wrapped) == "No space left on device"
    assert files.write_failure(copied) == "No space left on device"
    assert files.write_failure(RuntimeError("libX: No space left on device")) == "No space left on device"
    assert files.write_failure(RuntimeError("other")) is None
    missing = RuntimeError("converter")
    missing.__cause__ = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert files.write_failure(missing) is None  # what a converter looked for and did not find is no full disk


def test_messages_are_one_line_that_cannot_steer_a_terminal() -> None:
    assert one_line("a\nb \x1b[31m \udce9") == "a b \\x1b[31m \\udce9"
    assert len(one_line("x" * 10**7)) < 1100


def test_names_of_unfinished_work_are_random_and_known(tmp_path: Path) -> None:
    names = {locks.new_name(tmp_path / "a.b").name for _ in range(100)}
    assert len(names) == 100
    assert all(locks.is_unfinished(name, "a.b") and not locks.is_unfinished(name, "b") for name in names)
