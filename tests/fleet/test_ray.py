"""The engine on Ray with two nodes on this machine: whole answers whatever dies, and the same rows as without Ray."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import replace
from email.message import Message
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
import tiny_models
from commands import run_here
from servers import wait_for

from exporter import pipeline
from exporter.core.errors import CocorrError
from exporter.fleet import engine, ray_cluster, ray_engine, shipment
from exporter.fleet import packages as fleet_packages
from exporter.pipeline import fleet_ofa, fleet_ofa_worker
from safeio import packages

HERE = Path(__file__).parent
PYTHONPATH = os.pathsep.join([str(HERE), str(HERE.parents[1])])


@pytest.fixture(scope="module")
def cluster():
    """Two nodes with a processor each; the place of their files has a short name, as sockets must have."""
    from ray.cluster_utils import Cluster

    place = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patched.setenv("PYTHONPATH", PYTHONPATH)
        patched.setenv("RAY_TMPDIR", place)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()
    shutil.rmtree(place, ignore_errors=True)


def work(does, folder):
    (folder / "sent/deep").mkdir(parents=True)
    (folder / "sent/deep/a.txt").write_text("a")
    (folder / "sent/b.txt").write_text("b")
    sent = {"file": str(folder / "sent/b.txt"), "tree": str(folder / "sent"), "none": None}
    settings = {"does": does, "folder": str(folder), **sent}
    return engine.Work("planted_waiting", settings, {"PYTHONPATH": PYTHONPATH}, folder, tuple(sent))


def empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def tasks(count):
    return (engine.Task(10 * number, {"x": np.full(3, number)}) for number in range(count))


class Begun:
    """Which shards were begun, by which process and on which node: by the files that their workers leave."""

    def __init__(self, folder):
        self._folder = folder

    def __call__(self):
        return [tuple(path.name.split()) for path in self._folder.iterdir() if path.name[0].isdigit()]

    def wait(self, met):
        assert wait_for(lambda: met(self()))


def test_whatever_dies_every_shard_comes_back_once(cluster, tmp_path):
    import ray

    asked = work("wait", tmp_path)
    begun, seen = Begun(tmp_path), []

    def kill():
        begun.wait(lambda found: len({node for _, _, node in found}) == 2)
        own = ray.get_runtime_context().get_node_id()
        pids = {pid for _, pid, _ in begun()}
        os.kill(int(next(pid for _, pid, node in begun() if node == own)), signal.SIGKILL)
        begun.wait(lambda found: any(pid not in pids for _, pid, _ in found))  # with this shard, or with its next
        seen.append("a worker that was killed is replaced")
        other = next(node for node in cluster.list_all_nodes() if node.node_id != own)
        place = next(place for place, _, node in begun() if node == other.node_id)
        cluster.remove_node(other, allow_graceful=False)
        for pid in {pid for _, pid, node in begun() if node == other.node_id}:
            with contextlib.suppress(ProcessLookupError):  # else it could still send what it computes
                os.kill(int(pid), signal.SIGKILL)
        (tmp_path / "go").touch()
        begun.wait(lambda found: any(one[0] == place and one[2] == own for one in found))
        seen.append("a node that was killed too")

    killer = threading.Thread(target=kill, daemon=True)
    with ray_cluster.connected(cluster.address, empty(tmp_path), 0):
        killer.start()
        done = list(ray_engine.run(asked, tasks(8), 8, 2, 1))
    killer.join()
    assert len(seen) == 2
    assert sorted(task.number for task in done) == [10 * number for number in range(8)]
    for task in done:
        assert (task.arrays["y"] == task.number / 4).all() and task.arrays["y"].dtype == np.float64
        assert task.arrays["told"].tolist() == ["bba True"] * 3


def test_an_error_of_a_worker_is_told_as_without_ray(cluster, tmp_path):
    with ray_cluster.connected(cluster.address, empty(tmp_path), 0), pytest.raises(CocorrError) as failed:
        list(ray_engine.run(work("refuse", tmp_path), tasks(2), 2, 1, 1))
    assert (failed.value.kind, failed.value.exit_code) == ("runtime_failure", 2)
    assert str(failed.value) == "the checkpoint has changed; start this again"


ENDED = """
import os, signal, sys
from pathlib import Path
from exporter import pipeline
from exporter.fleet import store

address, checkpoint, clicks, output = sys.argv[1:]
write = store.Run.write

def then_end(self, shard, table):
    write(self, shard, table)
    os.kill(os.getpid(), signal.SIGKILL)

