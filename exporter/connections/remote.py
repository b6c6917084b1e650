"""A run on another machine that gives us a POSIX shell with clean standard streams; ssh and adb differ in how.

Everything goes through that shell: a tar file in, the agent with a pipe that ends with us, a tar file out. Names that
come from artifacts travel inside the tar files and in JSON, never in a command; no word that a device says is used in
one. The shell removes the run's folder itself, also when the connection is lost.
"""

import io
import re
import secrets
import shlex
import signal
import subprocess
import tarfile
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TypeVar

from exporter.connections import bundle
from exporter.connections.agent.folder import AGENT
from exporter.connections.agent_archive import write_agent
from exporter.connections.host import death, settings
from exporter.connections.response import printable
from exporter.connections.run_folder import read_comparison, read_response, require_models, write_request
from exporter.connections.shell import GRACE_S, communicate, end, last_words
from exporter.core.errors import DeviceError, RuntimeCrashError
from exporter.core.types import DeviceRuntime, PairedTimes, RunRequest, RunResult, Verdict
from safeio.staging import scratch

Answer = TypeVar("Answer")

_STEP_LIMIT_S = 60.0
_PUSH_LIMIT_S = 600.0
_ANSWERS = ("status", "response.json", "outputs.npz", "log.txt")


@dataclass(frozen=True)
class Device:
    """What a device says of itself, made printable; only compared and shown."""

    system: str
    machine: str
    model: str
    has_runtime: bool


