"""Devices over ssh and adb, by real servers: the same results, and every fault clear, with nothing left behind."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import servers
from bundle import installed
from commands import cocorr_export, run_here

from exporter.connections import bundle
from exporter.connections.adb import AdbConnection
from exporter.connections.ssh import SshConnection
from exporter.core.errors import DeviceError, RuntimeTimeoutError

VENV = Path(sys.executable).parent
pytestmark = pytest.mark.timeout(1200)  # whoever comes first installs the bundle

MODELS = {"onnx": "tiny_onnx", "tflite": "tiny_tflite", "executorch": "tiny_pte"}
LONG = 10**6  # calls: more than any test waits for


@pytest.fixture(scope="module")
def programs(shared_folder):
    return servers.fetched(shared_folder)


@pytest.fixture(scope="module")
def sshd(programs, tmp_path_factory):
    """A host whose Python has all runtimes."""
    yield from servers.ssh_server(programs, tmp_path_factory.mktemp("ssh"), f"{VENV}:/usr/bin:/bin")


@pytest.fixture(scope="module")
def adbd(programs, tmp_path_factory):
    yield from servers.adb_server(programs, tmp_path_factory.mktemp("adb"))


@pytest.fixture
def board(sshd):
    return SshConnection("board", config=str(sshd.config), folder=str(sshd.device))


@pytest.fixture
def phone(adbd, shared_folder, monkeypatch):
    """A device whose launcher is the emulator, so that it runs the ARM64 bundle as a phone does."""
    return make_phone(adbd, shared_folder, monkeypatch, str(adbd.device))


def make_phone(adbd, shared_folder, monkeypatch, folder: str) -> AdbConnection:
    monkeypatch.setenv("XDG_CACHE_HOME", str(installed(shared_folder)))
    for name, value in adbd.environment.items():
        monkeypatch.setenv(name, value)
    return AdbConnection(adbd.serial, folder=folder, launcher=[str(bundle.find().qemu), "-cpu", "cortex-a76"])


def left(folder: Path) -> list[str]:
    """What is on the device besides the bundle, which stays, and the file that runs lock."""
    return [
        path.name for path in folder.iterdir() if not path.name.startswith("cocorr-bundle-") and path.suffix != ".lock"
    ]


@pytest.fixture(params=["ssh", "adb"])
def device(request):
    """Both kinds of device: the connection, its server, and a folder that is its storage."""
    if request.param == "ssh":
        return request.getfixturevalue("board"), request.getfixturevalue("sshd")
    return request.getfixturevalue("phone"), request.getfixturevalue("adbd")


# ------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("target", sorted(MODELS))
def test_a_phone_runs_the_bundle(target, phone, adbd, make_request, expected, request):
    result = phone.run(make_request(target, request.getfixturevalue(MODELS[target])))
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    assert " on aarch64 Linux, " in result.executed_on
    assert result.executed_on.endswith(" over adb")
    assert (len(result.samples_us), result.connection) == (5, "adb")
    assert " of " in result.conditions["cores"]
    assert left(adbd.device) == []
    (bundle_there,) = adbd.device.glob("cocorr-bundle-*")
    assert (bundle_there / "whole").exists()


def test_a_board_with_the_runtime_runs_its_own_python(board, sshd, make_request, tiny_onnx, expected):
    result = board.run(make_request("onnx", tiny_onnx))
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    assert result.executed_on.startswith("ONNX Runtime 1.31.1 (CPUExecutionProvider) on x86_64 Linux, ")
    assert (len(result.samples_us), result.connection) == (5, "ssh")
    assert 10 * 2**20 < result.baseline_rss_bytes <= result.peak_rss_bytes
    times = board.compare(make_request("onnx", tiny_onnx), make_request("onnx", tiny_onnx))
    assert (len(times.first_us), len(times.second_us)) == (5, 5)
    assert list(sshd.device.iterdir()) == [sshd.device / "cocorr.lock"]


def test_the_command_reaches_a_board(sshd, tmp_path, capfd):
    profile = tmp_path / "board.yaml"
    way = f"connection:\n  ssh: {{host: board, config: '{sshd.config}', folder: '{sshd.device}'}}\n"
    profile.write_text(f"name: board\nextends: generic\nbudgets: {{latency_us: 1.0e+7}}\n{way}")
    ended = run_here(capfd, "scn", "--target", "onnx", "--profile", profile, "--output", tmp_path, "--json")
    document = ended.document
    assert (ended.code, document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert document["parity"]["executed_on"].endswith(" over ssh")
    assert (document["latency"]["connection"], document["latency"]["iterations"]) == ("ssh", 200)
    assert "cores" in document["latency"]["conditions"]
    again = run_here(capfd, "parity", document["artifact"], "--connection", profile, "--json").document
    assert again["parity"]["executed_on"].endswith(" over ssh")
    elsewhere = run_here(capfd, "parity", document["artifact"], "--json").document
    assert "ssh" not in elsewhere["parity"]["executed_on"]  # an artifact does not choose where it is run


# ------------------------------------------------------------------------------------------------- reaching


def test_a_host_that_cannot_be_reached(sshd, make_request, tiny_onnx):
    faults = {
        "nobody": "Connection refused",
        "stranger": "its key is not known",
        "locked": "Permission denied",
    }
    for host, words in faults.items():
        with pytest.raises(DeviceError, match=f"ssh cannot reach '{host}'.*{words}"):
            SshConnection(host, config=str(sshd.config)).run(make_request("onnx", tiny_onnx))


def test_nothing_is_made_for_a_device_that_is_not_there(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PATH", "/nowhere")
    ended = run_here(capfd, "scn", "--target", "onnx", "--profile", "moto-e13", "--output", tmp_path / "out")
    assert (ended.code, "adb is not installed" in ended.error_line(), ended.err.count("\n")) == (2, True, 1)
    assert not (tmp_path / "out").exists()


def test_a_host_without_the_runtime(programs, make_request, tiny_onnx, tmp_path):
    for server in servers.ssh_server(programs, tmp_path / "s", "/usr/bin:/bin"):
        bare = SshConnection("board", config=str(server.config), folder=str(server.device))
        for target, words in {
            "onnx": r"board \(x86_64 Linux\) has no onnxruntime for python3.*pip install numpy onnxruntime",
            "coreml": r"board \(Linux\) has no Core ML",
        }.items():
            with pytest.raises(DeviceError, match=words):
                bare.run(make_request(target, tiny_onnx))
        assert list(server.device.iterdir()) == []


ADB_STATES = {
    "none": ("", None, "adb sees no device: none"),
    "two": (
        "a1\tdevice\nb2\tdevice\n",
        None,
        r"more than one device: a1 \(device\), b2 \(device\); connect one, or give",
    ),
    "another": ("a1\tdevice\n", "b2", r"no device b2; it sees: a1 \(device\)"),
    "unauthorized": ("a1\tunauthorized\n", None, "a1 is unauthorized: unlock it and allow"),
    "offline": ("a1\toffline\n", "a1", "a1 is offline: plug it in again"),
    "hostile": ("-x; touch pwned\tdevice\n$(touch pwned)\tdevice\n", None, "adb sees no device: none"),
}


@pytest.mark.parametrize("state", sorted(ADB_STATES))
def test_devices_that_adb_cannot_use(state, make_request, tiny_onnx, tmp_path, monkeypatch):
    listed, serial, words = ADB_STATES[state]
    (tmp_path / "listed").write_text("List of devices attached\n" + listed)
    (tmp_path / "adb").write_text(f"#!/bin/sh\ncat {tmp_path}/listed\n")
    (tmp_path / "adb").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match=words):
        AdbConnection(serial).run(make_request("onnx", tiny_onnx))
    assert not (tmp_path / "pwned").exists()


def test_adb_is_not_installed(make_request, tiny_onnx, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(DeviceError, match="adb is not installed"):
        AdbConnection().run(make_request("onnx", tiny_onnx))


# ------------------------------------------------------------------------------------------------- faults


def test_a_hang_is_ended_there(device, make_request, tiny_onnx, own_temporary_folder):
    connection, server = device
    with pytest.raises(RuntimeTimeoutError, match=r"did not finish within 6 s"):
        connection.run(make_request("onnx", tiny_onnx, iterations=LONG * 100, time_limit_s=6.0))
    assert servers.wait_for(lambda: left(server.device) == [])


def running(server) -> bool:
    """Say whether the agent is at work on the device."""
    return any("agent.pyz" in servers.name_of(pid) for pid in servers.descendants(server.process.pid))


def locked(server) -> bool:
    """Say whether a run holds the device's lock; the file itself stays from run to run."""
    file = server.device / "cocorr.lock"
    return file.exists() and f":{file.stat().st_ino} " in Path("/proc/locks").read_text()


