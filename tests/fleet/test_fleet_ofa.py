"""All users of a small Forward-OFA: structures, packages in shards, artifacts by structure, and what a kill leaves."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import safetensors.numpy
import tiny_ofa
import torch
import xxhash
from commands import run_here
from servers import processes, wait_for

from exporter import pipeline
from exporter.artifact import store as artifacts
from exporter.artifact import weights
from exporter.connections.agent.folder import DataFile
from exporter.fleet import packages, packages_archive
from exporter.pipeline import fleet_ofa, fleet_ofa_worker
from exporter.report.fleet_ofa import lines
from models.training.names import Names

ROOT = Path(__file__).resolve().parents[2]
ORDINARY = 1_200
ODD = {"one": ["3"], "stranger": ["x1", "x2"], "half": ["6", "x1", "7", "8"], "nobody": ["5"], "two": ["4", "5"]}
STATUS = {"one": "one_click", "stranger": "unknown_items", "half": "ranked", "nobody": "one_click", "two": "ranked"}
USERS = ORDINARY + len(ODD)
MADE = 2


@pytest.fixture(scope="module")
def clicks(tmp_path_factory):
    rng = np.random.default_rng(0)
    users = {f"u{user:05}": rng.integers(1, 300, rng.integers(3, 9)).tolist() for user in range(ORDINARY)} | ODD
    lines = [f"{user},{item},{time}" for user, items in users.items() for time, item in enumerate(items)]
    path = tmp_path_factory.mktemp("clicks") / "clicks.csv"
    path.write_text("\n".join(["user,item,timestamp", *lines, ""]))
    return path


def request(checkpoint, clicks, folder, **others):
    common = {"checkpoint": checkpoint, "workers": 1, "parity_sample": 40, "stored": "fp16"}
    return pipeline.FleetRequest("ofa", clicks, "tflite", folder / "fleet", **common | others)


@pytest.fixture(scope="module")
def run(small_ofa, clicks, tmp_path_factory):
    """A run to its end with packages in fp16, of which two structures have artifacts, and its folder."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fleet_ofa, "MOST_STRUCTURES", MADE)
        result = pipeline.fleet(request(small_ofa, clicks, folder, packages=folder / "packages"), lambda _: None)
    return result, folder


def rows_of(folder):
    parts = sorted((folder / "fleet" / "users").iterdir())
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def index_of(folder):
    parts = sorted((folder / "packages").glob("*.parquet"))
    return [row for part in parts for row in pyarrow.parquet.read_table(part).to_pylist()]


def history_of(clicks, user):
    lines = [line.split(",") for line in clicks.read_text().splitlines()[1:]]
    return [int(item) for name, item, _ in lines if name == user and item.isdecimal()][:-1]


