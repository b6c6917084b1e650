"""The `ssh` connection: a board, a phone with a Linux userland, or a Mac, by the system's ssh and the user's keys."""

import shlex
from collections.abc import Sequence

from exporter.connections.remote import RemoteConnection
from exporter.core.errors import DeviceError

_LOST = 255  # ssh's own exit status for whatever happens to the connection
_OPTIONS = {
    "BatchMode": "yes",  # no question that nobody is there to answer
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
    "ForwardAgent": "no",
    "RequestTTY": "no",
}


class SshConnection(RemoteConnection):
    """Runs on `host`; user, port and keys are those of ssh's configuration unless they are given."""

    name = "ssh"
    system: str | None = None

    def __init__(
        self,
        host: str,
        port: int | None = None,
        user: str | None = None,
        config: str | None = None,
        folder: str = ".cache/cocorr-export",
        launcher: Sequence[str] = (),
    ) -> None:
        super().__init__(folder, launcher)
        self._host = host
        given = (("-p", port), ("-l", user), ("-F", config))
        self._given = [word for flag, value in given if value is not None for word in (flag, str(value))]

    def command(self, script: str) -> list[str]:
        """Return ssh's words; the far side's login shell, whichever it is, hands the script to sh."""
        options = [word for name, value in _OPTIONS.items() for word in ("-o", f"{name}={value}")]
        return ["ssh", *options, *self._given, "--", self._host, shlex.join(["exec", "sh", "-c", script])]

    def lost(self, status: int, words: str) -> DeviceError | None:
        """Return the error for a connection that could not be made or was lost."""
        if status != _LOST:
            return None
        advice = "; check that it is on and that this works: ssh " + shlex.quote(self._host)
        if "Host key verification failed" in words:
            advice = f"; its key is not known, or not the one that is: run ssh {shlex.quote(self._host)} once"
        return DeviceError(f"ssh cannot reach {self._host!r}: {words}{advice}")

    def where(self) -> str:
        """Return the host's name."""
        return self._host
