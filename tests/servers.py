"""A real OpenSSH server and a real adbd, on loopback, without root; skipped where Debian's packages cannot be had.

sshd runs as a user of its own in a user namespace, adbd, which asks for no password, in a network namespace of its own.
"""

import contextlib
import fcntl
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exporter.connections.bundle.apt import Apt
from exporter.core.errors import SetupError

LIBRARIES = "usr/lib/x86_64-linux-gnu"
ADB = (
    *("adb", "adbd", "android-libbase", "android-libboringssl", "android-libcutils", "android-liblog"),
    *("android-libziparchive", "libbrotli1", "libc6", "libgcc-s1", "liblz4-1", "libprotobuf32t64", "libstdc++6"),
    *("libusb-1.0-0", "libzstd1", "libsystemd0", "libudev1", "libcap2", "zlib1g"),
)
SSHD = ("openssh-server", "libwrap0")
UP = (
    "import fcntl, socket, struct; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
    "fcntl.ioctl(s, 0x8914, struct.pack('16sh14x', b'lo', 0x49))"  # SIOCSIFFLAGS: up, loopback, running
)


def fetched(shared: Path) -> Path:
    """Return the folder of both servers, unpacked once for all test processes."""
    folder = Path(os.environ.get("COCORR_TEST_CACHE") or shared) / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    failed, whole = shared / "servers.failed", folder / "whole"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not whole.exists() and not failed.exists():
            try:
                fetch(folder)
                whole.touch()
            except SetupError as error:
                failed.write_text(str(error))
    if failed.exists():
        pytest.skip(f"no servers to reach: {failed.read_text()}")
    return folder


def fetch(folder: Path) -> None:
    codename = next(
        line.partition("=")[2].strip().strip('"')
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    apt = Apt(folder / "apt")
    apt.update(sorted({codename, "trixie"}))
    # adb brings its own C library, so any release runs it; sshd is the one of this machine's own release.
    wanted = [("trixie", name, "amd64") for name in ADB] + [(codename, name, "amd64") for name in SSHD]
    for package in apt.download(wanted):
        apt.unpack(package, folder / ("sshd" if package.name in SSHD else "adb"))
    shutil.rmtree(folder / "apt")


def need_namespaces(*flags: str) -> None:
    done = subprocess.run(["unshare", *flags, "true"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"this machine lets no ordinary user make a namespace: {done.stderr.strip()}")


def wait_for(happened, seconds: float = 600) -> bool:
    """Wait for what must happen; the limit only ends a test that hangs."""
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@dataclass
class Server:
    """A server: its process group, and a folder `device` that plays the device's storage, `full` a full one."""

    process: subprocess.Popen
    device: Path
    full: Path

    def kill_connections(self) -> None:
        """Kill what serves connections and leave alone what they started on the device."""
        raise NotImplementedError

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, 15)
        self.process.wait(600)


def processes(folder: Path) -> dict[int, str]:
    """Return the running processes, by number, that have a folder among their arguments or variables."""
    found = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            words = (place / "cmdline").read_bytes()
            if os.fsencode(folder) in words + (place / "environ").read_bytes() and int(place.name) != os.getpid():
                found[int(place.name)] = words.replace(b"\0", b" ").decode("utf-8", "replace")
    return found


def descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


class SshServer(Server):
    config: Path

    def kill_connections(self) -> None:
        for pid in descendants(self.process.pid):
            if name_of(pid).startswith("sshd: "):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, 9)