def test_every_user_has_one_row_and_the_summary_adds_them_up(run):
    result, folder = run
    rows, document = rows_of(folder), result.document
    assert [row["user"] for row in rows] == sorted({row["user"] for row in rows}) and len(rows) == USERS
    assert {row["user"]: row["status"] for row in rows if row["user"] in ODD} == STATUS
    ranked = [row for row in rows if row["status"] == "ranked"]
    assert all(row[name] is None for row in rows if row not in ranked for name in ("structure", "flops", "verdict"))
    counted = Counter(row["structure"] for row in ranked)
    assert {line["structure"]: line["users"] for line in document["structures"]} == counted
    assert all(row["blocks"] == row["structure"].count("1") and row["bytes_up"] == 1 + 1 + 4 * 16 for row in ranked)
    drawn = [row for row in ranked if row["verdict"] is not None]
    assert len(drawn) == 40 and document["verdicts"]["not_drawn"] == len(ranked) - 40
    assert Counter(row["verdict"] for row in drawn)["fail"] == 0
    plan = json.loads((folder / "fleet" / "plan.json").read_text())
    assert len(plan["artifacts"]) == MADE < len({row["structure"] for row in drawn})
    for row in drawn:
        assert (
            (row["verdict"] == "pass") == (row["structure"] in plan["artifacts"]) == (row["rank_artifact"] is not None)
        )
    missing = sum(row["verdict"] == "unverified" for row in drawn)
    assert (document["no_artifact"], document["verdict"], result.exit_code) == (missing, "unverified", 3)
    assert f"{missing} users have a structure of which no artifact was made" in document["reason"]
    assert document["verdict_of_users"] == "unverified" and document["golden_cases"]["verdict"] == "pass"
    assert document["users_named"]["one_click"] == ["nobody", "one"] and len(
        document["users_named"]["unverified"]
    ) == min(missing, 10)
    for whose, other, own in (
        (document, "artifact", [row for row in drawn if row["rank_artifact"] is not None]),
        (document["stored"], "stored", ranked),
    ):
        clicked = whose["clicked_next"]
        assert clicked["users"] == len(own) == sum(clicked["rank"].values())
        assert clicked["rank"]["same"] == sum(row["rank_torch"] == row[f"rank_{other}"] for row in own)
        assert {key: clicked["hit10"][key] for key in ("torch", other)} == pytest.approx(
            {key: np.mean([row[f"rank_{key}"] <= 10 for row in own]) for key in ("torch", other)}
        )
    shown = lines(result)
    blocks = [line for line in shown if line.endswith(":")]
    assert blocks == [
        f"artifacts with packages in fp16, of the {40 - missing} users drawn:",
        f"torch with packages in fp16, of all {len(ranked):,} users ranked:",
    ]
    page = (folder / "fleet" / "summary.html").read_text()
    assert all(line["structure"] in page for line in document["structures"]) and "<script" not in page
    assert page.count("<svg") == len(document["distributions"])
    for shown in document["distributions"]:
        assert len(shown["counts"]) == len(shown.get("labels", shown.get("edges", [])[1:]))
        every = {"clicks": USERS, **dict.fromkeys(("structure", "bytes_down", "flops"), len(ranked))}
        assert sum(shown["counts"]) == every.get(shown["name"], len(drawn) - missing), shown["name"]
    assert all(row["flops"] is not None for row in ranked if row["blocks"])


def test_flops_are_those_of_an_artifact_of_the_structure(run):
    """Also of the structures that have none here, which lie on the line of those that have."""
    from exporter.measure import flops
    from exporter.pipeline import lengths
    from exporter.targets import TARGETS, reading

    result, folder = run
    plan = json.loads((folder / "fleet" / "plan.json").read_text())
    top = folder / "fleet" / "artifact"
    manifests = [artifacts.read_manifest(top / one["artifact"]) for one in plan["artifacts"].values()]
    counts = {line["structure"]: line["flops"] for line in result.document["structures"]}
    assert all(counts[one.selection.structure] == one.flops.total for one in manifests)
    other = next(structure for structure in counts if structure not in plan["artifacts"] and "1" in structure)
    checkpoint = pipeline.ProgramChoice("ofa", "subnet_external", CHECKPOINT[0], structure=other)
    from exporter.pipeline import source as sources

    source = sources.load(checkpoint, None, plan["candidates"])
    lowering = lengths.Lowering("tflite", "fp32", {}, fold=plan["fold"])
    _, model_file, _ = lengths.lower(source, lowering, folder, lambda _: None)
    assert counts[other] == flops.count(reading.read(TARGETS["tflite"], model_file).operations).total


CHECKPOINT = []


@pytest.fixture(scope="module", autouse=True)
def held(small_ofa):
    CHECKPOINT[:] = [small_ofa]


def test_each_package_is_where_the_index_says_and_is_the_one_made_alone(run, small_ofa, clicks, tmp_path):
    _, folder = run
    indexed, rows = index_of(folder), {row["user"]: row for row in rows_of(folder)}
    assert [row["user"] for row in indexed] == list(rows)
    held = packages.read(folder / "packages")
    for place, row in enumerate(indexed):
        assert (row["xxh3_128"] is None) == (row["status"] != "ranked")
        if row["xxh3_128"] is None or (place % 150 and row["user"] not in ODD):
            continue
        data = held.take(row["user"]).data
        assert (len(data), xxhash.xxh3_128_hexdigest(data)) == (rows[row["user"]]["bytes_down"], row["xxh3_128"])
        history = ",".join(map(str, history_of(clicks, row["user"])))
        alone = pipeline.PackageRequest("ofa", history, tmp_path / row["user"], None, small_ofa, "fp16")
        told = []
        assert pipeline.make_package(alone, told.append).structure == rows[row["user"]]["structure"]
        assert "has no items.tsv: ids are rows of its item table, 1 to 299" in told[0]
        assert (tmp_path / row["user"]).read_bytes() == data
        assert all(array.dtype == np.float16 for array in safetensors.numpy.load(data).values())
    with tarfile.open(folder / "packages" / "part-00000.tar") as archive:
        sizes = Counter(entry.size for entry in archive.getmembers())
    assert sizes == Counter(row["bytes"] for row in indexed[:1000] if row["bytes"])


