"""The shipped model, exported once for all test processes, and a small Forward-OFA."""

import json
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import lowered_once
import order
import pytest
import tiny_ofa
from commands import Ended, in_one_process
from filelock import FileLock

from exporter.targets import TARGETS
from exporter.targets.environment import left_out
from models.forward_ofa.supernet import Supernet
from safeio.command import LIBRARIES
from safeio.packages import UNBUILT

os.environ.update(LIBRARIES)  # tests that call converters here leave as little behind as the commands do
# Begun in the background of a script, a process ignores these, and so would every command that a test starts and ends.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that take long."""
    order.longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object | None:
    """Hand out the tests of some files one by one; see order.py."""
    return order.LongestFirst(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all test processes of one session share."""
    folder = tmp_path_factory.getbasetemp()
    return folder if worker_id == "master" else folder.parent


@pytest.fixture(scope="session", autouse=True)
def lowered_programs(shared_folder: Path) -> Iterator[None]:
    """What tests lower in their own process is lowered once in a session; see lowered_once.py."""
    with lowered_once.kept_in(shared_folder / "lowered"):
        yield


@pytest.fixture(scope="session")
def exported(shared_folder: Path) -> Ended:
    """`cocorr-export scn --target all --json` on the shipped checkpoint, once for all test processes."""
    folder = shared_folder
    record = folder / "exported.json"
    with FileLock(f"{record}.lock"):
        if not record.exists():
            command = ("scn", "--target", "all", "--output", folder / "exported", "--json")
            ended = in_one_process(folder / "printed", {"exported": command}, folder / "lowered")["exported"]
            record.write_text(json.dumps([ended.code, ended.out, ended.err]))
        return Ended(*json.loads(record.read_text()))


@pytest.fixture(scope="session")
def artifacts(exported: Ended) -> dict[str, Path]:
    """Target -> folder of the shipped SCN's artifact; copy one before you change it."""
    return Artifacts({one["target"]: Path(one["artifact"]) for one in exported.document["artifacts"]})


class Artifacts(dict[str, Path]):
    """Skips a test that wants an artifact of a target to which nothing on this system lowers."""

    def __missing__(self, target: str) -> Path:
        reason = left_out(TARGETS[target])
        assert reason is not None, f"no artifact was made for {target}"
        pytest.skip(f"{target}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a test that could not lower to a target to which nothing on this system lowers."""
    report = yield
    if report.failed and UNBUILT in f"{report.longreprtext}{report.capstderr}" and any(map(left_out, TARGETS.values())):
        report.outcome, report.longrepr = "skipped", (str(item.path), item.location[1] or 0, f"Skipped: {UNBUILT} here")
    return report


@pytest.fixture(scope="module")
def small_ofa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a small Forward-OFA with random weights."""
    return tiny_ofa.write(tmp_path_factory.mktemp("ofa") / "checkpoint")


@pytest.fixture(scope="module")
def small_ofa_model(small_ofa: Path) -> Supernet:
    """The model of that checkpoint."""
    return tiny_ofa.read(small_ofa)[0]
