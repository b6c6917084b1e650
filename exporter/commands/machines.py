"""The commands about what this tool keeps on machines: emulator, browser, device, each with commands of its own."""

from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands.groups import Group
from exporter.commands.options import path_option
from safeio.progress import tell

emulator = typer.Typer(help="What runs ARM64 artifacts on this machine.", no_args_is_help=True, cls=Group)


@emulator.command("install")
def emulator_install() -> None:
    """Fetch and build what runs ARM64 artifacts here, into the cache folder, without root."""
    typer.echo(pipeline.install_emulator(tell))


@emulator.command("remove")
def emulator_remove() -> None:
    """Remove all of it from the cache folder."""
    typer.echo("removed" if pipeline.remove_emulator() else "nothing was installed")


browser = typer.Typer(help="What runs artifacts in a browser.", no_args_is_help=True, cls=Group)


@browser.command("install")
def browser_install(
    tarball: Annotated[
        list[Path] | None,
        path_option("A tarball of npm that you have, in place of npm; may be given again."),
    ] = None,
) -> None:
    """Fetch the runtimes for browsers with npm, as they are pinned, into the cache folder."""
    typer.echo(pipeline.install_browser(tarball or (), tell))


@browser.command("remove")
def browser_remove() -> None:
    """Remove all of them from the cache folder."""
    typer.echo("removed" if pipeline.remove_browser() else "nothing was installed")


device = typer.Typer(help="What this tool keeps on a device.", no_args_is_help=True, cls=Group)


@device.command("clean")
def device_clean(
    profile: Annotated[
        str, typer.Argument(help="The device profile: its name, or a YAML file.", autocompletion=pipeline.profile_names)
    ],
) -> None:
    """Remove all that this tool ever left on the device: the bundle, and what broken runs could not tidy up."""
    typer.echo(f"removed everything from {pipeline.clean_device(profile)}")