def test_a_device_reads_the_package_and_ranks_as_the_row_says(run, small_ofa, small_ofa_model, clicks, tmp_path, capfd):
    """`swap` gives it to the artifact of its structure, which parity then runs with these weights."""
    _, folder = run
    plan = json.loads((folder / "fleet" / "plan.json").read_text())
    judged = next(row for row in rows_of(folder) if row["rank_artifact"] is not None)
    artifact = folder / "fleet/artifact" / plan["artifacts"][judged["structure"]]["artifact"]
    taken = run_here(capfd, "package", folder / "packages", judged["user"], "--output", tmp_path / "one", "--json")
    told = (taken.code, taken.document["bytes"], taken.document["structure"])
    assert told == (0, judged["bytes_down"], judged["structure"]), taken.err
    external = artifacts.read_manifest(artifact).external
    package = weights.read(tmp_path / "one", external.shapes, external.metadata)
    assert package.stored == "fp16" and package.in_form("fp16") is package
    assert all(tensor.dtype == np.float32 for tensor in package.tensors.values())
    ended = run_here(capfd, "swap", artifact, tmp_path / "one", "--output", tmp_path / "swapped", "--json")
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    carried = "times and memory stay those measured when the artifact was exported" in ended.err
    assert carried == (ended.document["latency"] is not None)
    beside = weights.beside(tmp_path / "swapped", None, external.shapes, external.metadata)
    assert all(np.array_equal(beside[name], tensor) for name, tensor in package.tensors.items())
    history = torch.zeros(1, tiny_ofa.LENGTH, dtype=torch.int32)
    own = history_of(clicks, judged["user"])[-tiny_ofa.LENGTH :]
    history[0, : len(own)] = torch.tensor(own)
    assert "".join(map(str, small_ofa_model.structure(history)[0].int().tolist())) == judged["structure"]


FORGED = {
    "another structure": (lambda row, data: ({"structure": "1" * 1000}, data), ", not '111"),
    "of another plan": (lambda row, data: ({}, _renamed(data, b'"checkpoint":"', 14)), "has checkpoint '#"),
    "no package": (lambda row, data: ({}, b"x" * len(data)), "is truncated or damaged"),
}


@pytest.mark.parametrize(("change", "words"), FORGED.values(), ids=FORGED.keys())
def test_what_an_index_names_is_looked_at_before_it_is_a_users_package(change, words, run, tmp_path, capfd):
    """With hashes that fit, as whoever forges one file can forge the other."""
    _, folder = run
    held = packages.Folder(
        shutil.copytree(folder / "packages", tmp_path / "packages"), packages.read(folder / "packages").plan
    )
    table = pyarrow.parquet.read_table(held.index(0))
    rows = table.to_pylist()
    row = next(row for row in rows if row["status"] == "ranked")
    changed, data = change(row, held.take(row["user"]).data)
    with packages.archive(held.place, 0).open("r+b") as file:
        file.seek(row["offset"])
        file.write(data)
    row |= {"xxh3_128": xxhash.xxh3_128_hexdigest(data), **changed}
    written = pyarrow.Table.from_pylist(rows, table.schema)
    pyarrow.parquet.write_table(written, held.index(0))
    ended = run_here(capfd, "package", held.place, row["user"], "--output", tmp_path / "one")
    assert (ended.code, words in ended.error_line(), (tmp_path / "one").exists()) == (2, True, False), ended.err


def _renamed(data, before, length):
    """Return a package with one letter of its metadata changed, behind some bytes."""
    at = data.index(before) + length
    return data[:at] + b"#" + data[at + 1 :]


def test_a_package_is_not_written_among_those_that_it_is_taken_from(run, tmp_path, capfd):
    _, folder = run
    held = Path(shutil.copytree(folder / "packages", tmp_path / "packages"))
    before = {path.name: path.read_bytes() for path in held.iterdir()}
    user = next(row["user"] for row in index_of(folder) if row["status"] == "ranked")
    for name in ("part-00000.tar", "new"):
        ended = run_here(capfd, "package", held, user, "--output", held / name, "--force")
        assert (ended.code, "lies among the packages" in ended.error_line()) == (2, True), ended.err
    assert {path.name: path.read_bytes() for path in held.iterdir()} == before


