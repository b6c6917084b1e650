"""Many lines at once give what they give one by one; Parquet; and what columns are called."""

import hashlib
import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.training import readers
from models.training.columns import BY_NAME, parse_columns
from models.training.data import read_interactions
from models.training.readers import DataError, read_table
from safeio.errors import BadInputError

TIMES = {
    "whole": ["3", "20", "1234567890", "9223372036854775807", "-5"],
    "decimals": ["1700000000.25", "1700000000.250", "3.000", "0.1234567891"],
    "dates": ["2020-01-01 10:11:12", "2020-01-01T10:11:12.5", "1969-12-31 23:59:59.999999999", "2020-01-01"],
    "offsets": ["2020-01-01T10:11:12Z", "2020-01-01T11:11:12+01:00", "2020-01-01 10:11:12.000000001+0000"],
}
IDS = [
    "1",
    "01",
    "1_0",
    "NA",
    "",
    " i",
    "i ",
    "\u00a0",
    "\u3000x",
    "\x1f",
    "\ufeffx",
    "é",
    "a,b",
    'say "x"',
    "x" * 20_000,
]
MISHAPS = [
    "",
    "  ",
    "u,i",
    "u,i,3,4,5",
    'u,"i,3,4',
    "u,i,3,4\r",
    "u,i,\0,4",
    "u,i,nan,4",
    "u,i,3,0x10",
    "u,i,3,2020-02-30 10:11:12",
]


def written(seed: int) -> bytes:
    """A table as people write it, or nearly so."""
    draw = random.Random(seed)
    kind, quotes, rare = draw.choice(list(TIMES)), draw.choice([0, 0, 0.3, 1]), draw.choice([0, 0, 0.02])
    lines = ["user,item,rating,timestamp"]
    for _ in range(draw.choice([2, 40, 200])):
        ids = [draw.choice(IDS) if draw.random() < rare else f"i{draw.randrange(30)}" for _ in "ui"]
        cells = [*ids, draw.choice(["1", "2.5", "5e0", ".5"]), draw.choice(TIMES[kind][: draw.choice([1, 5])])]
        cells = ['"' + cell.replace('"', '""') + '"' if draw.random() < quotes else cell for cell in cells]
        lines.append(draw.choice(MISHAPS) if draw.random() < rare / 4 else ",".join(cells))
    return draw.choice(["\n", "\r\n"]).join([*lines, ""]).encode()


def outcome(path):
    try:
        table = read_table(path)
    except DataError as error:
        return str(error)
    columns = (table.user, table.item, table.time, table.rating)
    _, when = np.unique(table.time, return_inverse=True)
    return [column.tolist() for column in (*columns[:2], when, columns[3])], table.blank, table.sha256, table.item_names


def test_lines_at_once_give_what_they_give_one_by_one(tmp_path, monkeypatch):
    refused, at_once = 0, 0
    for seed in range(90):
        path = tmp_path / "data.csv"
        path.write_bytes(written(seed))
        with monkeypatch.context() as one_by_one:
            one_by_one.setattr(readers, "parse_block", lambda block, cells: None)
            expected = outcome(path)
        assert outcome(path) == expected, seed
        with monkeypatch.context() as small:  # blocks end anywhere, and are cut around what is unusual
            small.setattr(readers, "_BLOCK", 700)
            small.setattr(readers, "_FEW", 60)
            assert outcome(path) == expected, seed
        refused += isinstance(expected, str)
        at_once += (
            readers.parse_block(
                path.read_bytes().partition(b"\n")[2], readers.tell_layout("user,item,rating,timestamp").cells
            )
            is not None
        )
    assert min(refused, 90 - refused) > 10
    assert at_once > 35


def test_only_the_lines_around_what_is_unusual_are_read_one_by_one(tmp_path, monkeypatch):
    rows = [f"u{n % 997},i{n % 313},{n}" for n in range(60_000)]
    rows[40_000] = ""
    (tmp_path / "data.csv").write_text("\n".join(["user,item,time", *rows]))
    read, count = readers._Lines._read_line, []
    monkeypatch.setattr(readers._Lines, "_read_line", lambda lines, line: (count.append(1), read(lines, line)))
    table = read_table(tmp_path / "data.csv")
    assert (len(table.user), table.blank) == (59_999, 1)
    assert len(count) < 8_000
    (tmp_path / "data.csv").write_text("\n".join(["user,item,time", *rows[:50_000], "u,i,x"]))
    with pytest.raises(DataError, match="line 50002: 'x' is not a time"):
        read_table(tmp_path / "data.csv")


