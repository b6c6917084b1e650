"""All users of a small file of clicks through a small model: by hand, beside parity, and after kills."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import tiny_models
import torch
from commands import run_here

from exporter import pipeline
from exporter.artifact import store as artifacts
from exporter.fleet import store
from exporter.parity.users import compare_users
from exporter.pipeline import fleet_summary, fleet_torch, fleet_worker
from models import checkpoint
from models.zoo import load_spec

ROOT = Path(__file__).resolve().parents[2]
ORDINARY = 2_300
LONG = "\u202e<b>" + "z" * 300
ODD = {
    "one": ["3"],
    LONG: ["3"],
    "two": ["4", "5"],
    "stranger": ["x1", "x2", "x3"],
    "half": ["6", "x1", "7", "8"],
    "nearly": ["x1", "9"],
    "robot": [str(1 + click % 5) for click in range(10_000)],
    "everything": [str(row) for row in range(1, tiny_models.VOCABULARY)],
}
USERS = ORDINARY + len(ODD)


def write_clicks(path, others=ODD):
    rng = np.random.default_rng(0)
    clicks = {f"u{user:05}": rng.integers(1, 60, rng.integers(3, 9)).tolist() for user in range(ORDINARY)} | others
    lines = [f"{user},{item},{time}" for user, items in clicks.items() for time, item in enumerate(items)]
    path.write_text("\n".join(["user,item,timestamp", *lines, ""]))
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_models.write("scn", tmp_path_factory.mktemp("model") / "checkpoint")


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    return write_clicks(tmp_path_factory.mktemp("clicks") / "clicks.csv")


def request(model, clicks, output, **others):
    return pipeline.FleetRequest("scn", clicks, "onnx", output, checkpoint=model, workers=2, **others)


@pytest.fixture(scope="module")
def run(model, clicks, tmp_path_factory):
    """A run to its end, and its folder."""
    output = tmp_path_factory.mktemp("run") / "fleet"
    return pipeline.fleet(request(model, clicks, output), lambda _: None), output


def rows_of(output):
    parts = sorted((output / "users").iterdir())
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def artifact_of(output):
    return output / "artifact" / json.loads((output / "plan.json").read_text())["artifact"]


def test_every_user_has_one_row_and_the_odd_ones_are_named(run):
    result, output = run
    rows = rows_of(output)
    assert [row["user"] for row in rows] == sorted({row["user"] for row in rows}) and len(rows) == USERS
    odd = {row["user"]: row for row in rows if row["user"] in ODD}
    assert {user: row["status"] for user, row in odd.items()} == {
        "one": "one_click",
        LONG: "one_click",
        "two": "ranked",
        "stranger": "unknown_items",
        "half": "ranked",
        "nearly": "unknown_items",
        "robot": "ranked",
        "everything": "all_clicked",
    }
    assert (odd["half"]["clicks"], odd["half"]["unknown_clicks"]) == (4, 1)
    for row in rows:
        assert (row["verdict"] is None) == (row["status"] != "ranked") == (row["rank_artifact"] is None)
    document = result.document
    assert document["users"] == {"all": USERS, **Counter(row["status"] for row in rows)}
    assert document["clicks"] == {
        "unknown": 5,
        "users_with_unknown": 3,
        "most": {"clicks": 10_000, "user": "robot"},
    }
    assert document["verdicts"] == {"pass": USERS - 5, "fail": 0, "unverified": 0}
    assert (document["verdict"], result.exit_code) == ("pass", 0)
    assert json.loads((output / "summary.json").read_text()) == document


def test_the_summary_counts_the_rows_and_names_the_odd_ones(run):
    result, output = run
    rows, document = rows_of(output), result.document
    assert document["users_named"] == {
        "one_click": ["one", f"{LONG[:100]}…"],
        "unknown_items": ["nearly", "stranger"],
        "all_clicked": ["everything"],
    }
    shown = {one["name"]: one for one in document["distributions"]}
    assert set(shown) == {"clicks", "max_abs_error", "rank_change", "could_flip", "top10"}
    ranked = [row for row in rows if row["status"] == "ranked"]
    assert sum(shown["clicks"]["counts"]) == USERS
    assert dict(zip(shown["clicks"]["labels"], shown["clicks"]["counts"], strict=True))["1,000 and more"] == 1
    errors = [row["max_abs_error"] for row in ranked]
    counted, _ = np.histogram(errors, shown["max_abs_error"]["edges"])
    assert counted.tolist() == shown["max_abs_error"]["counts"] and counted.sum() == len(ranked)
    assert shown["max_abs_error"]["marks"] == [{"label": "allowed", "value": 1e-4}]
    assert shown["top10"]["labels"] == ["10 of 10"] and shown["top10"]["counts"] == [len(ranked)]
    clicked = document["clicked_next"]
    assert clicked["rank"]["same"] == sum(row["rank_artifact"] == row["rank_torch"] for row in ranked)
    by_clicks = {}
    for row in ranked:
        known = row["clicks"] - row["unknown_clicks"]
        label = next(
            label
            for least, label in ((1000, "1,000 and more"), (5, "5 to 9"), (3, "3 to 4"), (2, "2"))
            if known >= least
        )
        by_clicks.setdefault(label, []).append(1 / np.log2(row["rank_torch"] + 1) if row["rank_torch"] <= 10 else 0)
    assert {group["clicks"]: group["ndcg10"]["torch"] for group in clicked["by_known_clicks"]} == pytest.approx(
        {label: np.mean(gains) for label, gains in by_clicks.items()}
    )
    page = (output / "summary.html").read_text()
    assert (
        "nearly, stranger" in page
        and r"one, \u202e&lt;b&gt;zz" in page
        and page.count("<svg") == 5
        and "<script" not in page
    )


def test_one_user_by_hand(run, model):
    from models.training.users import Catalogue, read_users

    _, output = run
    held = checkpoint.read(model)
    network = checkpoint.build(held, load_spec("scn"))
    users = read_users(CLICKS[0], Catalogue(tiny_models.VOCABULARY, None, {}))
    for name in ("u00007", "half", "robot", "two"):
        user = users.names.index(name)
        cases = users.cases(np.array([user]), tiny_models.LENGTH)
        history, candidates = cases.item_ids[0].tolist(), cases.candidate_ids[0].tolist()
        known = [int(item) for item in CLICKS[1][name] if str(item).isdecimal()]
        assert [item for item in history if item] == known[:-1][-tiny_models.LENGTH :]
        assert candidates[0] == known[-1] and len(set(candidates)) == len(candidates)
        assert not set(candidates[1:]) & set(known)
        with torch.no_grad():
            scores = network(torch.tensor([history]), torch.tensor([candidates]))[0].tolist()
        row = next(row for row in rows_of(output) if row["user"] == name)
        assert row["rank_torch"] == 1 + sum(score >= scores[0] for score in scores[1:])
        assert row["rank_artifact"] == row["rank_torch"] and row["top10_overlap"] == 1.0
        assert 0 <= row["max_abs_error"] <= row["allowed_error"] and row["verdict"] == "pass"


CLICKS = []


@pytest.fixture(scope="module", autouse=True)
def written(clicks):
    lines = [line.split(",") for line in clicks.read_text().splitlines()[1:]]
    by_user = {}
    for user, item, _ in lines:
        by_user.setdefault(user, []).append(item)
    CLICKS[:] = [clicks, by_user]


def test_golden_users_get_the_figures_of_parity(run, model):
    _, output = run
    folder = artifact_of(output)
    manifest, golden = artifacts.read_manifest(folder), artifacts.read_golden(folder)
    artifact = fleet_worker.load_artifact(folder)
    item_ids, candidate_ids = (golden.inputs[name][:, 0] for name in ("item_ids", "candidate_ids"))
    own, unsettled = artifact.scores(item_ids, candidate_ids)
    expected = golden.outputs["scores"].reshape(own.shape)
    figures = compare_users(expected, own, "fp32", float(abs(expected).max()))
    assert float(figures.error.max()) == manifest.parity.max_abs_error
    assert float(figures.overlap.mean()) == manifest.parity.top10_overlap
    assert int(figures.could_flip.sum()) == manifest.parity.could_flip
    assert max(figures.allowed) == manifest.parity.tolerance.max_abs_error["scores"]
    assert figures.within.all() and not unsettled.any()
    network = checkpoint.build(checkpoint.read(model), load_spec("scn"))
    together = fleet_torch.batched(network)(item_ids, candidate_ids)
    assert compare_users(expected, together, "fp32", 1.0).within.all()


def test_scores_that_are_no_numbers_fail():
    expected = np.arange(24, dtype=np.float32).reshape(2, 12)
    actual = expected.copy()
    actual[1, 3] = np.nan
    figures = compare_users(expected, actual, "fp32", 23.0)
    assert figures.within.tolist() == [True, False] and figures.error.tolist() == [0.0, np.inf]


def test_a_sample_judges_each_of_its_users_as_the_whole_run_does(run, model, clicks, tmp_path):
    _, output = run
    pipeline.fleet(request(model, clicks, tmp_path / "some", sample=200), lambda _: None)
    whole = {row["user"]: row for row in rows_of(output)}
    some = rows_of(tmp_path / "some")
    exact = ("status", "clicks", "unknown_clicks", "rank_artifact", "rank_torch", "verdict")
    assert len(some) == 200
    assert all(row[name] == whole[row["user"]][name] for row in some for name in exact)


ENDED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet
from exporter import pipeline
from exporter.fleet import store

how, checkpoint, clicks, output = sys.argv[1:]
write, write_table = store.Run.write, pyarrow.parquet.write_table
written = []

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def then_end(self, shard, table):
    write(self, shard, table)
    written.append(shard)
    if how == "after":
        end()

def half(table, file, **options):
    if written:
        file.write(b"PAR1 and no more")
        file.flush()
        end()
    write_table(table, file, **options)

store.Run.write = then_end
if how == "within":
    pyarrow.parquet.write_table = half
request = pipeline.FleetRequest("scn", Path(clicks), "onnx", Path(output), checkpoint=Path(checkpoint), workers=2)
pipeline.fleet(request, lambda _: None)
"""