def test_workers_in_one_folder_keep_to_their_own_weights(small_ofa, tmp_path, monkeypatch):
    """ONNX Runtime reads weights from a file, which another worker writes in the meantime."""
    made = tiny_ofa.export(small_ofa, tmp_path, "subnet_external", "onnx")
    artifact = Path(made["onnx"]["artifact"])
    golden, manifest = artifacts.read_golden(artifact), artifacts.read_manifest(artifact)
    monkeypatch.chdir(tmp_path)
    own, others = (fleet_ofa_worker._with_weights(artifact) for _ in range(2))
    cases = [{name: array[case] for name, array in golden.inputs.items()} for case in range(2)]
    write, interrupted = DataFile.write, []

    def write_both(*arguments):
        changed = write(*arguments)
        if not interrupted:
            interrupted.append(True)
            others.call(cases[1])
        return changed

    monkeypatch.setattr(DataFile, "write", write_both)
    scores, _ = own.call(cases[0])
    assert interrupted and np.allclose(scores[0], golden.outputs[manifest.ranking][0], atol=1e-5)


KILLED = """
import os, signal, sys
from pathlib import Path
from exporter import pipeline
from exporter.fleet import store
checkpoint, clicks, folder = map(Path, sys.argv[1:])
store.Run.write = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
pipeline.fleet(
    pipeline.FleetRequest(
        "ofa", clicks, "tflite", folder / "fleet", checkpoint=checkpoint, workers=1, parity_sample=40, stored="fp16",
        packages=folder / "packages",
    ),
    lambda _: None,
)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(run, small_ofa, clicks, tmp_path):
    """Killed between the index of a shard's packages and its rows; of another shard the archive alone is damaged."""
    _, whole = run
    (tmp_path / "temporary").mkdir()
    shutil.copytree(whole / "fleet", tmp_path / "fleet")
    for part in (tmp_path / "fleet" / "users").iterdir():
        part.unlink()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, small_ofa, clicks, tmp_path],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "temporary")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == -9, done.stderr
    assert wait_for(lambda: not processes(tmp_path / "temporary"))
    (tmp_path / "packages" / "part-00001.tar").unlink(missing_ok=True)  # of the next shard, if the worker was so far
    assert not list((tmp_path / "fleet" / "users").iterdir()) and packages.read(tmp_path / "packages").done() == {0}
    for own in ("fleet/users/part-00001.parquet", "packages/part-00001.parquet"):
        shutil.copy(whole / own, tmp_path / own)
    assert packages.read(tmp_path / "packages").done() == {0}
    (tmp_path / "packages" / "part-00001.tar").write_bytes((whole / "packages" / "part-00001.tar").read_bytes()[:-1024])
    assert packages.read(tmp_path / "packages").done() == {0}
    result = pipeline.fleet(request(small_ofa, clicks, tmp_path, packages=tmp_path / "packages"), lambda _: None)
    assert result.document["run"]["users"] == USERS
    assert rows_of(tmp_path) == rows_of(whole) and index_of(tmp_path) == index_of(whole)
    for archive in ("part-00000.tar", "part-00001.tar"):
        assert (tmp_path / "packages" / archive).read_bytes() == (whole / "packages" / archive).read_bytes()


