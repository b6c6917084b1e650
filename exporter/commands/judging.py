"""The commands that run or read artifacts: parity, profile, compare, explain, rank, run."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, options
from exporter.commands.options import path_argument, path_option
from safeio.progress import tell


def parity(
    artifacts: options.Artifacts,
    connection: options.Connection = "host",
    devices: options.Devices = 1,
    as_json: options.Json = False,
) -> None:
    """Run the golden cases of artifacts again and judge them, from their folders alone."""
    results = pipeline.parity_of_all(artifacts, tell, connection, devices)
    documents = [result.to_json() for result in results]
    several = {"schema_version": 1, "artifacts": documents}
    ending.finish(results, documents[0] if len(documents) == 1 else several, as_json)


def profile(
    artifact: options.Artifact,
    iterations: Annotated[
        int, typer.Option(min=1, max=pipeline.MOST_ITERATIONS, help="Calls to time, after 20 to warm up.")
    ] = 200,
    against: Annotated[
        Path | None, path_option("Another artifact: both are called in turn and their times compared.")
    ] = None,
    checkpoint: Annotated[
        Path | None, path_option("Where the artifact comes from, for other lengths; default: the shipped one.")
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Put the time of every call into the document.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where an operation could not be counted.")] = False,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:SPEC of an artifact whose model is there, for other lengths.")
    ] = None,
    connection: options.Connection = "host",
    devices: options.Devices = 1,
    no_write: Annotated[
        bool, typer.Option("--no-write", help="Only show the figures; the artifact's folder stays as it is.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Count, measure and time an artifact; the figures go into its manifest.json."""
    request = pipeline.ProfileRequest(
        artifact, iterations, samples, against, checkpoint, connection, model, not no_write
    )
    from exporter.artifact.results import Result

    results = pipeline.profile_by(request, devices, tell)
    measured = [result for result in results if isinstance(result, Result)]
    documents = [result.to_json() for result in results]
    if as_json:
        ending.print_document(documents[0] if devices == 1 else {"schema_version": 1, "artifacts": documents})
    else:
        from exporter.report.profile import print_profile

        for result in measured:
            print_profile(result, request.write)
    ending.print_unread(results)
    uncounted = any(result.manifest.flops and result.manifest.flops.uncounted for result in measured)
    sys.exit(1 if strict and uncounted else ending.exit_code(results))


def compare(
    artifacts: options.Artifacts,
    as_json: options.Json = False,
) -> None:
    """Put artifacts of one program side by side, of any targets and schemes, and say which to take."""
    compared = pipeline.compare(artifacts)
    if as_json:
        ending.print_document(compared.to_json())
    else:
        from exporter.report.console import print_comparison

        print_comparison(compared)


def explain(
    artifact: options.Artifact,
    checkpoint: Annotated[
        Path | None, path_option("Where the artifact comes from; the default is the shipped checkpoint.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="FILE.py:SPEC of an artifact whose model is there.")] = None,
    operations: Annotated[
        int, typer.Option("--ops", min=0, help="How many of the costliest operations to show beside it.")
    ] = 0,
    as_json: options.Json = False,
) -> None:
    """Say where the error of an artifact against torch comes from: its constants, and the values inside it."""
    explained = pipeline.explain(pipeline.ExplainRequest(artifact, checkpoint, model, operations), tell)
    if as_json:
        ending.print_document(explained.to_json())
    else:
        from exporter.report.explanation import print_explanation

        print_explanation(explained)


def rank(
    artifact: options.Artifact,
    history: Annotated[str, typer.Option(help="A user's item ids, oldest first, as CSV, or a text file of them.")],
    candidates: Annotated[
        str | None, typer.Option(help="The ids to rank, as CSV, or a text file of them; the default is all items.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of them to show.")] = 10,
    connection: options.Connection = "host",
    as_json: options.Json = False,
) -> None:
    """Rank items of the catalogue for a user's history, computed by the artifact in its own runtime."""
    ranking = pipeline.rank(pipeline.RankRequest(artifact, history, candidates, top, connection), tell)
    if as_json:
        ending.print_document(ranking.to_json())
    else:
        from exporter.report.console import print_ranking

        print_ranking(ranking)


def run(
    package: Annotated[Path, path_argument("PACKAGE", "Any Core ML program, an .mlpackage.")],
    inputs: Annotated[Path, path_option("An .npz with an array per input.")],
    outputs: Annotated[Path, path_option("The .npz to write.")],
    intermediates: Annotated[bool, typer.Option("--intermediates", help="Write every intermediate value too.")] = False,
) -> None:
    """Compute any Core ML program with the reference interpreter, on any machine."""
    for warning in pipeline.run_package(package, inputs, outputs, intermediates):
        typer.echo(f"warning: {warning}", err=True)
