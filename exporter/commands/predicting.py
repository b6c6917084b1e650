"""The command that fits a latency predictor to sub-networks: the predict-latency of a model with blocks."""

from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, names, options
from exporter.commands.options import path_option
from safeio.progress import tell


def predict_latency(
    target: Annotated[str, typer.Option(help="The target to predict for.", autocompletion=names.targets)],
    output: Annotated[Path, path_option("The file to write, for --structure auto --predictor FILE.")],
    samples: Annotated[
        int | None,
        typer.Option(
            min=3,
            max=4096,
            help="Structures to lower and time, 6 or more, 3 with --from; 24, 6 with --from.",
            show_default=False,
        ),
    ] = None,
    known: Annotated[
        Path | None,
        path_option("A predictor of another target or profile, to be moved to this one.", "--from"),
    ] = None,
    program: options.Program = None,
    profile: options.Profile = "generic",
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Draw the weights, as export does.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that stands there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Time sub-networks where the profile says, and write a predictor of how long any of them takes."""
    choice = pipeline.ProgramChoice("ofa", program, checkpoint, untrained=untrained)
    count = samples or (24 if known is None else 6)
    request = pipeline.PredictRequest(choice, target, output, count, profile, known, force)
    predicting = pipeline.predict_latency(request, tell)
    if as_json:
        ending.print_document(predicting.to_json())
    else:
        for line in predicting.lines():
            typer.echo(line)
