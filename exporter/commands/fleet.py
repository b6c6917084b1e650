"""The command that judges all users of a file of clicks: fleet."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, names, options
from exporter.commands.options import path_option
from exporter.core.precision import Stored
from exporter.targets import TARGETS
from safeio.progress import tell


def fleet(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A model that ranks: scn, ofa, sasrec, ...")],
    data: Annotated[Path, path_option("Clicks in any form that cocorr-train reads, or a folder of Parquet files.")],
    target: Annotated[str, typer.Option(help=f"{', '.join(TARGETS)}.", autocompletion=names.one_target)],
    output: Annotated[Path, path_option("The folder of the run; the same command goes on with what is there.")],
    precision: options.Precision = None,
    profile: options.Profile = "generic",
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    columns: Annotated[
        str | None, typer.Option(help="What the data calls its columns: user=NAME,item=NAME,time=NAME.")
    ] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="How many users, drawn; the default is all.")] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Processes; the default is one per processor.")
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option("--ray", metavar="ADDRESS", help="Work on Ray: local, or HOST:PORT of a cluster joined before."),
    ] = None,
    packages: Annotated[
        Path | None, path_option("ofa: a folder for the weights packages of all users, in shards.")
    ] = None,
    stored: Annotated[
        Stored | None, typer.Option(help="ofa: what packages are stored in; the default is the scheme's, fp32 or int8.")
    ] = None,
    parity_sample: Annotated[
        int | None, typer.Option(min=1, help="ofa: for how many users artifacts are run, drawn; the default is 1,000.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a run of another plan that stands there.")] = False,
    as_json: options.Json = False,
) -> None:
    """Judge an artifact by all users: what each gets from it beside torch, a row a user, and a summary."""
    request = pipeline.FleetRequest(
        model,
        data,
        target,
        output,
        precision,
        profile,
        checkpoint,
        columns,
        sample,
        workers,
        force,
        ray,
        packages,
        stored,
        parity_sample,
    )
    result = pipeline.fleet(request, tell)
    if as_json:
        ending.print_document(result.to_json())
    else:
        from exporter.report.fleet import print_fleet
        from exporter.report.fleet_ofa import print_fleet_ofa

        (print_fleet_ofa if "structures" in result.document else print_fleet)(result)
    sys.exit(result.exit_code)
