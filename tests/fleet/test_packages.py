"""A folder of packages that others have had their hands on: what is whole, what is refused, and in which words."""

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import pytest

from exporter.core.errors import BadInputError, OutputError
from exporter.fleet import packages, packages_archive, store

USERS, STATUS = ["a", "b", "c"], ["ranked", "one_click", "ranked"]
PLAN = {"format": packages.FORMAT, "shards": 2, "order": "text", "sample": 6, "users": 50, "versions": {"torch": "2"}}
Changed = Callable[[pa.Table], pa.Table]


@pytest.fixture
def folder(tmp_path: Path) -> packages.Folder:
    """Two shards of three users, of whom the first and the last have packages in the first, and nobody in the other."""
    made = packages.Folder(tmp_path / "packages", PLAN)
    with packages.opened(made, force=False):
        rows = np.arange(1400, dtype=np.int64).astype(np.uint8).reshape(2, 700)
        found = packages_archive.write(packages.archive(made.place, 0), [([0, 2], rows)], 3)
        digests = [row.tobytes().hex() for row in found["xxh3_128"]]
        made.write_index(0, _index(USERS, STATUS, found["offset"].tolist(), found["bytes"].tolist(), digests))
        made.write_index(1, _index(["d", "e", "f"], ["one_click"] * 3, [0] * 3, [0] * 3, [""] * 3))
    return made


def test_an_archive_is_what_the_standard_library_writes(tmp_path: Path) -> None:
    places = [0, 7, 10, 99_999, 123_456, 999_999]
    rows = np.arange(len(places) * 700, dtype=np.int64).astype(np.uint8).reshape(len(places), 700)
    packages_archive.write(tmp_path / "own.tar", [(places, rows)], 1_000_000)
    with tarfile.open(tmp_path / "judge.tar", "w", format=tarfile.USTAR_FORMAT) as judge:
        for place, row in zip(places, rows, strict=True):
            entry = tarfile.TarInfo(f"{place:06}.safetensors")
            entry.size = len(row)
            judge.addfile(entry, io.BytesIO(row.tobytes()))
        end = judge.offset
    assert (tmp_path / "own.tar").read_bytes() == (tmp_path / "judge.tar").read_bytes()[: end + 1024]


def _index(users: list[str], status: list[str], offset: list[int], size: list[int], digests: list[str]) -> pa.Table:
    has = pa.array([None if word != "ranked" else place for place, word in enumerate(status)], pa.int64())
    columns = {"structure": pa.array(["110"] * 3), "offset": pa.array(offset, pa.int64())}
    columns |= {"bytes": pa.array(size, pa.int64()), "xxh3_128": pa.array(digests)}
    return pa.table({"user": users, "status": status, **{name: one.take(has) for name, one in columns.items()}})


def _change(folder: packages.Folder, change: Changed, first: bytes = b"a") -> None:
    table = pyarrow.parquet.read_table(folder.index(0))
    store.write_table(folder.index(0), change(table), {store.MARK: folder.mark, b"cocorr.first": first})


def _with(name: str, values: list[object], kind: pa.DataType) -> Changed:
    return lambda table: table.set_column(table.column_names.index(name), name, pa.array(values, kind))


