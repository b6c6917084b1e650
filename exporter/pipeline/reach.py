"""Which device runs an artifact: named by a profile, or by a connection that needs no more than its name."""

from typing import TYPE_CHECKING

from exporter.connections import connect
from exporter.core.errors import ProfileError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable

    from exporter.core.protocols import Connection


def reach(name: str) -> "Connection":
    """Return the connection `host` or `emulator`, or that of a profile; raises ProfileError or UnknownNameError."""
    from exporter import profiles

    simple = {"host", "emulator"}
    if name in simple:
        return connect(*profiles.Connection.model_validate(name).chosen())
    try:
        return connect(*profiles.load(name).connection.chosen())
    except UnknownNameError as error:
        raise UnknownNameError("connection", name, {*simple, *profiles.shipped()}) from error


def clean_device(profile: str) -> str:
    """Remove all that this project left on a profile's device; return what the device is called."""
    from exporter.connections.remote import RemoteConnection

    connection = reach(profile)
    if not isinstance(connection, RemoteConnection):
        raise ProfileError(f"profile {profile!r} runs on this machine, where nothing is left; see: emulator remove")
    connection.clean()
    return connection.where()


def install_emulator(report: "Callable[[str], None]") -> str:
    """Install what the emulator needs; return what is there then, in words."""
    from exporter.connections.bundle.install import install
    from exporter.connections.bundle.pins import WHEELS
    from exporter.targets import TARGETS

    bundle = install([target for target in TARGETS.values() if target.runtime.bundled], report)
    names = ("qemu-user", *WHEELS)
    return f"{bundle.folder}: " + ", ".join(f"{name} {bundle.versions[name]}" for name in names)


def remove_emulator() -> bool:
    """Remove what the emulator needs; return whether it was there."""
    from exporter.connections.bundle import remove

    return remove()
