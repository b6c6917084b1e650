"""The command line: thin, and quick to start; torch and the vendors' packages are imported by the work itself."""

import inspect
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from exporter import pipeline
from exporter.__main__ import main
from exporter.core.errors import CocorrError, UnknownNameError
from exporter.core.precision import Asked, Fold
from exporter.targets import TARGETS
from safeio.places import parse_path

if TYPE_CHECKING:
    from exporter.artifact.results import Refusal, Result

__all__ = ["app", "main"]


class _Commands(TyperGroup):
    """Says which models there are where somebody asks for one that is not."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        command = super().get_command(ctx, cmd_name)
        if command is None and not cmd_name.startswith("-"):
            others = [name for name in self.commands if name not in pipeline.model_names()]
            fail(
                UnknownNameError("model", cmd_name, pipeline.model_names()), f" (commands: {', '.join(sorted(others))})"
            )
        return command


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of the start-up time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Lower trained on-device recommenders to phone formats and prove that they still say the same thing there.",
)


def _option(text: str) -> Any:
    return typer.Option(help=text, parser=parse_path, metavar="PATH")


def _argument(name: str, text: str) -> Any:
    return typer.Argument(help=text, parser=parse_path, metavar=name)


Over = Annotated[
    str, typer.Option("--connection", help="host, emulator, or the device profile (name or file) whose device runs it.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace another artifact that stands at the place.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"cocorr-export {version('cocorr-export')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass


def fail(error: CocorrError, more: str = "") -> NoReturn:
    """End the command with the error's one line and exit code."""
    typer.echo(f"error: {error}{more}", err=True)
    sys.exit(error.exit_code)


def _progress(message: str) -> None:
    typer.echo(f"... {message}", err=True)


def _finish(results: "Sequence[Result | Refusal]", document: Mapping[str, object], as_json: bool) -> NoReturn:
    """Show the results, or the document that has them, and exit."""
    if as_json:
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        from exporter.report.console import print_artifacts

        print_artifacts(results)
    codes = {result.exit_code for result in results}
    sys.exit(1 if 1 in codes else max(codes))


_OWN_COMMANDS = (
    "export",
    "program",
    "parity",
    "profile",
    "compare",
    "explain",
    "swap",
    "run",
    "rank",
    "list",
    "passes",
    "doctor",
    "emulator",
    "device",
)
Target = Annotated[str, typer.Option(help=f"{', '.join(TARGETS)} or all.")]
Profile = Annotated[str, typer.Option(help="Name of a device profile, or a YAML file.")]
PrecisionOption = Annotated[
    Asked | None,
    typer.Option(
        "--precision",
        help="How tables+all else are stored; auto: the mildest that fits the budgets. The default is the profile's.",
    ),
]
Output = Annotated[Path, _option("Folder for the artifacts.")]


WithoutPass = Annotated[
    list[str] | None,
    typer.Option("--without-pass", help="A pass over the graph to leave out; may be given again.", show_default=False),
]


FoldOption = Annotated[
    Fold | None,
    typer.Option("--fold", help="How much larger for tables of computed rows; the default is the profile's."),
]


def _export(request: pipeline.ExportRequest, as_json: bool) -> NoReturn:
    results = pipeline.export(request, _progress)
    documents = [result.to_json() for result in results]
    several = request.target == "all"
    _finish(results, {"schema_version": 1, "artifacts": documents} if several else documents[0], as_json)