@contextlib.contextmanager
def stopped(server) -> Iterator[None]:
    """Hold the agent that is at work still, however fast the machine, and let it go on after the body."""
    agents = [pid for pid in servers.descendants(server.process.pid) if "agent.pyz" in servers.name_of(pid)]
    assert agents
    for pid in agents:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in agents:
            os.kill(pid, signal.SIGCONT)


def test_two_runs_at_once(device, make_request, tiny_onnx, expected):
    connection, server = device
    results = []
    iterations = 600_000 if connection.name == "ssh" else 4000  # seconds: longer than it takes to stop the agent
    first = make_request("onnx", tiny_onnx, iterations=iterations, time_limit_s=900.0)
    thread = threading.Thread(target=lambda: results.append(connection.run(first)))
    thread.start()
    assert servers.wait_for(lambda: locked(server))
    with stopped(server), pytest.raises(DeviceError, match="another run is at work on the device"):
        connection.run(make_request("onnx", tiny_onnx, iterations=0))
    thread.join()
    np.testing.assert_allclose(results[0].outputs["scores"], expected, rtol=0, atol=1e-6)
    assert servers.wait_for(lambda: left(server.device) == [])


def test_a_full_disk(sshd, adbd, make_request, tiny_onnx, tmp_path, shared_folder, monkeypatch, own_temporary_folder):
    large = tmp_path / "large.onnx"
    large.write_bytes(bytes(10**6))
    board = SshConnection("board", config=str(sshd.config), folder=str(sshd.full))
    phone = make_phone(adbd, shared_folder, monkeypatch, str(adbd.full))
    for connection, model, server in ((board, large, sshd), (phone, tiny_onnx, adbd)):
        with pytest.raises(DeviceError, match=r"has no space left in .*; free some"):
            connection.run(make_request("onnx", model))
        listed = subprocess.run(
            connection.command(f"ls {shlex.quote(str(server.full))}"), capture_output=True, check=True
        )
        assert listed.stdout.split() == []


