"""A headless Chromium that is driven by a pipe: no port is opened, and it ends when the pipe does, so with us.

All that it writes lies in one folder. A process of it that dies becomes an error that says what died of what.
"""

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

from exporter.connections import how_to_get as command_of
from exporter.connections.agent.contract import OUT_OF_MEMORY
from exporter.connections.browser.devtools import DevTools, EndedError, Message
from exporter.connections.browser.processes import end_all
from exporter.connections.host import SIGNALS
from exporter.connections.response import printable
from exporter.core.errors import CocorrError, DeviceError, RuntimeCrashError, RuntimeMemoryError

LIMIT_S = 60.0
"""For an answer of the browser; a start takes less than one second on an idle machine."""
_END_S = 10.0
_GONE_S = 1.0
_LOG_BYTES = 1 << 16
_LONGEST_TMPDIR = (
    56  # of the 104 bytes that macOS has for a socket's path, without /com.google.Chrome.XXXXXX/SingletonSocket
)

_NAMES = ("chromium", "chromium-headless-shell", "google-chrome", "google-chrome-stable", "chromium-browser", "chrome")
_BUNDLES = ("Google Chrome.app/Contents/MacOS/Google Chrome", "Chromium.app/Contents/MacOS/Chromium")
_APPLICATIONS = Path("/Applications")

_FLAGS = (
    *("--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run", "--no-default-browser-check"),
    "--disable-dev-shm-usage",  # containers have little of it
    # Nothing but what the page asks for goes over a network, and by no proxy of the desktop.
    *("--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-extensions", "--disable-default-apps", "--no-pings", "--no-proxy-server"),
    # No report of a crash, no dialog, no question to the desktop's store of passwords. Handlers of crashes come all
    # the same: with --disable-crashpad-for-testing, helpers of the whole Chromium crash without end.
    *("--disable-breakpad", "--noerrdialogs", "--deny-permission-prompts", "--block-new-web-contents"),
    *("--password-store=basic", "--use-mock-keychain", "--mute-audio"),
    # What is measured runs as if somebody looked at it.
    *("--disable-background-timer-throttling", "--disable-renderer-backgrounding"),
    "--disable-backgrounding-occluded-windows",
)
# Puts the ends of the pipes where Chromium looks for them, and becomes Chromium.
_LAUNCH = (
    "import os, sys; ends = [int(word) for word in sys.argv[1:3]]; os.dup2(ends[0], 3); os.dup2(ends[1], 4);"
    "os.close(ends[0]); os.close(ends[1]); os.execv(sys.argv[3], sys.argv[3:])"
)
_OUT_OF_MEMORY = re.compile(rf"{OUT_OF_MEMORY.pattern}|\bOOM\b", re.I)


def find() -> Path | None:
    """Return this machine's Chromium or Chrome; None where there is none that a run can use."""
    for name in _NAMES:
        found = shutil.which(name)
        if found is not None and Path(found).resolve().name != "snap":  # a snap sees no temporary folder of ours
            return Path(found).absolute()
    bundles = (_APPLICATIONS / bundle for bundle in _BUNDLES)
    return next((path for path in bundles if os.access(path, os.X_OK)), None)


def how_to_get() -> str:
    """Return how this system gets a Chromium that `find` finds."""
    with contextlib.suppress(OSError):  # no such file: not Linux
        if platform.freedesktop_os_release().get("ID") == "ubuntu":
            return "install Google Chrome from its own site: Ubuntu's Chromium is a snap, which sees no folder of a run"
    return command_of("chromium")


