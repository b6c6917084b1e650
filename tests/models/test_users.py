"""All users of a file, as a trained model meets them: the draw of the training, whoever else is asked for."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from models.training import users as module
from models.training.data import read_interactions
from models.training.evaluation import ranking_cases, split_to_train_on
from models.training.gather import DataError
from models.training.users import STATUSES, Catalogue, read_users

ITEMS = 300


def table(users, seed=0):
    rng = np.random.default_rng(seed)
    rows = [(user, int(item), time) for user in users for time, item in enumerate(rng.integers(1, ITEMS, 5))]
    return pa.table(dict(zip(("user", "item", "timestamp"), zip(*rows, strict=True), strict=True)))


@pytest.fixture
def clicks(tmp_path):
    path = tmp_path / "clicks.parquet"
    pyarrow.parquet.write_table(table(range(100)), path)
    return path


def trained_on(path, seed=3):
    """Return the catalogue of a model that was trained on a file and has no items.tsv."""
    read = read_interactions(path, seed)
    training = {"seed": seed, "data_sha256": read.sha256, "interactions": len(read.items)}
    return Catalogue(read.vocabulary, None, training), read


def test_cases_are_those_of_the_test_of_the_training(clicks):
    catalogue, read = trained_on(clicks)
    users = read_users(clicks, catalogue)
    split, negatives = split_to_train_on(read)
    test = ranking_cases(read, split.test, 4, [3, 2], negatives.test)
    cases = users.cases(users.rankable, 4)
    assert users.ids == "as_trained" and users.negatives == negatives.test
    assert users.names[:] == tuple(map(str, range(100)))
    np.testing.assert_array_equal(cases.item_ids, test.item_ids)
    np.testing.assert_array_equal(cases.candidate_ids, test.candidate_ids)


def test_ids_of_a_catalogue_and_of_rows_are_the_same_items(clicks):
    names = ["", *map(str, range(1, ITEMS))]
    by_row = read_users(clicks, Catalogue(ITEMS, None, {}))
    by_name = read_users(clicks, Catalogue(ITEMS, names, {}))
    reversed_rows = read_users(clicks, Catalogue(ITEMS, ["", *names[:0:-1]], {}))
    assert (by_row.ids, by_name.ids) == ("rows", "raw")
    np.testing.assert_array_equal(by_row.known.items, by_name.known.items)
    np.testing.assert_array_equal(ITEMS - by_row.known.items, reversed_rows.known.items)


def test_a_case_does_not_depend_on_who_else_is_asked_for(clicks, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 16)
    users = read_users(clicks, Catalogue(ITEMS, None, {}))
    whole = users.cases(users.rankable, 4)
    some = np.array([3, 15, 16, 17, 47, 48, 99])
    again = read_users(clicks, Catalogue(ITEMS, None, {})).cases(some, 4)
    np.testing.assert_array_equal(again.candidate_ids, whole.candidate_ids[some])
    np.testing.assert_array_equal(again.item_ids, whole.item_ids[some])
    for user, candidates in enumerate(whole.candidate_ids):
        clicked = users.known.items[users.known.starts[user] : users.known.starts[user + 1]]
        assert candidates[0] == clicked[-1] and not set(candidates[1:]) & set(clicked)
        assert len(set(candidates)) == len(candidates)
    assert users.cases(np.zeros(0, int), 4).candidate_ids.shape == (0, 1 + users.negatives)


def test_a_folder_of_parquet_files_is_one_table(clicks, tmp_path):
    folder = tmp_path / "clicks"
    (folder / "day=2").mkdir(parents=True)
    whole = pyarrow.parquet.read_table(clicks)
    pyarrow.parquet.write_table(whole.slice(0, 123), folder / "part-0.parquet")
    pyarrow.parquet.write_table(whole.slice(0, 0), folder / "part-1.parquet")
    pyarrow.parquet.write_table(whole.slice(123), folder / "day=2" / "part-0.parquet")
    (folder / "_SUCCESS").touch()
    (folder / "_part.parquet").write_bytes(b"unfinished")
    (folder / "link.parquet").symlink_to(clicks)
    one, several = (read_users(path, Catalogue(ITEMS, None, {})) for path in (clicks, folder))
    np.testing.assert_array_equal(one.known.items, several.known.items)
    assert one.names[:] == several.names[:] and one.known.sha256 != several.known.sha256
    wrong = whole.slice(0, 9).to_pylist()
    wrong[4]["item"] = None
    pyarrow.parquet.write_table(pa.Table.from_pylist(wrong), folder / "part-2.parquet")
    with pytest.raises(DataError, match=r"part-2.parquet, row 5: the item is empty"):
        read_users(folder, Catalogue(ITEMS, None, {}))
    pyarrow.parquet.write_table(whole.append_column("rating", pa.array([1.0] * len(whole))), folder / "part-2.parquet")
    with pytest.raises(DataError, match="has other columns than"):
        read_users(folder, Catalogue(ITEMS, None, {}))
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(DataError, match="has no Parquet files with interactions"):
        read_users(empty, Catalogue(ITEMS, None, {}))


def test_as_many_negatives_as_are_asked_for_or_none(clicks):
    users = read_users(clicks, Catalogue(ITEMS, None, {}), negatives=ITEMS - 5)
    counts = np.bincount(users.status, minlength=len(STATUSES))
    assert 0 < counts[STATUSES.index("all_clicked")] < 100
    assert users.cases(users.rankable[:2], 4).candidate_ids.shape == (2, ITEMS - 4)
