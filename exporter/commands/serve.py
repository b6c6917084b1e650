"""The command that serves a program of the cloud: serve."""

from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands.options import path_option
from exporter.core.precision import Stored
from safeio.progress import tell


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model with a part in the cloud: scn, ofa.")],
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    artifact: Annotated[
        Path | None, path_option("An artifact of its program for the cloud, in place of making one.")
    ] = None,
    bind: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 is any that is free.")] = 8000,
    stored: Annotated[
        Stored | None,
        typer.Option(help="What packages are stored in where a request does not say; the default is fp32."),
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=1024, help="Most users in one call of the model.")] = 32,
    queue: Annotated[int, typer.Option(min=1, max=65536, help="Most users that wait; more are answered 429.")] = 256,
    deadline: Annotated[float, typer.Option(min=0.01, max=600, help="Seconds within which a user is answered.")] = 10,
) -> None:
    """Serve what a model has in the cloud to devices over HTTP, verified first: weights packages, or corrections."""
    request = pipeline.ServeRequest(model, checkpoint, artifact, bind, port, stored, batch, queue, deadline)
    pipeline.serve(request, tell, lambda url: typer.echo(f"serving {model} at {url}"))