class Chromium:
    """A browser with a new profile; use it in a `with`, after which its folder can be removed.

    Raises DeviceError where it does not start, does not answer or ends, and where it refuses what it is told.
    """

    def __init__(self, program: Path, folder: Path) -> None:
        self.product = ""
        self._program, self._folder = program, folder
        self._tabs: set[str] = set()
        self._closed = False
        folder.mkdir(parents=True, exist_ok=True)
        self._start()
        try:
            self.product = printable(str(self.call("Browser.getVersion").get("product")))
            self.call("Target.setDiscoverTargets", discover=True)  # else nothing is said of a tab's end
            self.call("Browser.setDownloadBehavior", behavior="deny")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        flags = [*_FLAGS, f"--user-data-dir={self._profile}"]
        if os.geteuid() == 0:
            flags.append("--no-sandbox")  # it refuses to start as root with one
        its_input, writing = _pipe(inner=0)
        reading, its_output = _pipe(inner=1)
        self._devtools = DevTools(reading, writing, self.hear)
        launch = [sys.executable, "-I", "-S", "-c", _LAUNCH, str(its_input), str(its_output)]
        try:
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(
                    [*launch, str(self._program), *flags],
                    env=_environment(self._folder),
                    cwd=self._folder,
                    pass_fds=(its_input, its_output),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal reaches us only
                )
        except BaseException:
            self._devtools.close()
            raise
        finally:
            os.close(its_input)
            os.close(its_output)

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Message:
        """Call a method of the DevTools protocol, of a tab where its session is given, and return the result."""
        try:
            return self._devtools.call(method, LIMIT_S, session, parameters)
        except EndedError:
            raise self._ended() from None

    def new_tab(self) -> str:
        """Open an empty tab and return its session."""
        target = str(self.call("Target.createTarget", url="about:blank").get("targetId"))
        self._tabs.add(target)
        return str(self.call("Target.attachToTarget", targetId=target, flatten=True).get("sessionId"))

    def open(self, url: str) -> None:
        """Load a page in a new tab; from then on `attend` says how the tab ended."""
        failure = self.call("Page.navigate", self.new_tab(), url=url).get("errorText")
        if failure:
            raise DeviceError(f"the browser cannot open the page: {printable(str(failure))}")

    def fileno(self) -> int:
        """Return the descriptor that can be read when `attend` has something to do."""
        return self._devtools.fileno()

    def attend(self) -> None:
        """Take note of what the browser said meanwhile, without waiting for anything.

        Raises RuntimeMemoryError and RuntimeCrashError where a tab died, and DeviceError where the browser did.
        """
        try:
            self._devtools.attend()
        except EndedError:
            raise self._ended() from None

    def hear(self, event: Message) -> None:
        """Take note of an event of the protocol; raises what `attend` raises."""
        about = event.get("params")
        if event.get("method") != "Target.targetCrashed" or not isinstance(about, dict):
            return
        if str(about.get("targetId")) in self._tabs:
            raise self._dead(printable(str(about.get("status"))), about.get("errorCode"))

    def _dead(self, status: str, number: object) -> CocorrError:
        """Return the error for a tab of a page; `status` is Chromium's word for its end, `number` mostly a signal's."""
        how = SIGNALS.get(number, status) if isinstance(number, int) else status
        if number == signal.SIGKILL:
            return RuntimeMemoryError("the browser's tab was killed (SIGKILL), most likely for want of memory")
        if status == "oom" or self._told_of_memory():
            return RuntimeMemoryError(f"the browser's tab ran out of memory and died ({how})")
        if status == "killed":
            return RuntimeCrashError(f"the browser's tab was ended from outside ({how}); start this again")
        return RuntimeCrashError(f"the browser's tab crashed ({how}){self._last_words()}")

    def _told_of_memory(self) -> bool:
        """Say whether the browser's log has words for a lack of memory; Google's start script writes it a bit later."""
        deadline = time.monotonic() + _GONE_S
        while not (told := _OUT_OF_MEMORY.search(self._said())) and time.monotonic() < deadline:
            time.sleep(0.05)
        return told is not None

    def _ended(self) -> DeviceError:
        """Return the error for a browser that closed its pipe."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S)
        status = self._process.returncode
        # Debian's start script waits for its Chromium, and tells a signal as shells do: 128 and its number.
        number = None if status is None else -status if status < 0 else status - 128
        how = "closed its pipe" if number is None else f"ended ({SIGNALS.get(number, f'status {status}')})"
        words = self._last_words()
        if self.product:
            return DeviceError(f"the browser {how} before the run did; start this again{words}")
        return DeviceError(
            f"{self._program} does not start as a browser: it {how}; {_advice(words, self._program)}{words}"
        )

    @property
    def _profile(self) -> Path:
        return self._folder / "profile"

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    def _said(self) -> str:
        """Return the end of the log."""
        with self._log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _LOG_BYTES))
            return file.read(_LOG_BYTES).decode("utf-8", "replace")

    def _last_words(self) -> str:
        """Return the line of the log that says why, else its last one, in brackets; empty where it says nothing.

        Lines begin with time and source file in brackets. Those of a missing desktop and of a stack say nothing.
        """
        lines = [line for line in self._said().splitlines() if not re.match(r"\s*$|.*:ERROR:dbus|#\d+ 0x", line)]
        why = [line for line in lines if re.search(r":FATAL:|error while loading|Library not loaded", line)]
        last = [re.sub(r"^\[[^]]*\] *", "", line) for line in (why or lines)[-1:]]
        return "".join(f" [its last words: {printable(line)}]" for line in last)

    def close(self) -> None:
        """End the browser and all its processes: in order where it still answers, and then for sure."""
        if self._closed:
            return
        self._closed = True
        with contextlib.suppress(CocorrError, EndedError):
            if self.product:
                self._devtools.call("Browser.close", _END_S, None, {})
        self._devtools.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_S if self.product else _GONE_S)
        end_all(self._process, self._folder)
        _remove_socket(self._profile)


def _environment(folder: Path) -> dict[str, str]:
    """Return the only variables that the browser sees."""
    names = ["HOME", *(f"XDG_{kind}" for kind in ("CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "RUNTIME_DIR"))]
    # It makes a socket below TMPDIR, whose path must be short, or else in the system's own temporary place.
    if len(os.fsencode(folder)) <= _LONGEST_TMPDIR:
        names.append("TMPDIR")
    places = dict.fromkeys(names, str(folder))
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **places}


def _remove_socket(profile: Path) -> None:
    """Remove what a browser that was killed left where its socket was; one that ended in order left nothing."""
    with contextlib.suppress(OSError):
        place = (profile / "SingletonSocket").readlink().parent
        for name in ("SingletonSocket", "SingletonCookie"):
            (place / name).unlink(missing_ok=True)
        place.rmdir()


def _advice(words: str, program: Path) -> str:
    """Return what to do where it does not start, by its last words."""
    if "sandbox" in words.lower():
        return "let users make user namespaces here, which its sandbox needs, or install it as a package of this system"
    if "shared libraries" in words or "Library not loaded" in words:
        return f"install what it misses, or another one: {how_to_get()}"
    return f"try it by hand: {program} --headless --dump-dom about:blank"


def _pipe(inner: int) -> tuple[int, int]:
    """Return a pipe's reading and writing end; the browser's, at index `inner`, is numbered above 3 and 4."""
    ends = list(os.pipe())
    try:
        moved = fcntl.fcntl(ends[inner], fcntl.F_DUPFD_CLOEXEC, 10)
    finally:
        os.close(ends[inner])
    ends[inner] = moved
    return ends[0], ends[1]
