"""The `adb` connection: an Android device, which is given the bundle once: a phone has no Python and no glibc."""

import re
import shutil
import subprocess
from collections.abc import Sequence

from exporter.connections.remote import RemoteConnection
from exporter.connections.response import printable
from exporter.core.errors import DeviceError

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_TIME_LIMIT_S = 30
_ADVICE = {
    "unauthorized": "unlock it and allow this computer to debug it",
    "offline": "plug it in again, or restart adb: adb kill-server",
    "no permissions": "this user may not use its USB device; see `adb devices`",
}


class AdbConnection(RemoteConnection):
    """Runs on the Android device with this serial number, or on the only one there is."""

    name = "adb"
    system: str | None = "linux"
    own_python = False

    def __init__(
        self, serial: str | None = None, folder: str = "/data/local/tmp", launcher: Sequence[str] = ()
    ) -> None:
        super().__init__(folder, launcher)
        self._wanted = serial
        self._serial: str | None = None

    def command(self, script: str) -> list[str]:
        """Return adb's words; without a terminal its streams carry any bytes."""
        if self._serial is None:
            self._serial = choose(self._wanted)
        return ["adb", "-s", self._serial, "shell", "-T", script]

    def lost(self, status: int, words: str) -> DeviceError | None:
        """Return the error for a device that is not there any more; adb tells it by its words only."""
        if status != 0 and re.match(r"(adb: )?(error: |adb: )?(device|no devices|closed|protocol fault|cannot)", words):
            return DeviceError(f"adb lost {self.where()}: {words}; check the cable and `adb devices`")
        return None

    def where(self) -> str:
        """Return the serial number."""
        return f"the device {self._serial}"


def choose(wanted: str | None) -> str:
    """Return the serial number of the device that is meant, ready for use; raises DeviceError."""
    if shutil.which("adb") is None:
        raise DeviceError("adb is not installed on this machine; it comes with Android's platform tools")
    try:
        done = subprocess.run(
            ["adb", "devices"],  # noqa: S607 - the one that the user has on the path
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DeviceError(f"adb did not answer within {_TIME_LIMIT_S} s; restart it: adb kill-server") from error
    lines = [line.partition("\t") for line in done.stdout.splitlines() if "\t" in line]
    found = {serial: state.strip() for serial, _, state in lines if _SERIAL.fullmatch(serial)}
    listed = printable(", ".join(f"{serial} ({state})" for serial, state in found.items())) or "none"
    if done.returncode != 0:
        raise DeviceError(f"adb does not work: {printable(done.stderr)}")
    if wanted is None and len(found) != 1:
        what = "no device" if not found else "more than one device"
        raise DeviceError(f"adb sees {what}: {listed}; connect one, or give its serial number in the profile")
    serial = wanted or next(iter(found))
    state = found.get(serial)
    if state is None:
        raise DeviceError(f"adb sees no device {serial}; it sees: {listed}")
    if state != "device":
        advice = next((words for known, words in _ADVICE.items() if state.startswith(known)), "see `adb devices`")
        raise DeviceError(f"the device {serial} is {printable(state)}: {advice}")
    return serial