def _export_model(
    model: Annotated[str, typer.Option(help="FILE.py:SPEC, which runs that file, or the name of a model.")],
    target: Target,
    program: Annotated[str | None, typer.Option(help="Which graph of the model; the default is its main one.")] = None,
    profile: Profile = "generic",
    checkpoint: Annotated[Path | None, _option("Checkpoint folder; the default is the shipped one.")] = None,
    precision: PrecisionOption = None,
    output: Output = Path("artifacts"),
    history: Annotated[
        str | None,
        typer.Option(help="Whose sub-network: a user's item ids, oldest first, as CSV, or a text file of them."),
    ] = None,
    structure: Annotated[
        str | None, typer.Option(help="Which blocks run, one digit for each (101101); the default is the user's.")
    ] = None,
    embeddings: Annotated[
        pipeline.Embeddings,
        typer.Option(help="cached: the device gives embeddings of items in place of ids, and no catalogue ships."),
    ] = "shipped",
    untrained: Annotated[
        bool, typer.Option("--untrained", help="Draw the weights: costs and parity of an architecture.")
    ] = False,
    batch: Annotated[
        int, typer.Option(min=1, max=4096, help="Users in a call, of a program that runs in the cloud.")
    ] = 1,
    without_pass: WithoutPass = None,
    fold: FoldOption = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    choice = pipeline.ProgramChoice(
        model=model,
        program=program,
        checkpoint=checkpoint,
        history=history,
        structure=structure,
        embeddings=embeddings,
        untrained=untrained,
        batch=batch,
    )
    left_out = frozenset(without_pass or ())
    _export(pipeline.ExportRequest(choice, target, output, profile, precision, force, left_out, fold), as_json)


def _command_of(model: str) -> Callable[..., None]:
    """Return `_export_model` without its first parameter: the command of a model that has a name."""

    def command(**options: Any) -> None:
        _export_model(model, **options)

    whole = inspect.signature(_export_model)
    others = {name: parameter for name, parameter in whole.parameters.items() if name != "model"}
    command.__signature__ = whole.replace(parameters=list(others.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in others.items()}
    return command


app.command("export", help="Export a model of your own, FILE.py:SPEC, and verify what was made.")(_export_model)
for _model in pipeline.model_names():
    if _model not in _OWN_COMMANDS:
        app.command(_model, help=f"Export a trained {_model} and verify what was made.")(_command_of(_model))


@app.command("program")
def program(
    file: Annotated[Path, _argument("MODEL.pt2", "A program that torch.export.save wrote.")],
    inputs: Annotated[Path, _option("Golden inputs: an .npz with an array per input, the cases on the first axis.")],
    target: Target,
    ranking: Annotated[str | None, typer.Option(help="The output that scores candidates, whose order is kept.")] = None,
    outputs: Annotated[str | None, typer.Option(help="Names of the outputs, in order: scores,state.")] = None,
    profile: Profile = "generic",
    precision: PrecisionOption = None,
    output: Output = Path("artifacts"),
    without_pass: WithoutPass = None,
    fold: FoldOption = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Export any program that torch.export.save wrote; torch computes what its outputs should be."""
    names = None if outputs is None else tuple(name.strip() for name in outputs.split(","))
    choice = pipeline.SavedProgram(file, inputs, ranking, names)
    left_out = frozenset(without_pass or ())
    _export(pipeline.ExportRequest(choice, target, output, profile, precision, force, left_out, fold), as_json)


@app.command("parity")
def parity(
    artifact: Annotated[Path, _argument("ARTIFACT", "The folder of an exported artifact.")],
    connection: Over = "host",
    as_json: Json = False,
) -> None:
    """Run an artifact's golden cases again and judge it, from its folder alone."""
    result = pipeline.parity(artifact, _progress, connection)
    _finish([result], result.to_json(), as_json)


@app.command("profile")
def profile(
    artifact: Annotated[Path, _argument("ARTIFACT", "The folder of an exported artifact.")],
    iterations: Annotated[
        int, typer.Option(min=1, max=pipeline.MOST_ITERATIONS, help="Calls to time, after 20 to warm up.")
    ] = 200,
    against: Annotated[
        Path | None, _option("Another artifact: both are called in turn and their times compared.")
    ] = None,
    checkpoint: Annotated[
        Path | None, _option("Where the artifact comes from, for other lengths; default: the shipped one.")
    ] = None,
    samples: Annotated[bool, typer.Option("--samples", help="Put the time of every call into the document.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Fail where an operation could not be counted.")] = False,
    model: Annotated[
        str | None, typer.Option(help="FILE.py:SPEC of an artifact whose model is there, for other lengths.")
    ] = None,
    connection: Over = "host",
    as_json: Json = False,
) -> None:
    """Count, measure and time an artifact; the figures go into its manifest.json."""
    request = pipeline.ProfileRequest(artifact, iterations, samples, against, checkpoint, connection, model)
    result = pipeline.profile(request, _progress)
    if as_json:
        typer.echo(json.dumps(result.to_json(), indent=2, allow_nan=False))
    else:
        from exporter.report.profile import print_profile

        print_profile(result)
    uncounted = result.manifest.flops.uncounted if result.manifest.flops else ()
    sys.exit(1 if strict and uncounted else result.exit_code)


@app.command("compare")
def compare(
    artifacts: Annotated[list[Path], _argument("ARTIFACT...", "Folders of exported artifacts of one program.")],
    as_json: Json = False,
) -> None:
    """Put artifacts of one program side by side, of any targets and schemes, and say which to take."""
    compared = pipeline.compare(artifacts)
    if as_json:
        typer.echo(json.dumps(compared.to_json(), indent=2, allow_nan=False))
    else:
        from exporter.report.console import print_comparison

        print_comparison(compared)


@app.command("explain")
def explain(
    artifact: Annotated[Path, _argument("ARTIFACT", "The folder of an exported artifact.")],
    checkpoint: Annotated[
        Path | None, _option("Where the artifact comes from; the default is the shipped checkpoint.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="FILE.py:SPEC of an artifact whose model is there.")] = None,
    operations: Annotated[
        int, typer.Option("--ops", min=0, help="How many of the costliest operations to show beside it.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Say where the error of an artifact against torch comes from: its constants, and the values inside it."""
    explained = pipeline.explain(pipeline.ExplainRequest(artifact, checkpoint, model, operations), _progress)
    if as_json:
        typer.echo(json.dumps(explained.to_json(), indent=2, allow_nan=False))
    else:
        from exporter.report.explanation import print_explanation

        print_explanation(explained)


@app.command("swap")
def swap(
    artifact: Annotated[Path, _argument("ARTIFACT", "The folder of an artifact whose weights come from outside.")],
    package: Annotated[Path, _argument("PACKAGE", "The weights of a user: a package from the mapper (safetensors).")],
    output: Annotated[Path, _option("The folder of the new artifact.")],
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Give an artifact the weights of another user with the same structure; nothing is lowered again."""
    result = pipeline.swap(artifact, package, output, _progress, force)
    _finish([result], result.to_json(), as_json)


@app.command("rank")
def rank(
    artifact: Annotated[Path, _argument("ARTIFACT", "The folder of an exported artifact.")],
    history: Annotated[str, typer.Option(help="A user's item ids, oldest first, as CSV, or a text file of them.")],
    candidates: Annotated[
        str | None, typer.Option(help="The ids to rank, as CSV, or a text file of them; the default is all items.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many of them to show.")] = 10,
    connection: Over = "host",
    as_json: Json = False,
) -> None:
    """Rank items of the catalogue for a user's history, computed by the artifact in its own runtime."""
    ranking = pipeline.rank(pipeline.RankRequest(artifact, history, candidates, top, connection), _progress)
    if as_json:
        typer.echo(json.dumps(ranking.to_json(), indent=2, allow_nan=False))
    else:
        from exporter.report.console import print_ranking

        print_ranking(ranking)


@app.command("import")
def import_weights(
    file: Annotated[Path, _argument("FILE", "A state dict: safetensors, or torch.save(model.state_dict(), FILE).")],
    origin: Annotated[str, typer.Option("--as", help=f"Whose weights: {', '.join(pipeline.origin_names())}.")],
    output: Annotated[Path, _option("The checkpoint folder to write.")],
    data: Annotated[
        Path | None, _option("Clicks for the golden cases, in any form that cocorr-train reads; else they are drawn.")
    ] = None,
    items: Annotated[
        Path | None, _option("The ids of the item table's rows (items.tsv: row, id, clicks), as the clicks have them.")
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, where the weights do not show them.")] = None,
    history: Annotated[
        int | None, typer.Option(help="Clicks of a history, where the weights have no table of positions.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint of another model or other weights.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make a checkpoint of weights that other code trained."""
    request = pipeline.ImportRequest(file, origin, output, data, items, heads, history, force)
    imported = pipeline.import_weights(request, _progress)
    if as_json:
        typer.echo(json.dumps(imported.to_json(), indent=2))
    else:
        for line in imported.lines():
            typer.echo(line)


@app.command("run")
def run(
    package: Annotated[Path, _argument("PACKAGE", "Any Core ML program, an .mlpackage.")],
    inputs: Annotated[Path, _option("An .npz with an array per input.")],
    outputs: Annotated[Path, _option("The .npz to write.")],
    intermediates: Annotated[bool, typer.Option("--intermediates", help="Write every intermediate value too.")] = False,
) -> None:
    """Compute any Core ML program with the reference interpreter, on any machine."""
    for warning in pipeline.run_package(package, inputs, outputs, intermediates):
        typer.echo(f"warning: {warning}", err=True)


@app.command("list")
def list_names(what: Annotated[pipeline.Listing, typer.Argument()], as_json: Json = False) -> None:
    """List models, programs, targets, profiles or origins of weights."""
    rows = pipeline.listing(what)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, what: rows}, indent=2))
    else:
        from exporter.report.console import print_rows

        print_rows(rows)


@app.command("passes")
def passes(
    model: Annotated[
        str | None, typer.Argument(help="A model, by its name or FILE.py:SPEC, to see them at work.")
    ] = None,
    program: Annotated[str | None, typer.Option(help="Which graph of the model; the default is its main one.")] = None,
    checkpoint: Annotated[Path | None, _option("Checkpoint folder; the default is the shipped one.")] = None,
    untrained: Annotated[bool, typer.Option("--untrained", help="Draw the weights.")] = False,
    fold: Annotated[Fold, typer.Option(help="How much larger for tables of computed rows.")] = "same_size",
    as_json: Json = False,
) -> None:
    """List the passes that make a graph smaller and faster, and what each alone does to a model's."""
    choice = None
    if model is not None:
        choice = pipeline.ProgramChoice(model, program, checkpoint, untrained=untrained)
    rows = pipeline.passes(choice, fold)
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, "passes": rows}, indent=2))
    else:
        from exporter.report.console import print_rows

        print_rows(rows)


@app.command("doctor")
def doctor(as_json: Json = False) -> None:
    """Say which targets can be lowered and run here, which devices can be reached, and how to get what is missing."""
    found = pipeline.doctor()
    if as_json:
        typer.echo(json.dumps({"schema_version": 1, **found}, indent=2))
    else:
        from exporter.report.console import print_readiness

        for rows in found.values():
            print_readiness(rows)


emulator = typer.Typer(help="What runs ARM64 artifacts on this machine.", no_args_is_help=True)
app.add_typer(emulator, name="emulator")


@emulator.command("install")
def emulator_install() -> None:
    """Fetch and build what runs ARM64 artifacts here, into the cache folder, without root."""
    typer.echo(pipeline.install_emulator(_progress))


@emulator.command("remove")
def emulator_remove() -> None:
    """Remove all of it from the cache folder."""
    typer.echo("removed" if pipeline.remove_emulator() else "nothing was installed")


device = typer.Typer(help="What this tool keeps on a device.", no_args_is_help=True)
app.add_typer(device, name="device")


@device.command("clean")
def device_clean(profile: Annotated[str, typer.Argument(help="The device profile: its name, or a YAML file.")]) -> None:
    """Remove all that this tool ever left on the device: the bundle, and what broken runs could not tidy up."""
    typer.echo(f"removed everything from {pipeline.clean_device(profile)}")


if __name__ == "__main__":
    main()
