"""The commands that a team's CI calls: check, and report, which draws the same reports of any artifacts."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exporter import pipeline
from exporter.commands import ending, options
from exporter.commands.options import path_option
from exporter.core.errors import BadInputError
from safeio import files
from safeio.places import check_file, parse_path
from safeio.progress import tell

if TYPE_CHECKING:
    from exporter.artifact.results import Report

_ADVICE = "choose another file"
_CONFIG = Path("cocorr.yaml")

Junit = Annotated[Path | None, path_option("Write a JUnit file: a case for each artifact's parity and for each limit.")]
Markdown = Annotated[Path | None, path_option("Write Markdown that fits into a comment on a pull request.")]
Html = Annotated[Path | None, path_option("Write one page for a browser, with plots.")]


def check(
    config: Annotated[
        Path, typer.Argument(help="The configuration; its lock lies beside it.", parser=parse_path, metavar="[CONFIG]")
    ] = _CONFIG,
    init: Annotated[bool, typer.Option("--init", help="Write a first configuration, and check nothing.")] = False,
    checkpoint: Annotated[
        Path | None, path_option("With --init: the checkpoint that it is for; the default is what lies below it.")
    ] = None,
    update: Annotated[bool, typer.Option("--update", help="Write the baseline anew, if nothing fails.")] = False,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    annotations: Annotated[
        Path | None, path_option("Write GitHub's workflow commands, which show at the lines of the limits.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Export what changed of what a repository lists, judge all of it, and hold it to the committed baseline."""
    if init:
        if update:
            raise BadInputError("--init and --update are two steps; look at the configuration between them")
        for line in pipeline.start_config(config, checkpoint):
            typer.echo(line)
        return
    if checkpoint is not None:
        raise BadInputError("--checkpoint goes with --init; after that the configuration names it")
    lock = pipeline.lock_of(config)
    _check_places(junit, markdown, html, annotations, taken=(config, lock, config.parent / pipeline.CACHE_FOLDER))
    checked = pipeline.check(pipeline.CheckRequest(config, update, html is not None), tell)
    _write(checked, junit, markdown, html, annotations)
    if as_json:
        ending.print_document(checked.to_json())
    else:
        from exporter.report.gate import print_check

        print_check(checked)
        if update and checked.exit_code == 1:
            typer.echo(f"{checked.lock} is as it was: what fails is no baseline")
        elif update:
            typer.echo(f"{checked.lock} is written; commit it")
    sys.exit(checked.exit_code)


def report(
    artifacts: options.Artifacts,
    junit: Junit = None,
    markdown: Markdown = None,
    html: Html = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Also look for where errors come from, value by value; takes some time.")
    ] = False,
    checkpoint: Annotated[
        Path | None, path_option("With --explain: where artifacts come from; the default is the shipped checkpoint.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="With --explain: FILE.py:SPEC of an artifact whose model is there.")
    ] = None,
    connection: options.Connection = "host",
) -> None:
    """Run artifacts again and write a report of them: HTML, Markdown or JUnit."""
    if junit is markdown is html is None:
        raise BadInputError("say what is to be written: --html FILE, --markdown FILE, --junit FILE, or several of them")
    if not explain and (checkpoint is not None or model is not None):
        raise BadInputError("--checkpoint and --model go with --explain")
    _check_places(junit, markdown, html)
    request = pipeline.ReportRequest(tuple(artifacts), connection, explain, checkpoint, model)
    made = pipeline.report_on(request, tell)
    _write(made, junit, markdown, html)
    for path in (junit, markdown, html):
        if path is not None:
            typer.echo(str(path))
    sys.exit(made.exit_code)


def _check_places(*paths: Path | None, taken: Sequence[Path] = ()) -> None:
    """Raise OutputError before the work begins where a report could not be written, or something else has its place.

    `taken` are files and folders of the gate's own.
    """
    named = [path for path in paths if path is not None]
    for path in named:
        real = check_file(path, _ADVICE)
        own = next((other for other in taken if real.is_relative_to(other.resolve())), None)
        if own is not None:
            raise BadInputError(f"{path}: {own} is the gate's own; {_ADVICE}")
    if len({path.resolve() for path in named}) < len(named):
        raise BadInputError("two reports have the same file; give each its own")


def _write(
    made: "Report", junit: Path | None, markdown: Path | None, html: Path | None, annotations: Path | None = None
) -> None:
    """Write each report that was asked for whole or not at all."""
    from exporter.report import annotations as commands
    from exporter.report import html as page
    from exporter.report import junit as cases
    from exporter.report import markdown as comment

    drawn: list[tuple[Path | None, Callable[[Report], str]]] = [
        (junit, cases.junit),
        (markdown, comment.markdown),
        (html, page.html),
        (annotations, lambda report: "".join(f"{line}\n" for line in commands.annotations(report))),
    ]
    for path, draw in drawn:
        if path is not None:
            files.replace_file(path, draw(made).encode(), _ADVICE)
