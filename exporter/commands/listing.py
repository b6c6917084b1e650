"""The commands that say what there is and what is ready: list, passes, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, options
from exporter.commands.options import path_option
from exporter.core.precision import Fold
from safeio.progress import tell


def list_names(what: Annotated[pipeline.Listing, typer.Argument()], as_json: options.Json = False) -> None:
    """List models, programs, targets, profiles or origins of weights."""
    rows = pipeline.listing(what)
    if as_json:
        ending.print_document({"schema_version": 1, what: rows})
    else:
        from exporter.report.console import print_rows

        print_rows(rows)


def passes(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A model, by its name or FILE.py:SPEC, to see them at work.", autocompletion=pipeline.model_names
        ),
    ] = None,
    program: options.Program = None,
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Draw the weights.")] = False,
    fold: Annotated[Fold, typer.Option(help="How much larger for tables of computed rows.")] = "same_size",
    as_json: options.Json = False,
) -> None:
    """List the passes that make a graph smaller and faster, and what each alone does to a model's."""
    choice = None
    if model is not None:
        choice = pipeline.ProgramChoice(model, program, checkpoint, untrained=untrained)
    rows = pipeline.passes(choice, tell, fold)
    if as_json:
        ending.print_document({"schema_version": 1, "passes": rows})
    else:
        from exporter.report.console import print_rows

        print_rows(rows)


def doctor(as_json: options.Json = False) -> None:
    """Say which targets can be lowered and run here, which devices can be reached, and how to get what is missing."""
    found = pipeline.doctor()
    if as_json:
        ending.print_document({"schema_version": 1, **found})
    else:
        from exporter.report.console import print_readiness

        for rows in found.values():
            print_readiness(rows)
