"""How commands tell of their work, show what came of it and end."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from exporter.artifact.results import Refusal, Result


def progress(message: str) -> None:
    """Tell of one step, on stderr."""
    typer.echo(f"... {message}", err=True)


def print_document(document: Mapping[str, object]) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def finish(results: "Sequence[Result | Refusal]", document: Mapping[str, object], as_json: bool) -> NoReturn:
    """Show the results, or the document that has them, and exit."""
    if as_json:
        print_document(document)
    else:
        from exporter.report.console import print_artifacts

        print_artifacts(results)
    codes = {result.exit_code for result in results}
    sys.exit(1 if 1 in codes else max(codes))
