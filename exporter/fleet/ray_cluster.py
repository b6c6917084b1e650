"""Ray on this machine, or a cluster that it belongs to: connected for a while, with Ray's own words off the screen."""

import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from pathlib import Path

from exporter.core.errors import BadInputError, MissingExtraError
from exporter.core.extras import without_noise
from safeio import packages
from safeio.errors import one_line, printable
from safeio.staging import scratch

LOCAL = "local"
_EXTRA = "fleet"
_HOST_AND_PORT = re.compile(r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>\d{1,5})")
_ANSWER_S = 5.0
_CONNECT_S = 60.0
_TRY = "import sys; sys.path.append(sys.argv.pop()); from {module} import try_cluster; try_cluster(sys.argv[1])"
_TOP = Path(__file__).resolve().parents[__name__.count(".")]
_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # what its daemons say of the workers' ends goes to our stdout
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # native code writes its log to our stderr
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # without it every start warns of what will be
}
_DETAIL = 300


def check(address: str) -> None:
    """Raise BadInputError where Ray is not installed, or no cluster that can be used answers at an address."""
    if packages.missing(["ray"]):
        raise MissingExtraError("ray", _EXTRA)
    if address == LOCAL:
        return
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        raise BadInputError(
            f"--ray takes {LOCAL} or HOST:PORT of a cluster that this machine has joined, not {address!r}"
        )
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), _ANSWER_S).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise BadInputError(
            f"nobody answers at {address}: {error}; start the cluster, or take --ray {LOCAL}"
        ) from error
    _check_cluster(address)


def _check_cluster(address: str) -> None:
    """Connect and let go in a process that can be ended: where something else answers, Ray waits for ever."""
    command = [sys.executable, "-P", "-c", _TRY.format(module=__name__), address, str(_TOP)]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_CONNECT_S)
    except subprocess.TimeoutExpired as error:
        raise BadInputError(f"what answers at {address} is no Ray cluster, or too slow: {_CONNECT_S:g} s") from error
    if done.returncode:
        said = done.stdout.decode(errors="replace").splitlines() or [f"Ray cannot connect to {address}"]
        raise BadInputError(said[-1])


def try_cluster(address: str) -> None:
    """Connect to a cluster and let go; what is wrong is printed, in a line, and the process ends with 2."""
    try:
        with scratch("ray") as folder, connected(address, folder, 0):
            pass
    except BadInputError as error:
        sys.stdout.write(f"{one_line(str(error))}\n")
        sys.exit(2)


@contextmanager
def connected(address: str, folder: Path, processors: int) -> Iterator[None]:
    """Connect this process to a cluster, or start one with so many processors, and let go of it at the end.

    `folder` is empty; a cluster that is started has its own files there. Raises BadInputError for a cluster that
    cannot be used.
    """
    own: dict[str, object] = {}
    if address == LOCAL:
        own = {"num_cpus": processors, "include_dashboard": False, "_temp_dir": str(folder)}
    with _quiet():
        import ray

        try:
            try:
                # Workers import from where this process is, in front of all else: not from where the command began.
                with chdir(folder), _own_handler(), without_noise(r"Set ray log level from environment"):
                    ray.init(address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
            except Exception as error:  # ray has no class for it
                raise _refused(address, error) from error
            yield
        finally:
            ray.shutdown()


def room(threads: int) -> int:
    """Return how many workers with so many threads have room on the cluster, one at least."""
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    return max(1, sum(int(processors // threads) for processors in nodes))


def _refused(address: str, error: Exception) -> BadInputError:
    words = " ".join(str(error).split())
    if "AF_UNIX" in words:
        return BadInputError("the temporary place has too long a name for Ray's sockets; start with TMPDIR=/tmp")
    if "Version mismatch" in words:
        return BadInputError(
            f"the Ray cluster at {address} has other versions than are here; {printable(words[:_DETAIL])}"
        )
    what = "Ray does not start" if address == LOCAL else f"the Ray cluster at {address} cannot be used"
    return BadInputError(f"{what}: {printable(words[:_DETAIL])}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray silent in the body, and from telling its makers of it."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    os.environ.update(_SETTINGS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _own_handler() -> Iterator[None]:
    """Keep this process's handler of SIGTERM, which ray.init replaces."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)
