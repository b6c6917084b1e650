"""Interaction files as they are published: the same clicks in every layout, and what is wrong with a line."""

import gzip
import json

import numpy as np
import pytest

from models.training.data import Filters, read_interactions
from models.training.readers import DataError, read_table

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
    "deep JSON": (b'{"user_id":' + b"[" * 100_000 + b"\n", "line 1: "),
    "nothing": (b"\n\n", "is empty; give a file with a user, an item and a time on each line"),
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