def test_a_file_gives_the_interactions_that_it_always_gave(tmp_path):
    draw = np.random.default_rng(7)
    rows = [f"{u},{i},{r},{t}" for u, i, r, t in draw.integers(0, [40, 300, 5, 50], (3000, 4)).tolist()]
    (tmp_path / "data.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]))
    data = read_interactions(tmp_path / "data.csv", 5)
    digest = hashlib.sha256(data.items.astype("<i4").tobytes() + data.starts.astype("<i8").tobytes()).hexdigest()
    assert data.notes == ("5 repetitions of a user, item and time skipped",)
    assert (
        digest == "5692c5d5b17e390594189f83202a23af0b6294ab6e76fbc877e7c4166d4a45d7"
    )  # of the reader that took one line after the other


COLUMNS = {
    "customer_id,sku,created_at": ("", None),
    "visitorId,Product ID,event_time": ("", None),
    "session_id,customer_id,isbn,ts,updated_at": ("", None),  # a session is a user where nobody else is
    "user_id:token,item_id:token,rating:float,timestamp:float": ("", None),
    "who,what,when,score": ("user=who,item=what", None),
    "user,item,sku,time": ("item=sku", None),
    "customer,visitor,item,time": (
        "",
        "'customer' and 'visitor' could each be the column for the user; say which: --columns user=",
    ),
    "user,item,created_at,event_time": ("", "could each be the column for the time"),
    "user,what,time": ("", "no column for the item: expected a header with item, movieId"),
    "user,item,time": ("user=uid", "no column 'uid', which --columns names for the user; found 'user, item, time'"),
}


@pytest.mark.parametrize("header", COLUMNS)
def test_columns_are_found_by_their_names_or_named(header, tmp_path):
    given, message = COLUMNS[header]
    columns = parse_columns(given) if given else BY_NAME
    names = header.split(",")
    (tmp_path / "data.csv").write_text(f"{header}\n{','.join('123456'[: len(names)])}\n")
    pq.write_table(pa.table({name: [str(place)] for place, name in enumerate(names, 1)}), tmp_path / "data.parquet")
    for path in (tmp_path / "data.csv", tmp_path / "data.parquet"):
        if message is None:
            item = next(name for name in ("sku", "isbn", "Product ID", "item_id:token", "what") if name in names)
            assert read_table(path, columns).item_names == (str(names.index(item) + 1),)
        else:
            with pytest.raises(DataError) as caught:
                read_table(path, columns)
            assert message.replace("a header with", "one of" if path.suffix == ".parquet" else "a header with") in str(
                caught.value
            )


@pytest.mark.parametrize("text", ["", "user", "user=", "who=x", "user=x,user=y", "user=x,item=x"])
def test_columns_that_are_not_named_rightly_are_refused(text):
    with pytest.raises(BadInputError, match="--columns must be user=NAME,item=NAME,time=NAME"):
        parse_columns(text)


def test_a_rating_is_not_wanted_where_all_else_is_named(tmp_path):
    (tmp_path / "data.csv").write_text("a,b,time,rating\n1,2,3,\n")
    with pytest.raises(DataError, match="the rating is empty"):
        read_table(tmp_path / "data.csv", parse_columns("user=a,item=b"))
    assert read_table(tmp_path / "data.csv", parse_columns("user=a,item=b,time=time")).rating is None


MOMENTS = np.array(["2020-01-01T00:00:01.5", "1960-01-01", "2020-01-01T00:00:01.5", "2020-01-02"], "datetime64[ns]")
PARQUET_TIMES = {
    "integers": pa.array([3, -2, 3, 2**62]),
    "floats": pa.array([1.5, -0.25, 1.5, 3.0]),
    "text": pa.array(
        ["2020-01-01T00:00:01.5Z", "1960-01-01T00:00:00Z", "2020-01-01T01:00:01.5+01:00", "2020-01-02T00:00:00Z"]
    ),
    "beyond int64": pa.array([(1 << 63) + 1, 5, (1 << 63) + 1, (1 << 64) - 1], pa.uint64()),
    "far apart": pa.array(["5", "-1e300", "5.0", "1e300"]),
    "nanoseconds": pa.array(MOMENTS),
    "microseconds in UTC": pa.array(MOMENTS.astype("datetime64[us]")).cast(pa.timestamp("us", "UTC")),
    "dates": pa.array(MOMENTS.astype("datetime64[D]")),
    "decimals": pa.array(["1.50", "-2.00", "1.50", "7.25"]).cast(pa.decimal128(10, 2)),
}


@pytest.mark.parametrize("kind", PARQUET_TIMES)
def test_parquet_is_a_table(kind, tmp_path):
    users = pa.array([7, 10, 7, 9])
    for items in (pa.array(["01", "1", "01", "x" * 10_000]), pa.array(["01", "1", "01", "é"]).dictionary_encode()):
        table = pa.table({"other": [[1]] * 4, "user_id": users, "item_id": items, "time": PARQUET_TIMES[kind]})
        pq.write_table(table, tmp_path / "data", row_group_size=3)
        read = read_table(tmp_path / "data")
        assert read.user.tolist() == [0, 2, 0, 1]
        assert read.item_names[:2] == ("01", "1")
        times = np.unique(read.time, return_inverse=True)[1].tolist()
        assert times == [1, 0, 1, 2]
        assert read.sha256 == hashlib.sha256((tmp_path / "data").read_bytes()).hexdigest()
    assert read_interactions(tmp_path / "data", 0).notes == ("1 repetitions of a user, item and time skipped",)


ROW = {"user": ["u", "v"], "item": ["i", "j"], "time": [1, 2]}
PARQUET_FAULTS = {
    "a null": ({"user": ["u", None]}, ", row 2: the user is empty"),
    "an empty id": ({"item": ["i", " "]}, ", row 2: the item is empty"),
    "a long id": ({"item": ["x" * 20_000, "j"]}, ", row 1: the item has 20000 characters, more than"),
    "a float for an id": (
        {"item": [1.0, 2.0]},
        "the column 'item' for the item holds double; it must hold text or whole",
    ),
    "a list": ({"time": [[1], [2]]}, "the column 'time' for the time holds list<"),
    "no time": ({"time": ["1", "x"]}, ", row 2: 'x' is not a time"),
    "two kinds of time": ({"time": ["1", "2020-01-01"]}, ", row 2: '2020-01-01' is among dates"),
    "an infinite time": ({"time": [1.0, np.inf]}, ", row 2: 'inf' is not a time"),
    "no rating": ({"rating": [1.0, np.nan]}, ", row 2: nan is not a rating"),
    "a rating that is none": ({"rating": ["1", "good"]}, ", row 2: 'good' is not a rating"),
    "bytes for text": ({"user": [b"\xff", b"u"]}, "the column 'user' for the user holds binary"),
    "nothing": ({name: [] for name in ROW}, "has no interactions"),
}


@pytest.mark.parametrize("name", PARQUET_FAULTS)
def test_a_row_of_parquet_that_does_not_follow_is_named(name, tmp_path):
    changes, message = PARQUET_FAULTS[name]
    columns = {
        column: pa.array(values) if values else pa.array([], pa.string()) for column, values in (ROW | changes).items()
    }
    pq.write_table(pa.table(columns), tmp_path / "data")
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "data")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "data"))


def test_damaged_parquet_is_one_line(tmp_path):
    pq.write_table(pa.table({name: values * 500 for name, values in ROW.items()}), tmp_path / "data")
    whole = (tmp_path / "data").read_bytes()
    draw = random.Random(0)
    damaged = [whole[:4], whole[: len(whole) // 2], whole[:-9]]
    for _ in range(60):
        bent = bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            bent[draw.randrange(4, len(bent))] = draw.randrange(256)
        damaged.append(bytes(bent))
    for content in damaged:
        (tmp_path / "data").write_bytes(content)
        try:
            read_table(tmp_path / "data")
        except DataError as error:
            assert "\n" not in str(error)