class RemoteConnection(ABC):
    """Runs the agent in a folder below `folder` on a device; subclasses say how a script reaches its shell.

    `launcher` is put before the bundle's programs, for a device that runs ARM64 code by other means.
    """

    name: str
    system: str | None
    own_python = True

    def __init__(self, folder: str, launcher: Sequence[str] = ()) -> None:
        self._folder = folder
        self._launcher = tuple(launcher)

    @abstractmethod
    def command(self, script: str) -> list[str]:
        """Return the words that run a script of the device's shell, with our standard streams."""

    @abstractmethod
    def lost(self, status: int, words: str) -> DeviceError | None:
        """Return the error for a transport that ended with `status` and these words, or None if the script did."""

    @abstractmethod
    def where(self) -> str:
        """Return what to call the device in messages."""

    def check(self) -> None:
        """Run nothing on the device; raises DeviceError where that fails."""
        self._call("true")

    def run(self, request: RunRequest) -> RunResult:
        """Run the request on the device and return outputs, times and memory; nothing of it stays there.

        Raises DeviceError where the device cannot be reached or used, and what HostConnection.run raises.
        """
        device = self._probe(request.target.runtime)
        result = self._serve(device, request, None, read_response)
        return replace(result, executed_on=self._place(result.executed_on, device), connection=self.name)

    def compare(self, first: RunRequest, second: RunRequest) -> PairedTimes:
        """Call two artifacts in turn in one process on the device, with the counts, threads and limits of `first`."""
        device = self._probe(first.target.runtime)
        times = self._serve(device, first, second, read_comparison)
        first_on, second_on = (self._place(one, device) for one in times.executed_on)
        return replace(times, executed_on=(first_on, second_on))

    def show(self, verdict: Verdict, words: str, facts: Mapping[str, str]) -> None:  # noqa: B027 - all there is to do
        """Do nothing: the agent has no screen there."""

    def clean(self) -> None:
        """Remove all that this project ever left on the device."""
        self._call(f"cd {self._quoted} 2>/dev/null || exit 0; rm -rf cocorr-bundle-* cocorr-run-* cocorr.lock")

    @property
    def _quoted(self) -> str:
        return shlex.quote(self._folder)

    def _place(self, executed_on: str, device: Device) -> str:
        return f"{executed_on}, {device.model or self.where()} over {self.name}"

    def _probe(self, runtime: DeviceRuntime) -> Device:
        """Ask the device what it is, and whether its own Python has the runtime."""
        modules = ", ".join(("numpy", *runtime.modules))
        script = (
            "uname -s; uname -m; "
            "{ getprop ro.product.model || tr -d '\\000' </sys/firmware/devicetree/base/model || "
            "sysctl -n machdep.cpu.brand_string || echo; } 2>/dev/null | head -n 1; "
            f"{shlex.join(['python3', '-c', f'import {modules}'])} >/dev/null 2>&1 && echo yes || echo no"
        )
        lines = self._call(script).decode("utf-8", "replace").splitlines()
        if len(lines) < 4:
            raise DeviceError(f"{self.where()} gave no usable answer: {printable(' '.join(lines))!r}")
        system, machine, model, answer = (printable(line).strip() for line in lines[-4:])
        return Device(system, machine, model, self.own_python and answer == "yes")

    def _serve(
        self, device: Device, request: RunRequest, rival: RunRequest | None, read: Callable[[Path, RunRequest], Answer]
    ) -> Answer:
        requests = [one for one in (request, rival) if one is not None]
        require_models(*requests)
        start = self._start(device, request)
        remote = f"{self._folder}/cocorr-run-{secrets.token_hex(8)}"
        with scratch("run") as folder:
            # A fixed name, but for the suffix, which Core ML wants; the data file keeps the one that the model knows.
            files = [f"{place}/model{one.model_file.suffix}" for place, one in zip("ab", requests, strict=False)]
            other = None if rival is None else (rival, files[1])
            lock = "../cocorr.lock"
            write_request(folder, request, files[0], None, watch_stdin=True, rival=other, pin=True, lock=lock)
            write_agent(folder, (one.target for one in requests))
            self._push(folder, remote, list(zip(requests, files, strict=True)))
            status = self._execute(folder, remote, start, request)
            if (folder / "response.json").exists() and status in (0, 1):
                return read(folder, request)
            raise death(status, request, folder)

    def _start(self, device: Device, request: RunRequest) -> str:
        """Return the shell words that start the agent in the run's folder, with the bundle on the device if need be."""
        if device.has_runtime:
            variables = settings(request.threads)
            return shlex.join(["env", *(f"{k}={v}" for k, v in variables.items()), "python3", AGENT, "."])
        needed = request.target.runtime
        if not needed.bundled:
            on_a_mac = f"on a Mac: pip install {needed.distribution} there"
            advice = on_a_mac if request.target.system == "darwin" else _install(needed)
            raise DeviceError(f"{self.where()} ({device.system}) has no {needed.name} for python3; {advice}")
        fits = device.system == "Linux" and device.machine in ("aarch64", "arm64")
        if not fits and not self._launcher:
            raise DeviceError(
                f"{self.where()} ({device.machine} {device.system}) has no {needed.distribution} for python3, and the"
                f" bundle is for ARM64 Linux; {_install(needed)}"
            )
        root = self._push_bundle(bundle.find())
        variables = bundle.environment(root, request.threads)
        words = ["env", "-i", *(f"{k}={v}" for k, v in variables.items())]
        return shlex.join([*words, *self._launcher, *bundle.launch(root, [AGENT, "."])])

    def _push_bundle(self, installed: bundle.Bundle) -> str:
        """Return the bundle's folder on the device, pushed there unless it is whole there already."""
        place = f"{self._folder}/cocorr-bundle-{installed.identity}"
        root = shlex.quote(place)
        found = self._call(f"test -e {root}/whole && echo whole || echo not")
        if found.split()[-1:] == [b"whole"]:
            return place
        partial = shlex.quote(f"{place}.{secrets.token_hex(8)}")
        script = (
            f"umask 077; mkdir -p {partial} && tar -xzf - -C {partial} && touch {partial}/whole && "
            f"{{ mv {partial} {root} 2>/dev/null || test -e {root}/whole; }}; code=$?; rm -rf {partial}; exit $code"
        )
        with installed.archive().open("rb") as content:
            self._call(script, content, _PUSH_LIMIT_S)
        return place

    def _push(self, folder: Path, remote: str, models: Sequence[tuple[RunRequest, str]]) -> None:
        """Make the run's folder on the device, with agent, request, inputs and models in it."""
        with tempfile.TemporaryFile() as content:
            with tarfile.open(fileobj=content, mode="w", format=tarfile.PAX_FORMAT) as file:
                for path in sorted(folder.iterdir()):
                    file.add(path, path.name)
                for request, name in models:
                    file.add(request.model_file, name)
                    if request.data is not None:
                        beside = request.model_file.with_name(request.data.name)
                        file.add(beside, f"{name.partition('/')[0]}/{request.data.name}")
            content.seek(0)
            run = shlex.quote(remote)
            # Runs that nobody could tidy up, because this process was killed between two steps, go after a day.
            stale = f"find {self._quoted} -maxdepth 1 -name 'cocorr-run-*' -mtime +1 -exec rm -rf {{}} + 2>/dev/null"
            script = (
                f"umask 077; mkdir -p {self._quoted}; {stale}; "
                f"mkdir {run} && tar -xf - -C {run} || {{ rm -rf {run}; exit 1; }}"
            )
            self._call(script, content, _PUSH_LIMIT_S)

    def _execute(self, folder: Path, remote: str, start: str, request: RunRequest) -> int:
        """Run the agent, fetch what it left, have the folder removed; return the exit status, negative for a signal."""
        token = secrets.token_hex(16)
        run = shlex.quote(remote)
        # COPYFILE_DISABLE keeps a Mac from adding files of its own to a tar file.
        script = (
            f"cd {run} || exit 1; trap '' HUP PIPE; {start} >log.txt 2>&1; echo $? >status; "
            f'echo; echo {token}; for f in {" ".join(_ANSWERS)}; do test -e $f && set -- "$@" $f; done; '
            f'COPYFILE_DISABLE=1 tar -cf - "$@"; cd ..; rm -rf {run}'
        )
        # The pipe stays open and silent: the agent ends when it closes, which it also does when this process is killed.
        process = self._open(script, subprocess.PIPE)
        try:
            output, errors = communicate(process, request.time_limit_s + GRACE_S)
        except subprocess.TimeoutExpired:
            return -signal.SIGALRM
        finally:
            end(process)
        lost = self.lost(process.returncode, printable(last_words(errors)))
        _, found, content = output.partition(f"\n{token}\n".encode())
        if lost is not None and not found:
            raise lost
        if not found:
            raise DeviceError(f"{self.where()} broke off in the middle of a run: {printable(last_words(errors))}")
        return _unpack(content, folder)

    def _call(self, script: str, content: IO[bytes] | None = None, limit_s: float = _STEP_LIMIT_S) -> bytes:
        """Run a script to its end and return what it printed; raises DeviceError where it fails."""
        process = self._open(script, subprocess.DEVNULL if content is None else content)
        try:
            output, errors = communicate(process, limit_s)
        except subprocess.TimeoutExpired as error:
            raise DeviceError(f"{self.where()} did not answer within {limit_s:g} s") from error
        finally:
            end(process)
        lost = self.lost(process.returncode, printable(last_words(errors)))
        if lost is not None:
            raise lost
        if process.returncode != 0:
            if re.search(r"No space left|Wrote only|write error", errors.decode("utf-8", "replace")):
                message = f"{self.where()} has no space left in {self._folder}; free some, or give another folder"
                raise DeviceError(message)
            raise DeviceError(f"{self.where()}: {printable(last_words(errors)) or f'exit status {process.returncode}'}")
        return output

    def _open(self, script: str, content: int | IO[bytes]) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                self.command(script),
                stdin=content,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise DeviceError(f"{error.filename} is not installed on this machine; {self.name} needs it") from error


def _install(runtime: DeviceRuntime) -> str:
    return f"install it there: python3 -m pip install numpy {runtime.distribution}"


def _unpack(content: bytes, folder: Path) -> int:
    """Write the agent's files into `folder`, regular ones with the names expected only; return its exit status."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as file:
            for member in file:
                stored = file.extractfile(member) if member.isreg() and member.name in _ANSWERS else None
                if stored is not None:
                    (folder / member.name).write_bytes(stored.read())
        status = int((folder / "status").read_text(encoding="ascii"))
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise RuntimeCrashError(f"what the device sent back cannot be read: {printable(str(error))}") from error
    # A shell tells a signal as 128 and its number.
    return 128 - status if status > 128 else status