store.Run.write = then_end
paths = (Path(clicks), "onnx", Path(output))
pipeline.fleet(pipeline.FleetRequest("scn", *paths, checkpoint=Path(checkpoint), ray=address), lambda _: None)
"""


def test_a_run_that_was_killed_on_ray_goes_on_without_and_has_the_same_rows(cluster, tmp_path):
    model = tiny_models.write("scn", tmp_path / "checkpoint")
    rng = np.random.default_rng(0)
    lines = [f"u{user:05},{item},{time}" for user in range(2_100) for time, item in enumerate(rng.integers(1, 60, 5))]
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("\n".join(["user,item,timestamp", *lines, ""]))
    command = [sys.executable, "-c", ENDED, cluster.address, model, clicks, tmp_path / "killed"]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGKILL, "", "")
    assert len(list((tmp_path / "killed" / "users").glob("part-*.parquet"))) == 1
    for place in ("killed", "whole"):
        asked = pipeline.FleetRequest("scn", clicks, "onnx", tmp_path / place, checkpoint=model, workers=1)
        assert pipeline.fleet(asked, lambda _: None).exit_code == 0
    tables = [
        pyarrow.concat_tables(map(pyarrow.parquet.read_table, sorted((tmp_path / place / "users").iterdir())))
        for place in ("killed", "whole")
    ]
    assert tables[0].num_rows == 2_100 and tables[0].equals(tables[1])


def test_networks_and_packages_of_each_user_are_the_same_on_ray(cluster, small_ofa, tmp_path, monkeypatch):
    monkeypatch.setattr(fleet_ofa, "MOST_STRUCTURES", 1)
    rng = np.random.default_rng(0)
    lines = [f"u{user:05},{item},{time}" for user in range(1_100) for time, item in enumerate(rng.integers(1, 300, 4))]
    clicks = tmp_path / "clicks.csv"
    clicks.write_text("\n".join(["user,item,timestamp", *lines, ""]))
    written = {}
    for name, address in (("ray", cluster.address), ("here", None)):
        folder = tmp_path / name
        asked = pipeline.FleetRequest("ofa", clicks, "onnx", folder / "fleet", checkpoint=small_ofa, workers=1)
        asked = replace(asked, ray=address, packages=folder / "packages", stored="int8", parity_sample=4)
        pipeline.fleet(asked, lambda _: None)
        rows = [pyarrow.parquet.read_table(part) for part in sorted((folder / "fleet/users").iterdir())]
        archives = [path.read_bytes() for path in sorted((folder / "packages").glob("*.tar"))]
        written[name] = pyarrow.concat_tables(rows).replace_schema_metadata(None).to_pylist(), archives
    assert written["ray"] == written["here"] and len(written["here"][1]) == 2
    assert "pass" in {row["verdict"] for row in written["ray"][0]}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"plan": {}}, r"does not see .*packages as it is here; give --packages a folder on a disk that all"),
        ({"place": "/nowhere"}, "does not see /nowhere as it is here"),
        ({"torch": "1.0"}, r"computes with torch .*, the packages are made with 1\.0"),
    ],
)
def test_a_machine_that_would_write_other_packages_refuses(change, words, tmp_path):
    facts = {"format": fleet_packages.FORMAT, "shards": 1, "order": "text", **fleet_ofa_worker.computed_by(), **change}
    plan = {name: value for name, value in facts.items() if name not in ("plan", "place")}
    with fleet_packages.opened(fleet_packages.Folder(tmp_path / "packages", plan), force=False):
        place = Path(change.get("place", tmp_path / "packages"))
        with pytest.raises(CocorrError, match=words):
            fleet_ofa_worker._place(place, change.get("plan", plan))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("auto", "--ray takes local or HOST:PORT of a cluster that this machine has joined, not 'auto'"),
        ("127.0.0.1:1", "nobody answers at 127.0.0.1:1"),
        ("a..b:1", "nobody answers at a..b:1"),
    ],
)
def test_where_no_cluster_is_one_line_says_so_before_anything_is_written(address, words, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["fleet", "scn", "--data", "absent.csv", "--target", "onnx", "--output", "new", "--ray", address]
    ended = run_here(capfd, *command)
    assert ended.code == 2 and words in ended.error_line() and not Path("new").exists()


def test_without_ray_the_command_that_installs_it_is_told(monkeypatch):
    ours = Message()
    ours["Provides-Extra"] = "fleet"
    stated = SimpleNamespace(metadata=ours, requires=["ray[data]==2.60.0; extra == 'fleet'"])
    monkeypatch.setattr(metadata, "distribution", lambda _: stated)
    monkeypatch.setattr(packages, "missing", tuple)
    words = "ray is not installed; get it with: pip install 'ray[data]==2.60.0' (part of the extra [fleet])"
    with pytest.raises(CocorrError, match=re.escape(words)):
        ray_cluster.check("local")


def test_files_arrive_as_they_were_sent_or_not_at_all(tmp_path):
    (tmp_path / "mine.py").write_text("SPEC = 1")
    (tmp_path / "tree/deep").mkdir(parents=True)
    (tmp_path / "tree/deep/a.bin").write_bytes(bytes(300))
    (tmp_path / "tree/link").symlink_to("/etc/passwd")
    settings = {"model": f"{tmp_path}/mine.py:SPEC", "tree": str(tmp_path / "tree"), "none": None, "seed": 3}
    sent = shipment.packed(settings, ("model", "tree", "none"), bytes)
    there = tmp_path / "there"
    arrived = shipment.unpacked(settings, sent, there, bytes)
    assert arrived == {"model": f"{there}/model/mine.py:SPEC", "tree": f"{there}/tree/tree", "none": None, "seed": 3}
    assert (there / "tree/tree/deep/a.bin").read_bytes() == bytes(300)
    assert sorted(path.name for path in there.rglob("*") if path.is_file()) == ["a.bin", "mine.py"]
    with pytest.raises(CocorrError, match="another SHA-256"):
        shipment.unpacked(settings, sent, tmp_path / "other", lambda content: content + b"!")