@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_a_connection_that_breaks_in_the_middle(
    kind, programs, shared_folder, make_request, tiny_onnx, tmp_path, monkeypatch, own_temporary_folder
):
    if kind == "ssh":
        started = servers.ssh_server(programs, tmp_path / "s", f"{VENV}:/usr/bin:/bin")
        server = next(started)
        connection = SshConnection("board", config=str(server.config), folder=str(server.device))
    else:
        started = servers.adb_server(programs, tmp_path / "s")
        server = next(started)
        connection = make_phone(server, shared_folder, monkeypatch, str(server.device))
    failed = []

    def run() -> None:
        try:
            connection.run(make_request("onnx", tiny_onnx, iterations=LONG * 100))
        except DeviceError as error:
            failed.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert servers.wait_for(lambda: running(server))
    server.kill_connections()
    thread.join()
    assert len(failed) == 1
    assert re.match(r"ssh cannot reach 'board'|adb lost the device|the device .* broke off", failed[0]), failed
    assert servers.wait_for(lambda: not running(server) and left(server.device) == [])
    next(started, None)


RUNNER = """
import pickle, sys
connection, request = pickle.load(open(sys.argv[1], "rb"))
connection.run(request)
"""


def test_a_caller_that_is_killed_leaves_nothing(device, make_request, tiny_onnx, tmp_path):
    import pickle

    connection, server = device
    stored = tmp_path / "stored"
    stored.write_bytes(pickle.dumps((connection, make_request("onnx", tiny_onnx, iterations=LONG * 100))))
    caller = subprocess.Popen([sys.executable, "-c", RUNNER, stored], stderr=subprocess.DEVNULL)
    assert servers.wait_for(lambda: running(server))
    caller.send_signal(signal.SIGKILL)
    caller.wait()
    assert servers.wait_for(lambda: not running(server) and left(server.device) == [])


def test_hostile_names_execute_nothing(board, sshd, make_request, tiny_onnx, expected, tmp_path):
    folder = tmp_path / "-rf; touch $(id) `touch pwned` 'a' \"b\""
    folder.mkdir()
    model = folder / "-e;touch pwned.onnx"
    model.write_bytes(tiny_onnx.read_bytes())
    result = board.run(make_request("onnx", model))
    np.testing.assert_allclose(result.outputs["scores"], expected, rtol=0, atol=1e-6)
    evil = SshConnection("board", config=str(sshd.config), folder=f"{sshd.device}/; touch pwned; $(touch pwned) '")
    evil.run(make_request("onnx", tiny_onnx))
    evil.clean()
    assert not [path for place in (Path.cwd(), tmp_path, sshd.device.parent) for path in place.rglob("pwned*")]


def test_a_device_that_lies_is_shown_and_not_obeyed(programs, make_request, tiny_onnx, tmp_path):
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "uname").write_text("#!/bin/sh\nprintf 'Linux; touch pwned\\033[2J\\n'\n")
    (fake / "uname").chmod(0o755)
    for server in servers.ssh_server(programs, tmp_path / "s", f"{fake}:/usr/bin:/bin"):
        liar = SshConnection("board", config=str(server.config), folder=str(server.device))
        with pytest.raises(DeviceError, match="touch pwned") as caught:
            liar.run(replace(make_request("onnx", tiny_onnx)))
        assert "\033" not in str(caught.value)
        assert not list(tmp_path.rglob("pwned"))


def test_the_device_is_cleaned_by_a_command(phone, adbd, make_request, tiny_onnx, tmp_path):
    phone.run(make_request("onnx", tiny_onnx, iterations=0))
    profile = tmp_path / "phone.yaml"
    way = f"connection: {{adb: {{serial: '{adbd.serial}', folder: '{adbd.device}'}}}}"
    profile.write_text(f"name: phone\nextends: moto-e13\n{way}\n")
    ended = cocorr_export("device", "clean", str(profile))
    assert (ended.code, ended.noise()) == (0, [])
    assert list(adbd.device.iterdir()) == []