@pytest.mark.parametrize("how", ["within", "after"])
def test_a_killed_run_goes_on_and_no_user_is_lost_or_doubled(how, run, model, clicks, tmp_path):
    _, whole = run
    output = tmp_path / "fleet"
    done = subprocess.run(
        [sys.executable, "-c", ENDED, how, model, clicks, output],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    assert len(list((output / "users").glob("part-*.parquet"))) == 1
    assert not (output / "summary.json").exists()
    result = pipeline.fleet(request(model, clicks, output), lambda _: None)
    assert result.document["run"]["parts"] == 3 and result.document["run"]["users"] < USERS
    assert rows_of(output) == rows_of(whole)
    assert {path.name for path in output.iterdir()} == {
        "plan.json",
        "summary.json",
        "summary.html",
        "artifact",
        "users",
    }
    assert all(path.name.startswith("part-") for path in (output / "users").iterdir())
    again = pipeline.fleet(request(model, clicks, output), lambda _: None)
    assert again.document["run"] == {**result.document["run"], "pace_of": "an earlier command"}
    assert result.document["run"]["pace_of"] == "this command"
    (output / "summary.json").write_text('{"run": {"users": true, "seconds": "1", "workers": -1}}')
    unknown = pipeline.fleet(request(model, clicks, output), lambda _: None).document["run"]
    assert (unknown["users"], unknown["users_per_second"]) == (0, None)
    same = ("users", "verdicts", "clicked_next", "top10", "max_abs_error")
    assert all(again.document[name] == result.document[name] for name in same)


def test_a_pace_is_of_the_seconds_told_so_that_the_next_command_tells_the_same():
    told = fleet_summary.of_run(None, 0, fleet_summary.Pace(1308, 2.94648, 2))
    again = fleet_summary.of_run(None, 0, fleet_summary.Pace(told["users"], told["seconds"], told["workers"]))
    assert again == told and told["users_per_second"] == 444.0  # 1308 / 2.946, not / 2.94648


def test_another_plan_is_refused_unless_it_is_forced(run, model, clicks, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["fleet", "scn", "--data", clicks, "--target", "onnx", "--checkpoint", model, "--output", "fleet"]
    assert run_here(capfd, *command, "--sample", "30").code == 0
    before = rows_of(tmp_path / "fleet")
    refused = run_here(capfd, *command, "--sample", "40")
    assert refused.code == 2 and "holds another run: sample 30 and not 40" in refused.error_line()
    assert rows_of(tmp_path / "fleet") == before
    plan = tmp_path / "fleet/plan.json"
    whole = json.loads(plan.read_text())
    torch_before = whole["versions"].pop("torch")
    plan.write_text(json.dumps({**whole, "versions": {**whole["versions"], "onnxruntime": "1.0"}}))
    refused = run_here(capfd, *command, "--sample", "30")
    line = refused.error_line()
    assert f"versions onnxruntime 1.0 and not {whole['versions']['onnxruntime']}" in line
    assert f"versions torch nothing and not {torch_before}" in line and line.count(" and not ") == 2
    assert "all." not in run_here(capfd, "fleet", "--help").out.split("--target")[1].split("--output")[0].split()
    forced = run_here(capfd, *command, "--sample", "40", "--force", "--json")
    assert forced.code == 0 and forced.document["users"]["all"] == 40
    shown = run_here(capfd, *command, "--sample", "40", "--force")
    assert shown.code == 0 and "verdict  pass" in shown.out and "0 parts" not in shown.out
    assert f"users    40 of {USERS:,} users, drawn: 4" in shown.out and "ids      taken as rows" in shown.out
    assert "ids are rows of its item table, 1 to" in shown.err
    assert (forced.document["ids"], forced.document["drawn_of"]) == ("rows", USERS)
    candidates = forced.document["clicked_next"]["candidates"]
    assert candidates == json.loads((tmp_path / "fleet/plan.json").read_text())["candidates"]
    assert f"ranked among {candidates} items: it and {candidates - 1} never clicked" in shown.out
    page = (tmp_path / "fleet/summary.html").read_text()
    told = (f"40 of {USERS:,} users, drawn", "taken as rows", f"ranked among {candidates} items", "no clicks before")
    assert all(words in page for words in told)
    changed = next(artifact_of(tmp_path / "fleet").glob("model.onnx"))
    changed.write_bytes(changed.read_bytes()[:-1])
    refused = run_here(capfd, *command, "--sample", "40")
    assert refused.code == 2 and "its artifact is not the one that was made for it" in refused.error_line()


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the whole run, to be changed."""
    return Path(shutil.copytree(run[1], tmp_path / "fleet"))


@pytest.mark.parametrize("name", ["manifest.json", "golden.npz", "README.md", "reference.pt2"])
def test_nothing_that_was_exported_is_believed_when_it_changed(name, model, clicks, copy):
    changed = copy / name if name == store.REFERENCE else artifact_of(copy) / name
    changed.write_bytes((changed.read_bytes() if changed.exists() else b"") + b"\n")
    with pytest.raises(store.BadInputError, match="its artifact is not the one that was made for it"):
        pipeline.fleet(request(model, clicks, copy), lambda _: None)


@pytest.mark.parametrize("own", [None, 7, "", "a\0b", "../artifact/scn", "/etc", "z" * 5_000])
def test_a_plan_that_names_no_artifact_of_the_run_is_refused(own, model, clicks, copy):
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps({**plan, "artifact": own}))
    with pytest.raises(store.BadInputError, match=r"plan.json was changed by hand; begin anew with --force"):
        pipeline.fleet(request(model, clicks, copy), lambda _: None)
    (copy / "plan.json").write_text(json.dumps({**plan, "threads": None}))
    with pytest.raises(store.OutputError, match="threads nothing and not 1"):
        pipeline.fleet(request(model, clicks, copy), lambda _: None)


def test_a_part_without_the_rows_of_its_users_is_refused(model, clicks, copy):
    part = copy / "users" / "part-00002.parquet"
    whole = pyarrow.parquet.read_table(part)
    verdicts = whole.schema.get_field_index("verdict")
    unsaid = pyarrow.array([None] * whole.num_rows, pyarrow.string())
    for table in (
        whole.slice(1),
        whole.slice(0, 0),
        pyarrow.concat_tables([whole.slice(0, 1), whole.slice(0, whole.num_rows - 1)]),
        whole.drop_columns(["rank_torch"]),
        whole.set_column(verdicts, "verdict", unsaid),
        whole.set_column(verdicts, "verdict", pyarrow.array(["fine"] * whole.num_rows)),
    ):
        pyarrow.parquet.write_table(table.replace_schema_metadata(whole.schema.metadata), part)
        with pytest.raises(store.BadInputError, match=r"part-00002\.parquet has not the rows of its users; remove it"):
            pipeline.fleet(request(model, clicks, copy), lambda _: None)


def test_what_stands_in_the_way_of_a_run_is_told(copy):
    held = store.Run(copy, {})
    (copy / "users" / "part-000000.parquet").write_bytes(b"")
    with pytest.raises(store.OutputError, match="part-000000"):
        store.check(copy)
    assert held.done(3) == {0, 1, 2}
    shutil.rmtree(copy / "users")
    with pytest.raises(store.BadInputError, match="users is missing"):
        held.done(3)
    (copy / "summary.json").unlink()
    (copy / "summary.json").mkdir()
    with pytest.raises(store.OutputError, match="a folder where a run has a file"):
        store.check(copy)


def test_a_part_of_another_run_is_refused(run, model, clicks, tmp_path):
    _, whole = run
    pipeline.fleet(request(model, clicks, tmp_path / "fleet", sample=30), lambda _: None)
    part = tmp_path / "fleet" / "users" / "part-00000.parquet"
    part.write_bytes((whole / "users" / part.name).read_bytes())
    with pytest.raises(store.BadInputError, match="is of another run; remove it"):
        pipeline.fleet(request(model, clicks, tmp_path / "fleet", sample=30), lambda _: None)
    part.unlink()
    assert pipeline.fleet(request(model, clicks, tmp_path / "fleet", sample=30), lambda _: None).exit_code == 0


def test_a_baseline_is_judged_too(clicks, tmp_path):
    held = tiny_models.write("sasrec", tmp_path / "checkpoint")
    asked = pipeline.FleetRequest("sasrec", clicks, "onnx", tmp_path / "fleet", checkpoint=held, sample=50)
    result = pipeline.fleet(asked, lambda _: None)
    assert result.exit_code == 0 and result.document["verdicts"]["pass"] >= 45


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_schemes_are_held_to_torch_with_the_same_tables(precision, model, clicks, tmp_path):
    result = pipeline.fleet(request(model, clicks, tmp_path / "fleet", sample=60, precision=precision), lambda _: None)
    top10 = result.document["top10"]
    assert result.document["verdicts"]["fail"] == 0
    assert (top10["torch"] == "the same") == (precision == "fp16")
    assert top10["overlap_with_torch"] <= top10["overlap"]
    same_tables = "tolerance of torch with the same tables for all" in result.document["reason"]
    assert same_tables == (precision == "int8")
    if precision == "int8":
        names = {one["name"] for one in result.document["distributions"]}
        assert "top10_torch" in names
        assert_that_other_tables_fail(tmp_path / "fleet", model)


def assert_that_other_tables_fail(run, checkpoint_folder):
    """Judge golden cases: all pass beside torch with the same tables, and none beside torch with those of fp32."""
    folder = artifact_of(run)
    settings = {"artifact": folder, "model": "scn", "checkpoint": checkpoint_folder}
    settings |= {"versions": artifacts.read_manifest(folder).source.versions}
    judge = fleet_worker.make_judge({**settings, "reference": run / store.REFERENCE})
    golden = artifacts.read_golden(folder)
    cases = {name: golden.inputs[name][:, 0] for name in ("item_ids", "candidate_ids")}
    assert (judge(cases)["verdict"] == 0).all()
    assert (replace(judge, reference=judge.torch)(cases)["verdict"] == 1).mean() > 0.9


def test_what_is_wrong_is_told_before_anything_is_written(model, clicks, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strange.csv").write_text("user,item,timestamp\na,x,1\na,y,2\n")
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    common = ["--target", "onnx", "--checkpoint", model]
    for words, wrong in {
        ("fleet", "scn", "--data", "strange.csv", *common, "--output", "new"): "the model knows none of its 2 items",
        ("fleet", "scn", "--data", "absent.csv", *common, "--output", "new"): "absent.csv does not exist",
        ("fleet", "scn", "--data", clicks, *common, "--output", "mine"): "mine holds 'notes.txt', which would be lost",
    }.items():
        ended = run_here(capfd, *words)
        assert ended.code == 2 and wrong in ended.error_line()
        assert not Path("new").exists()
