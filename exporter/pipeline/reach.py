"""Which device runs an artifact: named by a profile, or by a connection that needs no more than its name."""

from typing import TYPE_CHECKING

from exporter.connections import connect
from exporter.core.errors import BadInputError, ProfileError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from exporter.core.protocols import Connection
    from exporter.core.types import NpmPackage
    from exporter.profiles import Connection as Way


NAMED = ("host", "emulator", "browser")
"""The connections that need no more than their names."""


def reach(name: str) -> "Connection":
    """Return the connection of that name, or that of a profile; raises ProfileError or UnknownNameError."""
    return connect(*way_of(name).chosen())


def way_of(name: str) -> "Way":
    """Return how a connection is made that has a name of its own, or that of a profile; raises as `reach` does."""
    from exporter import profiles

    if name in NAMED:
        return profiles.Connection.model_validate(name)
    try:
        return profiles.load(name).connection
    except UnknownNameError as error:
        raise UnknownNameError("connection", name, {*NAMED, *profiles.shipped()}) from error


def by_devices(connection: str, devices: int) -> "Iterator[None]":
    """Yield once per device; from the second on, another phone is asked for. Raises BadInputError where none can come.

    Nobody but a person can bring another device, so several are for a page that a person opens.
    """
    way = reach(connection)
    if devices == 1:
        yield
        return
    from exporter.connections.browser.connection import BrowserConnection

    if not isinstance(way, BrowserConnection) or not way.is_for_phones:
        raise BadInputError(f"--devices is for phones that open a page, and {connection} is one device; leave it out")
    for device in range(devices):
        if device:
            way.next_device()
        yield


def clean_device(profile: str) -> str:
    """Remove all that this project left on a profile's device; return what the device is called."""
    from exporter.connections.remote import RemoteConnection

    connection = reach(profile)
    if not isinstance(connection, RemoteConnection):
        raise ProfileError(
            f"profile {profile!r} runs on this machine, where nothing is left; see: emulator remove, browser remove"
        )
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


def web_packages() -> "list[NpmPackage]":
    """Return the packages of npm that run the targets' files in a browser, of all targets that have some."""
    from exporter.targets import TARGETS

    runtimes = [target.runtime.web for target in TARGETS.values()]
    return [package for web in runtimes if web is not None for package in web.packages]


def install_browser(tarballs: "Sequence[Path]", report: "Callable[[str], None]") -> str:
    """Install what runs artifacts in a browser; return what is there then, in words."""
    from exporter.connections.browser.packages import install, place

    packages = web_packages()
    install(packages, tarballs, report)
    versions = ", ".join(f"{package.name} {package.version}" for package in packages)
    return f"{place(packages[0]).parent}: {versions}"


def remove_browser() -> bool:
    """Remove what runs artifacts in a browser; return whether it was there."""
    from exporter.connections.browser.packages import remove

    return remove()
