"""How commands show what came of their work, and end."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

import typer

from safeio.errors import one_line

if TYPE_CHECKING:
    from exporter.artifact.results import Refusal, Result, Unread


def print_document(document: Mapping[str, object]) -> None:
    """Print one JSON document on stdout."""
    typer.echo(json.dumps(document, indent=2, allow_nan=False))


def finish(results: "Sequence[Result | Refusal | Unread]", document: Mapping[str, object], as_json: bool) -> NoReturn:
    """Show the results, or the document that has them, and exit.

    What could not be read outweighs a failure: nobody knows what it would have been.
    """
    from exporter.artifact.results import Unread

    if as_json:
        print_document(document)
    else:
        from exporter.report.console import print_artifacts

        print_artifacts([result for result in results if not isinstance(result, Unread)])
    print_unread(results)
    sys.exit(exit_code(results))


def print_unread(results: "Sequence[Result | Refusal | Unread]") -> None:
    """Say on stderr why some results are not there."""
    from exporter.artifact.results import Unread

    for result in results:
        if isinstance(result, Unread):
            typer.echo(one_line(f"error: {result.error}"), err=True)


def exit_code(results: "Sequence[Result | Refusal | Unread]") -> int:
    """Return the exit code of a command: that of the result that outweighs the others."""
    codes = {result.exit_code for result in results}
    return next(code for code in (2, 1, 3, 0) if code in codes)
