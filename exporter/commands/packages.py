"""The commands that hand out one user's weights package: package, and the package of a model with a cloud."""

from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, options
from exporter.commands.options import path_argument, path_option
from exporter.core.precision import Stored
from safeio.progress import tell

_Output = Annotated[Path, path_option("The file to write.")]
_Force = Annotated[bool, typer.Option("--force", help="Replace a file that stands there.")]


def package(
    folder: Annotated[Path, path_argument("DIR", "What fleet ofa --packages wrote.")],
    user: Annotated[str, typer.Argument(metavar="USER", help="The user's id, as the file of clicks has it.")],
    output: _Output,
    force: _Force = False,
    as_json: options.Json = False,
) -> None:
    """Take the weights package of one user out of those of a fleet."""
    _told(pipeline.take_package(folder, user, output, force), as_json)


def make_package(
    history: Annotated[str, typer.Option(help="The user's item ids, oldest first, as CSV, or a text file of them.")],
    output: _Output,
    structure: Annotated[
        str | None, typer.Option(help="Which blocks run, one digit for each; the default is the user's own.")
    ] = None,
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    stored: Annotated[Stored, typer.Option(help="What the weights are stored in.")] = "fp32",
    force: _Force = False,
    as_json: options.Json = False,
) -> None:
    """Make the weights package of one user, as the cloud sends it."""
    request = pipeline.PackageRequest("ofa", history, output, structure, checkpoint, stored, force)
    _told(pipeline.make_package(request, tell), as_json)


def _told(packed: pipeline.Packed, as_json: bool) -> None:
    if as_json:
        ending.print_document(packed.to_json())
    else:
        told = f"{packed.size_bytes:,} bytes, structure {packed.structure}, SHA-256 {packed.sha256}"
        typer.echo(f"{packed.place}: {told}")
