"""Ways to a place where an artifact runs; each starts the same agent there."""

import shutil
from collections.abc import Mapping
from typing import Any

from exporter.core.protocols import Connection
from exporter.core.types import Row


def connect(name: str, options: Mapping[str, Any]) -> Connection:
    """Return the connection of that name with the options of a validated profile; nothing is reached yet."""
    if name == "emulator":
        from exporter.connections.emulator import EmulatorConnection

        return EmulatorConnection(options["cpu"])
    if name == "ssh":
        from exporter.connections.ssh import SshConnection

        return SshConnection(**options)
    if name == "adb":
        from exporter.connections.adb import AdbConnection

        return AdbConnection(**options)
    from exporter.connections.host import HostConnection

    return HostConnection()


def ways() -> list[Row]:
    """Return a row per connection: what it needs with the versions, whether that is there, how to get it."""
    from exporter.connections.bundle.install import survey

    rows = [survey()]
    for name, tool, package in (("ssh", "ssh", "openssh-client"), ("adb", "adb", "adb")):
        found = shutil.which(tool)
        how = None if found else f"install the package {package} of your system"
        rows.append({"connection": name, "packages": {tool: found}, "ready": found is not None, "install": how})
    return rows
