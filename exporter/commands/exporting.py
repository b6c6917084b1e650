"""The commands that make artifacts and checkpoints: export and one per model, program, swap, import."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from exporter import pipeline
from exporter.commands import ending, options
from exporter.commands.options import path_argument, path_option
from safeio.progress import tell


def _export(request: pipeline.ExportRequest, as_json: bool) -> NoReturn:
    results = pipeline.export(request, tell)
    documents = [result.to_json() for result in results]
    several = request.target == "all"
    ending.finish(results, {"schema_version": 1, "artifacts": documents} if several else documents[0], as_json)


def export_model(
    model: Annotated[str, typer.Option(help="FILE.py:SPEC, which runs that file, or the name of a model.")],
    target: options.Target,
    program: options.Program = None,
    profile: options.Profile = "generic",
    checkpoint: Annotated[Path | None, path_option("Checkpoint folder; the default is the shipped one.")] = None,
    precision: options.Precision = None,
    output: options.Output = Path("artifacts"),
    history: Annotated[
        str | None,
        typer.Option(help="Whose sub-network: a user's item ids, oldest first, as CSV, or a text file of them."),
    ] = None,
    structure: Annotated[
        str | None,
        typer.Option(help="Which blocks run, a digit each (101101), or auto; the default is the user's."),
    ] = None,
    predictor: Annotated[
        Path | None,
        path_option("With --structure auto, to keep budgets.latency_us: what `ofa predict-latency` wrote."),
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
    without_pass: options.WithoutPass = None,
    fold: options.FoldLimit = None,
    connection: options.ExportConnection = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Export a program of a model, and end the command."""
    choice = pipeline.ProgramChoice(
        model=model,
        program=program,
        checkpoint=checkpoint,
        history=history,
        structure=structure,
        predictor=predictor,
        embeddings=embeddings,
        untrained=untrained,
        batch=batch,
    )
    left_out = frozenset(without_pass or ())
    request = pipeline.ExportRequest(choice, target, output, profile, precision, force, left_out, fold, connection)
    _export(request, as_json)


def command_of(model: str) -> Callable[..., None]:
    """Return `export_model` without its first parameter: the command of a model that has a name."""

    def command(**options: Any) -> None:
        export_model(model, **options)

    whole = inspect.signature(export_model)
    others = {name: parameter for name, parameter in whole.parameters.items() if name != "model"}
    command.__signature__ = whole.replace(parameters=list(others.values()))  # type: ignore[attr-defined]
    command.__annotations__ = {name: parameter.annotation for name, parameter in others.items()}
    return command


def program(
    file: Annotated[Path, path_argument("MODEL.pt2", "A program that torch.export.save wrote.")],
    inputs: Annotated[
        Path, path_option("Golden inputs: an .npz with an array per input, the cases on the first axis.")
    ],
    target: options.Target,
    ranking: Annotated[str | None, typer.Option(help="The output that scores candidates, whose order is kept.")] = None,
    outputs: Annotated[str | None, typer.Option(help="Names of the outputs, in order: scores,state.")] = None,
    profile: options.Profile = "generic",
    precision: options.Precision = None,
    output: options.Output = Path("artifacts"),
    without_pass: options.WithoutPass = None,
    fold: options.FoldLimit = None,
    connection: options.ExportConnection = None,
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Export any program that torch.export.save wrote; torch computes what its outputs should be."""
    names = None if outputs is None else tuple(name.strip() for name in outputs.split(","))
    choice = pipeline.SavedProgram(file, inputs, ranking, names)
    left_out = frozenset(without_pass or ())
    request = pipeline.ExportRequest(choice, target, output, profile, precision, force, left_out, fold, connection)
    _export(request, as_json)


def swap(
    artifact: Annotated[Path, path_argument("ARTIFACT", "The folder of an artifact whose weights come from outside.")],
    package: Annotated[
        Path, path_argument("PACKAGE", "The weights of a user: a package from the mapper (safetensors).")
    ],
    output: Annotated[Path, path_option("The folder of the new artifact.")],
    force: options.Force = False,
    as_json: options.Json = False,
) -> None:
    """Give an artifact the weights of another user with the same structure; nothing is lowered again."""
    result = pipeline.swap(artifact, package, output, tell, force)
    ending.finish([result], result.to_json(), as_json)


def import_weights(
    file: Annotated[Path, path_argument("FILE", "A state dict: safetensors, or torch.save(model.state_dict(), FILE).")],
    origin: Annotated[
        str,
        typer.Option(
            "--as", help=f"Whose weights: {', '.join(pipeline.origin_names())}.", autocompletion=pipeline.origin_names
        ),
    ],
    output: Annotated[Path, path_option("The checkpoint folder to write.")],
    data: Annotated[
        Path | None,
        path_option("Clicks for the golden cases, in any form that cocorr-train reads; else they are drawn."),
    ] = None,
    items: Annotated[
        Path | None,
        path_option("The ids of the item table's rows (items.tsv: row, id, clicks), as the clicks have them."),
    ] = None,
    heads: Annotated[int | None, typer.Option(help="Attention heads, where the weights do not show them.")] = None,
    history: Annotated[
        int | None, typer.Option(help="Clicks of a history, where the weights have no table of positions.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint of another model or other weights.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Make a checkpoint of weights that other code trained."""
    request = pipeline.ImportRequest(file, origin, output, data, items, heads, history, force)
    imported = pipeline.import_weights(request, tell)
    if as_json:
        ending.print_document(imported.to_json())
    else:
        for line in imported.lines():
            typer.echo(line)