def test_who_has_no_package_and_what_is_damaged_is_told_in_one_line(run, small_ofa, clicks, tmp_path, capfd):
    _, folder = run
    place = folder / "packages"
    archive = place / "part-00000.tar"
    for words, wrong in {
        (place, "stranger"): "user 'stranger' has no package: unknown items",
        (place, "one"): "user 'one' has no package: one click",
        (place, "zzz"): "has no user 'zzz'; give the id as the file of clicks has it",
        (folder / "fleet", "half"): "does not exist; give a folder that cocorr-export fleet ofa --packages wrote",
    }.items():
        ended = run_here(capfd, "package", *words, "--output", tmp_path / "new")
        assert ended.code == 2 and wrong in ended.error_line()
    whole = archive.read_bytes()
    row = next(row for row in index_of(folder) if row["bytes"])
    try:
        archive.write_bytes(whole[: row["offset"] + 40] + b"?" + whole[row["offset"] + 41 :])
        ended = run_here(capfd, "package", place, row["user"], "--output", tmp_path / "new")
        assert ended.code == 2 and "is damaged: a package is not the one of its index" in ended.error_line()
    finally:
        archive.write_bytes(whole)
    (tmp_path / "mine").write_text("mine")
    ended = run_here(capfd, "package", place, "half", "--output", tmp_path / "mine")
    assert ended.code == 2 and (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_what_cannot_be_asked_for_is_told_before_anything_is_written(run, small_ofa, clicks, tmp_path, capfd):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    common = ("--data", clicks, "--target", "tflite", "--output", tmp_path / "new")
    without = tiny_ofa.write(tmp_path / "without", method="devicerec")
    refused = run_here(capfd, "fleet", "ofa", "--checkpoint", without, *common)
    assert refused.code == 2 and "has no mapper, as have forward_ofa" in refused.error_line()
    assert "reading the clicks" not in refused.err
    own = ("--checkpoint", small_ofa)
    for words, wrong in {
        ("scn", "--packages", tmp_path / "packages"): "are for models with a network for each user",
        ("ofa", *own, "--precision", "int8", "--stored", "fp16"): "--precision int8 has packages in int8, not in fp16",
        ("ofa", *own, "--precision", "auto"): "fleet takes one scheme for all sub-networks",
        ("ofa", *own, "--packages", tmp_path / "new" / "packages"): "lie in each other",
        ("ofa", *own, "--packages", run[1] / "packages"): "stored fp16 and not fp32; choose another --packages, or",
        ("ofa", *own, "--packages", tmp_path / "mine"): "mine holds 'notes.txt', which would be lost",
    }.items():
        ended = run_here(capfd, "fleet", *words, *common)
        assert ended.code == 2 and wrong in ended.error_line(), ended.err
        assert not (tmp_path / "new").exists()


def test_a_plan_that_was_changed_by_hand_is_refused(run, small_ofa, clicks, tmp_path):
    _, folder = run
    output = Path(shutil.copytree(folder / "fleet", tmp_path / "fleet"))
    plan = json.loads((output / "plan.json").read_text())
    (structure, entry), (_, other) = list(plan["artifacts"].items())[:2]
    for changed in (
        {"artifacts": None},
        {"artifacts": {structure: None}},
        {"artifacts": {structure: other}},
        {"artifacts": {structure: {**entry, "artifact": f"{structure}/../../artifact/{entry['artifact']}"}}},
        {"artifacts": {structure: {**entry, "flops": "many"}}},
        {"flops": {"base": 1 << 70, "block": 2}},
        {"latent": "16"},
    ):
        (output / "plan.json").write_text(json.dumps(plan | changed))
        with pytest.raises(packages.BadInputError, match=r"plan.json was changed by hand; begin anew with --force"):
            pipeline.fleet(request(small_ofa, clicks, tmp_path), lambda _: None)


@pytest.mark.parametrize("names", [["9", "10", "100"], ["a", "b10", "b9"], ["-5", "0", "7"]])
def test_one_is_found_in_the_order_in_which_users_are_read(names, tmp_path):
    import pyarrow as pa

    whole = Names(pa.array(names, pa.large_string())).are_whole_numbers
    plan = {"format": packages.FORMAT, "shards": len(names), "order": "numbers" if whole else "text"}
    folder = packages.Folder(tmp_path / "packages", plan)
    with packages.opened(folder, force=False):
        for shard, name in enumerate(names):
            rows = np.full((1, 8 + shard), shard, np.uint8)
            found = packages_archive.write(packages.archive(folder.place, shard), [([0], rows)], 1)
            table = {
                "user": [name],
                "status": ["ranked"],
                "structure": ["10"],
                "xxh3_128": [found["xxh3_128"][0].tobytes().hex()],
            }
            table |= {key: found[key].tolist() for key in ("offset", "bytes")}
            folder.write_index(shard, pa.table(table))
    held = packages.read(folder.place)
    assert [held.take(name).data for name in names] == [bytes([shard]) * (8 + shard) for shard in range(len(names))]
    for stranger in ("8", "aa", "1000", "-9", ""):
        with pytest.raises(packages.BadInputError, match="has no user"):
            held.take(stranger)
