"""The embedded engine with real processes: whole answers, one line for every death, and nothing left behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from exporter.core.errors import CocorrError
from exporter.fleet import engine

HERE = Path(__file__).parent


def work(does, tmp_path):
    return engine.Work("planted_worker", {"does": does}, {"PYTHONPATH": str(HERE)}, tmp_path)


def tasks(count=5):
    return (engine.Task(number, {"x": np.full(3, number)}) for number in range(count))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_every_shard_comes_back_once_whatever_a_runtime_prints(tmp_path):
    done = {task.number: task.arrays for task in engine.run(work("double", tmp_path), tasks(), workers=2)}
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert all((done[number]["y"] == 2 * number).all() for number in done)
    assert not any(is_alive(int(arrays["pid"][0])) for arrays in done.values())


@pytest.mark.parametrize(
    ("does", "kind", "code", "words"),
    [
        ("SIGSEGV", "runtime_crash", 1, "a worker ended by SIGSEGV in the middle of its work"),
        ("SIGKILL", "runtime_memory", 1, "a worker was killed (SIGKILL), most likely for want of memory"),
        ("raise", "runtime_crash", 1, "a worker failed: the runtime said no"),
        ("refuse", "runtime_failure", 2, "the checkpoint has changed"),
        ("hang", "runtime_timeout", 1, "a worker did not finish within"),
    ],
)
def test_a_worker_that_fails_ends_all_with_one_line(does, kind, code, words, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "_SHARD_LIMIT_S", 1.0)
    monkeypatch.setattr(engine, "_USER_LIMIT_S", 0.0)
    seen = []
    with pytest.raises(CocorrError, match=words.replace("(", r"\(").replace(")", r"\)")) as failed:
        seen += list(engine.run(work(does, tmp_path), tasks(), workers=2))
    assert (failed.value.kind, failed.value.exit_code) == (kind, code)
    assert "\n" not in str(failed.value)
    if does.startswith("SIG"):
        assert "the last words" in str(failed.value)


def test_what_the_shards_raise_is_raised(tmp_path):
    def broken():
        yield from tasks(1)
        raise CocorrError("the disk has a fault")

    with pytest.raises(CocorrError, match="the disk has a fault"):
        list(engine.run(work("double", tmp_path), broken(), workers=1))


def test_whoever_stops_reading_ends_the_workers(tmp_path):
    running = engine.run(work("double", tmp_path), tasks(), workers=2)
    pid = int(next(running).arrays["pid"][0])
    running.close()
    assert not is_alive(pid)


KILLED = """
import os, sys
import numpy as np
from pathlib import Path
from exporter.fleet import engine
work = engine.Work("planted_worker", {"does": "hang"}, {"PYTHONPATH": sys.argv[2]}, Path(sys.argv[1]))
for task in engine.run(work, (engine.Task(n, {"x": np.full(1, n)}) for n in (0, 5)), workers=1):
    print(int(task.arrays["pid"][0]), flush=True)
"""


def test_workers_end_with_a_killed_engine_even_in_the_middle_of_a_shard(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, tmp_path, HERE], stdout=subprocess.PIPE, cwd=HERE.parents[1]
    )
    pid = int(process.stdout.readline())
    watched = os.pidfd_open(pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert select.select([watched], [], [], 30)[0], "the worker lives on"
    os.close(watched)
