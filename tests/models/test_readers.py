"""Interaction files as they are published: the same clicks in every layout, and what is wrong with a line."""

import gzip
import json
import os
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, strategies

from models.training.data import read_interactions
from models.training.names import rank_names
from models.training.readers import MAX_LINE, DataError, read_table
from models.training.settings import Filters
from models.training.times import Times

# user, item, rating, time; u1 clicks i1, i2, i1 in the order of time, which is not that of the file
CLICKS = [
    ("u1", "i2", 4.0, 20),
    ("u2", "i3", 5.0, 30),
    ("u1", "i1", 3.0, 10),
    ("u1", "i1", 2.0, 40),
    ("u3", "i1", 1.0, 5),
]
DATES = {5: "1970-01-01 00:00:05", 10: "1970-01-01 00:00:10", 20: "1970-01-01 00:00:20", 30: "1970-01-01 00:00:30"}
DATES[40] = "1970-01-01 00:00:40"


def lines(form, header=""):
    return (header + "".join(form(*click) + "\n" for click in CLICKS)).encode()


def ids(user, item):
    return int(user[1:]), int(item[1:])


def asin(item):
    return f"B00000000{item[1:]}"


LAYOUTS = {
    "ratings.dat": lines(lambda u, i, r, t: "::".join(map(str, (*ids(u, i), int(r), t)))),
    "ratings.csv": lines(
        lambda u, i, r, t: f"{ids(u, i)[0]},{ids(u, i)[1]},{r},{t}", "userId,movieId,rating,timestamp\n"
    ),
    "ratings_Beauty.csv": lines(lambda u, i, r, t: f"A00000000{u},{asin(i)},{r},{t}"),
    "Beauty.csv": lines(lambda u, i, r, t: f"{asin(i)},A00000000{u.upper()},{r},{t}"),
    "Beauty-2023.csv": lines(lambda u, i, r, t: f"{u},{asin(i)},{r},{t}", "user_id,parent_asin,rating,timestamp\n"),
    "reviews.json": lines(
        lambda u, i, r, t: json.dumps(
            {"reviewerID": u, "asin": i, "overall": r, "unixReviewTime": t, "reviewText": "…"}
        )
    ),
    "Beauty.jsonl": lines(lambda u, i, r, t: json.dumps({"user_id": u, "parent_asin": i, "rating": r, "timestamp": t})),
    "yelp.json": lines(lambda u, i, r, t: json.dumps({"user_id": u, "business_id": i, "stars": r, "date": DATES[t]})),
    "plain.tsv": lines(lambda u, i, r, t: f"{u}\t{t}\t{i}", "user\ttimestamp\titem\n"),
    "u.data": lines(lambda u, i, r, t: f"{ids(u, i)[0]}\t{ids(u, i)[1]}\t{r:.0f}\t{t}"),
    "windows.csv": b"\xef\xbb\xbf" + lines(lambda u, i, r, t: f'"{u}","{i}",{t}\r', "user,item,timestamp\r\n"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_gives_the_same_clicks(name, packed, tmp_path):
    path = tmp_path / (name + ".gz" * packed)
    path.write_bytes(gzip.compress(LAYOUTS[name]) if packed else LAYOUTS[name])
    data = read_interactions(path, seed=0)
    assert (data.users, data.vocabulary, data.starts.tolist(), data.notes) == (3, 4, [0, 3, 4, 5], ())
    first, second, third, fourth, fifth = data.items.tolist()
    assert first == third == fifth
    assert len({first, second, fourth}) == 3
    table = read_table(path)
    rated = name not in ("plain.tsv", "windows.csv")
    assert (None if table.rating is None else table.rating.tolist()) == ([4, 5, 3, 2, 1] if rated else None)


def test_the_sha256_is_that_of_the_unpacked_content(tmp_path):
    (tmp_path / "a.tsv").write_bytes(LAYOUTS["plain.tsv"])
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(LAYOUTS["plain.tsv"]))
    one, two = (read_table(tmp_path / name) for name in ("a.tsv", "b.tsv.gz"))
    assert one.sha256 == two.sha256


CSV = b"user,item,rating,timestamp\n"
FAULTS = {
    "no time": (b"user,item,stars\nu,i,3\n", "line 1: no column for the time: expected a header with order, timestamp"),
    "unknown columns": (b"name,product,when\n", "found 'name, product, when'"),
    "a rating that is none": (CSV + b"u,i,3,4\nu,i,good,4\n", "line 3: 'good' is not a rating"),
    "an infinite rating": (CSV + b"u,i,inf,4\n", "line 2: 'inf' is not a rating"),
    "a cell less": (CSV + b"u,i,3,4\nu,i,3\n", "line 3: expected 4 columns, found 3"),
    "an open quote": (CSV + b'u,"i,3,4\n', "line 2: unexpected end of data"),
    "no user": (CSV + b",i,3,4\n", "line 2: the user is empty"),
    "half a rating.dat": (b"1::2::3::4\n1::2::3\n", "line 2: expected 4 columns, found 3"),
    "no JSON": (b'{"user_id": "u", "asin": "i", "timestamp": 3}\n{"user_id": \n', "line 2: Expecting value"),
    "no object": (b'{"user_id": "u", "asin": "i", "timestamp": 3}\n[1]\n', "line 2: expected a JSON object"),
    "no item": (b'{"user_id": "u", "timestamp": 3}\n', "line 1: no item: expected one of the keys item, movieId"),
    "a user that is a list": (b'{"user_id": ["u"], "asin": "i", "timestamp": 3}\n', "line 1: no user"),
    "a date that is none": (
        b'{"user_id": "u", "asin": "i", "date": "2020-13-01"}\n',
        "line 1: '2020-13-01' is not a date",
    ),
    "deep JSON": (b'{"user_id":' + b"[" * 100_000 + b"\n", "line 1: brackets are nested too deeply"),
    "nothing": (b"\n\n", "is empty; give a file with a user, an item and a time on each line"),
    "another key than before": (
        b'{"user": "u", "parent_asin": "i", "order": 3}\n{"user": "u", "asin": "i", "order": 3}\n',
        "line 2: no item: expected the key parent_asin, as on the first line, with a text or number",
    ),
    "a key twice among many": (
        json.dumps({f"k{number}": 0 for number in range(200_000)})[:-1].encode() + b', "k199999": 1}\n',
        "line 1: the key 'k199999' stands there more",
    ),
    "a key twice": (
        b'{"user": "u", "item": "i", "order": 3, "item": "j"}\n',
        "line 1: the key 'item' stands there more",
    ),
    "a column twice": (b"user,item,item,order\n", "line 1: the header has 2 columns called 'item'"),
    "a surrogate": (b'{"user": "\\ud83d", "item": "i", "order": 3}\n', "the user has half of a surrogate pair"),
    "NaN in JSON": (b'{"user": "u", "item": NaN, "order": 3}\n', "line 1: NaN is no number of JSON"),
    "an id without end": (CSV + b"u," + b"x" * 70_000 + b",3,4\n", "line 2: the item has 70000 characters, more than"),
    "a line without end": (CSV + b"x" * (MAX_LINE + 1), f"line 2: has more than {MAX_LINE} bytes"),
    "carriage returns alone": (b"user,item,order\ru,i,3\r", "line 1: a carriage return stands inside the line"),
    "endless carriage returns": (b"u,i,3\r" * (MAX_LINE // 4), "bytes; end lines with line feeds"),
    "a NUL": (CSV + b"u,\0,3,4\n", "line 2: a NUL stands in the line"),
    "UTF-16": ("user,item,order\n".encode("utf-16"), "line 1: byte 1 of the line is not UTF-8"),
    "bytes of Latin-1": (CSV + b"u,caf\xe9,3,4\n", "line 2: byte 6 of the line is not UTF-8; save the file as UTF-8"),
    "a number with other digits": (CSV + "u,i,3,\u0664\n".encode(), "line 2: '\u0664' is not a time"),
    "a rating in Python's way": (CSV + b"u,i,1_0,4\n", "line 2: '1_0' is not a rating"),
    "a time that is infinite": (CSV + b"u,i,3,inf\n", "line 2: 'inf' is not a time"),
    "an exponent without end": (
        CSV + b"u,i,3,1e1000000000000000000\n",
        "line 2: '1e1000000000000000000' is not a time",
    ),
    "an hour that is none": (CSV + b"u,i,3,2020-01-01T24:00\n", "line 2: '2020-01-01T24:00' is not a date"),
    "dates among numbers": (CSV + b"u,i,3,4\n\nu,i,3,2020-01-01\n", "line 4: '2020-01-01' is among dates without an"),
    "offsets on some dates": (
        CSV + b"u,i,3,2020-01-01 00:00Z\nu,i,3,2020-01-01 00:00\n",
        "line 3: '2020-01-01 00:00' is among dates without an offset from UTC, but the lines before have dates with an",
    ),
    "a time where the rating is": (
        b"1,2,874965478,5\n",
        "line 1: 8.74965e+08 is not a rating from 0 to 10, as the third column; put a header",
    ),
    "items first, and users of no known kind": (b"B00000000X,someone,5,1\n", "cannot be told; put a header"),
    "reviewers in both columns": (b"#oc-R1,#oc-R2,5,1\n", "cannot be told; put a header"),
    "products in both columns": (b"B000000001,0000000002,5,1\n", "cannot be told; put a header"),
    "a line the other way round": (
        b"u,i,5,1\nB00000000X,A00000000X,5,1\n",
        "line 2: user and item stand the other way round than on the first line",
    ),
    "a line the other way round in a file with items first": (
        b"B00000000X,#oc-R1,5,1\nA00000000X,B00000000X,5,1\n",
        "line 2: user and item stand the other way round than on the first line",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_line_that_does_not_follow_is_named(name, tmp_path):
    content, message = FAULTS[name]
    (tmp_path / "data").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_table(tmp_path / "data")
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "data"))
    assert "\n" not in str(caught.value)


IDS = [
    "1",
    "01",
    "001",
    "+1",
    "-0",
    "0",
    "1.0",
    "1e0",
    "1_0",
    "10",
    "\u0661",
    "A",
    "a",
    "\u00e9",
    "e\u0301",
    "\u00a01",
    "i" * 10_000,
]
WRITTEN = {
    "CSV": ("user,item,order\n", lambda name, n: f"u,{name},{n}\n"),
    "quoted": ("user,item,order\n", lambda name, n: f'u,"{name}",{n}\n'),
    "padded": ("user\titem\torder\n", lambda name, n: f"u\t {name}  \t{n}\n"),
    "JSON": ("", lambda name, n: json.dumps({"user": "u", "item": name, "order": n}) + "\n"),
    "dat": ("", lambda name, n: f"u::{name}::5::{n}\n"),
}


@pytest.mark.parametrize("way", WRITTEN)
def test_ids_are_the_text_that_stands_there(way, tmp_path):
    head, line = WRITTEN[way]
    (tmp_path / "data").write_text(head + "".join(line(name, n) for n, name in enumerate([*IDS, *IDS])), "utf-8")
    item = read_table(tmp_path / "data").item.tolist()
    assert item == [sorted(IDS).index(name) for name in [*IDS, *IDS]]  # their order is that of code points


def test_ids_that_are_numbers_in_json_are_their_texts(tmp_path):
    ids = ["1", "1.0", "1e0", "9007199254740993", "9007199254740992", "1" + "0" * 5000, "0." + "3" * 40, '"1"']
    lines = "".join(f'{{"item": {one}, "user": "u", "order": {n}}}\n' for n, one in enumerate(ids))
    (tmp_path / "data").write_text(lines)
    item = read_table(tmp_path / "data").item
    assert len(set(item[:7].tolist())) == 7
    assert item[7] == item[0]


def test_names_that_are_whole_numbers_are_in_the_order_of_numbers():
    def ordered(*names):
        rank = rank_names(pa.array(names, pa.large_string())).tolist()
        return [names[rank.index(place)] for place in range(len(names))]

    assert ordered("10", "9", "0", "-3", "9223372036854775807") == ["-3", "0", "9", "10", "9223372036854775807"]
    for other in ("9223372036854775808", "09", "+9", "-0", "x", "\u0669"):  # as text, as soon as one is none
        assert ordered("10", "9", other) == sorted(["10", "9", other])


EXACT = strategies.one_of(
    strategies.integers(-(2**70), 2**70).map(lambda value: (str(value), Fraction(value))),
    strategies.tuples(strategies.integers(-(10**25), 10**25), strategies.integers(-30, 30)).map(
        lambda pair: (f"{pair[0]}e{pair[1]}", pair[0] * Fraction(10) ** pair[1])
    ),
    strategies.tuples(strategies.integers(0, 2**60), strategies.text("0123456789", min_size=1, max_size=30)).map(
        lambda pair: (f"{pair[0]}.{pair[1]}", pair[0] + Fraction(int(pair[1]), 10 ** len(pair[1])))
    ),
)


@given(strategies.lists(EXACT, min_size=1, max_size=8))
def test_numbers_are_in_the_order_of_their_exact_values(pairs):
    times = Times()
    for text, _ in pairs:
        times.append(text)
    column, values = times.column().tolist(), [value for _, value in pairs]
    for one, left in zip(column, values, strict=True):
        assert [one < other for other in column] == [left < right for right in values]


def test_dates_are_in_the_order_of_their_moments_to_the_last_digit():
    rising = [
        "0001-01-01T00:00:00+23:59",
        "1969-12-31T23:59:59.9999999999+00:00",
        "1970-01-01 00:00Z",
        "2020-01-01T00:30:00+02:00",  # 22:30 the day before
        "2019-12-31T23:00:00.000000001Z",
        "2019-12-31T23:00:00.0000000011z",
        "2019-12-31t19:00:01-04",
        "2019-12-31 23:00:02+00:00:00",
        "2020-01-01T00:00:00-0530",
        "9999-12-31T23:59:59,5-23:59",
    ]
    times = Times()
    for text in rising:
        times.append(text)
    assert times.column().tolist() == list(range(len(rising)))
    for same in (
        ["2020-01-01T00:30+02:00", "2019-12-31T22:30:00.000Z"],
        ["2020-02-29", "2020-02-29 00:00"],
        ["1e3", "1000.0"],
    ):
        times = Times()
        for text in same:
            times.append(text)
        assert len(set(times.column().tolist())) == 1


def test_amazons_users_and_items_are_told_by_their_ids(tmp_path):
    users, items = ["A00000000U", "#oc-R1", "#oc-R2"], ["B00000000X", "0000000001", "000000000X"]
    for first in ("user", "item"):
        rows = [(users[n], items[m]) for n in range(3) for m in range(3)]
        lines = [f"{u},{i},5,{n}" if first == "user" else f"{i},{u},5,{n}" for n, (u, i) in enumerate(rows)]
        (tmp_path / "data").write_text("\n".join(lines[1:] + lines[:1]))
        table = read_table(tmp_path / "data")
        assert table.user.tolist() == [sorted(users).index(u) for u, _ in rows[1:] + rows[:1]]
        assert table.item.tolist() == [sorted(items).index(i) for _, i in rows[1:] + rows[:1]]


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # nobody writes to it: it must not be waited for
    for name in ("pipe", ".", "none"):
        with pytest.raises(DataError, match="give a file of interactions"):
            read_table(tmp_path / name)


def test_what_is_skipped_is_counted(tmp_path):
    (tmp_path / "data.csv").write_bytes(CSV + b"u,i,3,4\n\nu,i,3,4\nu,j,3,4\n  \nu,i,3,5\n")
    data = read_interactions(tmp_path / "data.csv", 0)
    assert data.notes == ("2 blank lines skipped", "1 repetitions of a user, item and time skipped")
    assert len(data.items) == 3
    assert data.items[0] == data.items[2] != data.items[1]  # i and j at the same time stay as they stand in the file


def test_filters_hold_together(tmp_path):
    # Item 9 goes for its one click, then user 3 for the two that are left, then item 5 that only user 3 had twice.
    clicks = [(1, 7), (1, 8), (1, 7), (2, 7), (2, 8), (2, 8), (3, 5), (3, 5), (3, 9)]
    rows = [f"{user},{item},4,{time}" for time, (user, item) in enumerate(clicks)] + ["1,7,1,99"]
    (tmp_path / "data.csv").write_text("user,item,rating,timestamp\n" + "\n".join(rows))
    filters = Filters(min_rating=2, min_user_clicks=3, min_item_clicks=2)
    data = read_interactions(tmp_path / "data.csv", 0, filters)
    assert (data.users, data.vocabulary, len(data.items)) == (2, 3, 6)
    assert data.notes == (
        "1 interactions rated below 2 left out",
        "3 interactions left out, so that there are at least 3 clicks per user and 2 per item",
    )
    with pytest.raises(DataError, match="no interaction is left after the filters; lower them"):
        read_interactions(tmp_path / "data.csv", 0, Filters(min_user_clicks=5))
    (tmp_path / "plain.csv").write_text("user,item,timestamp\n1,2,3\n")
    with pytest.raises(DataError, match="has no ratings to compare with --min-rating"):
        read_interactions(tmp_path / "plain.csv", 0, Filters(min_rating=2))


def test_item_ids_do_not_depend_on_the_layout(tmp_path):
    for name in ("ratings.dat", "ratings.csv", "u.data"):
        (tmp_path / name).write_bytes(LAYOUTS[name])
    seen = [read_interactions(tmp_path / name, 4).items for name in ("ratings.dat", "ratings.csv", "u.data")]
    assert np.array_equal(seen[0], seen[1])
    assert np.array_equal(seen[0], seen[2])