class AdbServer(Server):
    environment: dict[str, str]
    serial: str

    def kill_connections(self) -> None:
        for pid in descendants(self.process.pid):
            if "adb-server" in name_of(pid):
                os.kill(pid, 9)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def ssh_server(programs: Path, folder: Path, path: str) -> Iterator[SshServer]:
    """Start sshd for a user `tester` whose PATH is given; `config` is the client's configuration for a host `board`."""
    need_namespaces("-rm")
    port, home, device, full = free_port(), folder / "home", folder / "de vice", folder / "full"
    for place in (home, device, full):
        place.mkdir(parents=True)
    for key in ("host", "user", "other"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/user.pub\nPasswordAuthentication no\nSetEnv PATH={path}\nMaxStartups 50\n"
    )
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known").write_text(f"[127.0.0.1]:{port} {public}\n")
    client = f"  HostName 127.0.0.1\n  Port {port}\n  User tester\n  IdentitiesOnly yes\n  IdentityFile {folder}/user\n"
    (folder / "config").write_text(
        f"Host board\n{client}  UserKnownHostsFile {folder}/known\n"
        f"Host stranger\n{client}  UserKnownHostsFile /dev/null\n"
        f"Host nobody\n  HostName 127.0.0.1\n  Port {free_port()}\n"
        f"Host locked\n{client.replace('/user', '/other')}  UserKnownHostsFile {folder}/known\n"
    )
    (folder / "passwd").write_text(Path("/etc/passwd").read_text() + f"tester:x:4242:4242::{home}:/bin/sh\n")
    inner = [
        "unshare",
        "-U",
        "--map-user=4242",
        "--map-group=4242",
        "env",
        f"LD_LIBRARY_PATH={programs}/sshd/{LIBRARIES}",
    ]
    inner += [f"{programs}/sshd/usr/sbin/sshd", "-D", "-e", "-f", f"{folder}/sshd_config"]
    script = (
        f"mount --bind {shlex.quote(str(folder))}/passwd /etc/passwd && "
        f"mount -t tmpfs -o size=300k none {shlex.quote(str(full))} && exec {shlex.join(inner)}"
    )
    log = folder / "log"
    with log.open("wb") as stream:
        process = subprocess.Popen(["unshare", "-rm", "sh", "-c", script], stderr=stream, start_new_session=True)
    server = SshServer(process, device, full)
    server.config = folder / "config"
    if not wait_for(lambda: "Server listening" in log.read_text() or process.poll() is not None):
        pytest.fail(f"sshd did not start: {log.read_text()}")
    assert process.poll() is None, log.read_text()
    yield server
    server.end()


def adb_server(programs: Path, folder: Path) -> Iterator[AdbServer]:
    """Start adbd and adb's own server in a network namespace; clients find the latter by a socket file."""
    need_namespaces("-rnm")
    device, full, bin_folder = folder / "de vice", folder / "full", folder / "bin"
    for place in (device, full, bin_folder):
        place.mkdir(parents=True)
    libraries = programs / "adb" / LIBRARIES
    loader = [str(libraries / "ld-linux-x86-64.so.2"), "--library-path", f"{libraries}:{libraries}/android"]
    tools = programs / "adb" / "usr/lib/android-sdk/platform-tools"
    wrapper = bin_folder / "adb"
    wrapper.write_text(f'#!/bin/sh\nexec {shlex.join([*loader, str(tools / "adb")])} "$@"\n')
    wrapper.chmod(0o755)
    listen = f"localfilesystem:{folder}/adb-server"
    script = (
        f"{shlex.join([sys.executable, '-c', UP])}; mount -t tmpfs -o size=300k none {shlex.quote(str(full))}; "
        f"ADBD_PORT=5555 {shlex.join([*loader, str(tools / 'adbd')])} & "
        f"{shlex.join([*loader, str(tools / 'adb'), '-L', listen, 'server', 'nodaemon'])} & wait"
    )
    variables = {"HOME": str(folder), "PATH": f"{bin_folder}:{os.environ['PATH']}", "ADB_SERVER_SOCKET": listen}
    with (folder / "log").open("wb") as stream:
        process = subprocess.Popen(
            ["unshare", "-rnm", "sh", "-c", script],
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            env={**os.environ, **variables},
        )
    server = AdbServer(process, device, full)
    server.environment, server.serial = variables, "127.0.0.1:5555"

    def connected() -> bool:
        if not (folder / "adb-server").exists():
            return False
        done = subprocess.run(
            [wrapper, "connect", server.serial],
            env={**os.environ, **variables},
            capture_output=True,
            timeout=600,
            check=False,
        )
        return b"connected to" in done.stdout

    if not wait_for(connected):
        server.end()
        pytest.fail(f"adbd did not start: {(folder / 'log').read_text()}")
    yield server
    server.end()
