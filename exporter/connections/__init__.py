"""Ways to a place where an artifact runs; each starts the same agent there."""

import os
import shutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exporter.core.protocols import Connection
    from exporter.core.types import NpmPackage, Row

_PACKAGES = {
    "apt-get": {"ssh": "openssh-client", "adb": "adb", "chromium": "chromium"},
    "dnf": {"ssh": "openssh-clients", "adb": "android-tools", "chromium": "chromium"},
    "brew": {"ssh": "openssh", "adb": "--cask android-platform-tools", "chromium": "--cask google-chrome"},
}
_PARTS = {"ssh": "OpenSSH's client", "adb": "Android's SDK Platform-Tools", "chromium": "Chromium or Google Chrome"}


def connect(name: str, options: Mapping[str, Any]) -> "Connection":
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
    if name == "browser":
        from exporter.connections.browser.connection import BrowserConnection

        return BrowserConnection(**options)
    from exporter.connections.host import HostConnection

    return HostConnection()


def ways(web: "Sequence[NpmPackage]") -> "list[Row]":
    """Return a row per connection: what it needs with the versions, whether that is there, how to get it.

    `web` is what runs the targets' files in a browser.
    """
    from exporter.connections.browser import packages
    from exporter.connections.bundle import install

    rows = [install.survey(), packages.survey(web)]
    for tool in ("ssh", "adb"):
        found = shutil.which(tool)
        how = None if found else f"{tool} is not on the PATH; {how_to_get(tool)}"
        rows.append({"connection": tool, "packages": {tool: found}, "ready": found is not None, "install": how})
    return rows


def how_to_get(tool: str) -> str:
    """Return the command of this system's package manager that installs a tool, or what it is a part of."""
    for manager, packages in _PACKAGES.items():
        if shutil.which(manager) is not None:
            root = "" if manager == "brew" or os.geteuid() == 0 else "sudo "
            return f"get it with: {root}{manager} install {packages[tool]}"
    return f"install {_PARTS[tool]}"