HOSTILE = {
    "no offset": lambda table: table.drop_columns("offset"),
    "no user": lambda table: table.drop_columns("user"),
    "no hash": lambda table: table.drop_columns("xxh3_128"),
    "no structure": lambda table: table.drop_columns("structure"),
    "no columns": lambda table: table.select([]),
    "one more": lambda table: table.append_column("more", table["user"]),
    "user in numbers": _with("user", [1, 2, 3], pa.int64()),
    "offset in text": _with("offset", ["1", "2", "3"], pa.string()),
    "status null": _with("status", [None] * 3, pa.string()),
    "hash null": _with("xxh3_128", [None] * 3, pa.string()),
    "offset below 0": _with("offset", [-1, None, 0], pa.int64()),
    "no bytes": _with("bytes", [0, None, 0], pa.int64()),
    "one user twice": _with("user", ["a", "b", "a"], pa.string()),
    "one package in another": _with("offset", [512, None, 513], pa.int64()),
    "structure in words": _with("structure", ["x\n", None, "1"], pa.string()),
    "user not UTF-8": lambda table: table.set_column(0, "user", pa.array([b"a", b"\xff", b"c"]).view(pa.string())),
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_an_index_that_is_none_is_told_and_its_shard_made_again(folder: packages.Folder, change: Changed) -> None:
    assert folder.done() == {0, 1}
    _change(folder, change)
    with pytest.raises(BadInputError, match=r"part-00000.parquet is damaged: .*; remove it, and the same fleet"):
        folder.take("a")
    assert folder.done() == {1}


def test_bytes_that_are_no_text_are_told(folder: packages.Folder) -> None:
    with pytest.raises(BadInputError, match="has no user"):
        folder.take("a\udcff")
    _change(folder, lambda table: table, first=b"\xff")
    with pytest.raises(BadInputError, match=r"damaged: cocorr.first is no UTF-8"):
        folder.take("a")


@pytest.mark.parametrize("left", [None, 0, 700, -1, 1])
def test_a_shard_without_its_whole_archive_is_made_again(folder: packages.Folder, left: int | None) -> None:
    path = packages.archive(folder.place, 0)
    whole = path.read_bytes()
    path.unlink()
    if left is not None:
        path.write_bytes(whole + b"?" if left == 1 else whole[:left])
    assert folder.done() == {1}
    path.unlink(missing_ok=True)
    path.with_name("mine").write_bytes(whole)
    path.symlink_to(path.with_name("mine"))
    assert folder.done() == {1}
    path.unlink()
    path.write_bytes(whole)
    assert folder.done() == {0, 1}
    _change(folder, lambda table: table.filter(pc.not_equal(table["user"], "c")))
    assert folder.done() == {1}  # a user who is lost from the index is missed in the length


def test_an_index_of_no_shard_is_named_and_one_that_is_a_link_is_told_so(folder: packages.Folder) -> None:
    own, other = folder.index(0), folder.index(99)
    shutil.copyfile(own, other)
    for ask in (folder.done, lambda: folder.take("a")):
        with pytest.raises(BadInputError, match=r"part-00099.parquet is of no shard of these packages; remove it$"):
            ask()
    other.unlink()
    own.rename(own.with_name("mine"))
    own.symlink_to(own.with_name("mine"))
    with pytest.raises(BadInputError, match=r"part-00000.parquet is a link .*; remove it, and the same fleet"):
        folder.take("a")


def test_what_is_not_of_the_packages_stays_and_all_else_with_it(folder: packages.Folder) -> None:
    """Also a folder, and what came since the place was looked at."""
    before = sorted(path.name for path in folder.place.iterdir())
    for name in ("mine", "part-00007.tar"):
        (folder.place / name).mkdir()
        with pytest.raises(OutputError, match=f"holds '{name}', which would be lost"):
            packages.check(folder.place)
        with (
            pytest.raises(OutputError, match=f"holds '{name}', which would be lost"),
            packages.opened(packages.Folder(folder.place, {**PLAN, "stored": "fp16"}), force=True),
        ):
            pass
        assert sorted(path.name for path in folder.place.iterdir()) == sorted([*before, name])
        (folder.place / name).rmdir()


def test_who_was_not_drawn_is_told_so(folder: packages.Folder) -> None:
    assert folder.take("c").structure == "110"
    with pytest.raises(BadInputError, match=r"has no user 'bb' among the 6 users drawn of 50 \(--sample\); only those"):
        folder.take("bb")


def test_packages_of_another_plan_are_refused_and_stay(folder: packages.Folder) -> None:
    """Also of one that has more in it than this version writes: what is not known is not replaced."""
    others: dict[str, dict[str, object]] = {
        "versions torch 2 and not 3": {**PLAN, "versions": {"torch": "3"}},
        "users 50 and not nothing": {name: value for name, value in PLAN.items() if name != "users"},
        "new nothing and not 1": {**PLAN, "new": 1},
    }
    before = sorted(folder.place.iterdir())
    for words, plan in others.items():
        with pytest.raises(OutputError, match=f"another set of packages: {words}; choose another --packages, or"):
            packages.check_plan(folder.place, plan)
        with (
            pytest.raises(OutputError, match=words),
            packages.opened(packages.Folder(folder.place, plan), force=False),
        ):
            pass
    assert sorted(folder.place.iterdir()) == before
    packages.check_plan(folder.place, PLAN)
