"""Files that go through the disk are what Python's own sorting makes of them, whatever they hold and wherever cut."""

import errno
import mmap
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as some

from models.training import gather, readers, runs
from models.training import users as module
from models.training.data import read_interactions, read_with_users
from models.training.gather import DataError
from models.training.overflow import Overflow
from models.training.users import Catalogue, read_users
from safeio.errors import OutputError

NUMBERS = some.integers(-3, 30).map(str)
TEXTS = some.sampled_from(["10", "9", "a", "b", "Z", "\u00e9", "\U0001f600", "\uffee", "09", "9223372036854775808"])
TIMES = some.sampled_from(
    [
        ["0", "1", "2", "3"],
        ["0", "0.5", "1.000000001", "1", "1.0"],
        ["1", "1e3", "1000.0", "123456789012345678901234567890", "0.0000000000001", "1e-13", "-7"],
        ["2020-02-29", "2020-02-29 00:00", "2020-01-01T00:00:01.5", "1969-12-31"],
    ]
)


@some.composite
def files(draw):
    """Return rows of a file; its last users may be other than numbers, which changes the order of those before."""
    time = some.sampled_from(draw(TIMES))
    rows = draw(some.lists(some.tuples(NUMBERS, some.one_of(NUMBERS, TEXTS), time), min_size=1, max_size=50))
    return rows + draw(some.lists(some.tuples(some.one_of(NUMBERS, TEXTS), NUMBERS, time), max_size=9))


@pytest.fixture(autouse=True)
def small(tmp_path, monkeypatch):
    """Read a few rows at a time, and hold few."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    for place, name, value in (
        (readers, "_BLOCK", 40),
        (gather, "_WAITING_ROWS", 3),
        (runs, "_BATCH_ROWS", 4),
        (runs, "_RANGE_ROWS", 8),
        (runs, "_DRAWN", 2),
        (module, "_CLICKS_AT_ONCE", 5),
        (module, "_AT_ONCE", 3),
    ):
        monkeypatch.setattr(place, name, value)


def moment(text):
    return text if "-" in text[1:] and "e" not in text else Fraction(text)


def by_python(rows):
    """Return user -> the items of their clicks, in the order that the documents state, by Python's own sorting."""
    moments = {"2020-02-29 00:00": "2020-02-29"}
    names = {user for user, _, _ in rows}
    whole = all(name.removeprefix("-").isdecimal() and str(int(name)) == name and int(name) < 2**63 for name in names)
    clicks = {name: {} for name in sorted(names, key=int if whole else str)}
    for at, (user, item, time) in enumerate(rows):
        clicks[user].setdefault((moment(moments.get(time, time)), item), at)
    return {
        user: [item for (_, item), _ in sorted(own.items(), key=lambda click: (click[0][0], click[1]))]
        for user, own in clicks.items()
    }


FIRST_HAS_MOST = [("0", str(row), "1") for row in range(60)] + [(str(user), "1", "1") for user in range(1, 9)]


@settings(max_examples=100, deadline=None)
@example(FIRST_HAS_MOST)
@given(files())
def test_a_file_through_the_disk_is_what_python_sorts(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "clicks.csv"
    path.write_text("\n".join(["user,item,timestamp", *map(",".join, rows), ""]), "utf-8")
    expected = by_python(rows)
    with Overflow() as overflow:
        read, names = read_with_users(path, 3, overflow)
        assert len(rows) < 30 or isinstance(read.items.base.obj, mmap.mmap)
    overflow.release()
    ends = read.starts.tolist()
    own = [[read.names[item] for item in read.items[ends[user] : ends[user + 1]]] for user in range(len(names))]
    assert dict(zip(names, own, strict=True)) == expected and names[:] == tuple(expected)
    whole = read_interactions(path, 3)
    assert (read.names, read.sha256, read.notes, read.vocabulary) == (
        whole.names,
        whole.sha256,
        whole.notes,
        whole.vocabulary,
    )
    np.testing.assert_array_equal(read.items, whole.items)
    np.testing.assert_array_equal(read.starts, whole.starts)


def table(count):
    rng = np.random.default_rng(0)
    columns = {"user": rng.integers(0, count, 4 * count), "item": rng.integers(1, 250, 4 * count)}
    return pa.table({**columns, "timestamp": rng.integers(0, 9, 4 * count)})


def figures(users):
    rankable = users.rankable
    cases = users.cases(rankable[rankable % 3 > 0], 4)
    return [*users.names], [
        array.tolist() for array in (users.clicks, users.unknown, users.known.items, users.known.starts, users.status)
    ] + [cases.item_ids.tolist(), cases.candidate_ids.tolist(), users.negatives, users.ids, users.known.sha256]


@pytest.mark.parametrize("negatives", [None, 7, 246])
def test_users_through_the_disk_are_those_in_memory(negatives, tmp_path, monkeypatch):
    pyarrow.parquet.write_table(table(60), tmp_path / "clicks.parquet", row_group_size=50)
    monkeypatch.setattr("models.training.parquet._ROWS", 20)
    catalogue = Catalogue(250, ["", *map(str, range(40, 289))], {"seed": 5})
    through = read_users(tmp_path / "clicks.parquet", catalogue, negatives)
    assert isinstance(through.known.items.base.obj, mmap.mmap)
    assert [path.name for path in tmp_path.iterdir()] == ["clicks.parquet"]  # its files have no names any more
    monkeypatch.setattr(runs, "_BATCH_ROWS", 1000)
    monkeypatch.setattr(runs, "_RANGE_ROWS", 1000)
    monkeypatch.setattr(module, "_CLICKS_AT_ONCE", 1000)
    in_memory = read_users(tmp_path / "clicks.parquet", catalogue, negatives)
    assert not isinstance(in_memory.known.items.base, memoryview)
    assert figures(through) == figures(in_memory)


def test_a_user_with_most_of_the_clicks(tmp_path):
    rows = [f"robot,{at % 7},{at}" for at in range(40)] + ["a,1,1", "z,2,2"]
    (tmp_path / "clicks.csv").write_text("\n".join(["user,item,timestamp", *rows, ""]))
    users = read_users(tmp_path / "clicks.csv", Catalogue(250, None, {}))
    assert (users.names[:], users.clicks.tolist()) == (("a", "robot", "z"), [1, 40, 1])


def test_a_full_disk_and_a_bad_line_end_with_one_line_and_no_files(tmp_path, monkeypatch):
    rows = [f"u{at},1,{at}" for at in range(40)]
    data = tmp_path / "clicks.csv"
    data.write_text("\n".join(["user,item,timestamp", *rows, "u,1,never", ""]))
    with pytest.raises(DataError, match="line 42: 'never' is not a time"):
        read_users(data, Catalogue(250, None, {}))
    data.write_text("\n".join(["user,item,timestamp", *rows, ""]))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pa, "OSFile", full)
    with pytest.raises(OutputError, match="No space left on device; make room there, or name another"):
        read_users(data, Catalogue(250, None, {}))
    assert list(tmp_path.iterdir()) == [data]
