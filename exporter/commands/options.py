"""The options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from exporter import pipeline
from exporter.commands import names
from exporter.core.precision import Asked, Fold
from exporter.targets import TARGETS
from safeio.places import parse_path


def path_option(text: str, *names: str) -> Any:
    """Return an option that is a path; `names` are its own where the parameter cannot be called so."""
    return typer.Option(*names, help=text, parser=parse_path, metavar="PATH")


def path_argument(name: str, text: str) -> Any:
    """Return an argument that is a path."""
    return typer.Argument(help=text, parser=parse_path, metavar=name)


Artifact = Annotated[Path, path_argument("ARTIFACT", "The folder of an exported artifact.")]
Artifacts = Annotated[
    list[Path], path_argument("ARTIFACT...", "Folders of exported artifacts, or folders that hold some.")
]
Connection = Annotated[
    str,
    typer.Option(
        "--connection",
        help="host, emulator, browser, or the device profile (name or file) whose device runs it.",
        autocompletion=names.connections,
    ),
]
Devices = Annotated[
    int, typer.Option(min=1, max=100, help="Phones that run it, one after the other; for a page that people open.")
]
FoldLimit = Annotated[
    Fold | None,
    typer.Option("--fold", help="How much larger for tables of computed rows; the default is the profile's."),
]
ExportConnection = Annotated[
    str | None,
    typer.Option(
        "--connection",
        help="Where it is run, as of parity; the default is the profile's.",
        autocompletion=names.connections,
        show_default=False,
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace another artifact that stands at the place.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else there.")]
Output = Annotated[Path, path_option("Folder for the artifacts.")]
Precision = Annotated[
    Asked | None,
    typer.Option(
        "--precision",
        help="How tables+all else are stored; auto: the mildest that fits the budgets. The default is the profile's.",
    ),
]
Profile = Annotated[
    str, typer.Option(help="Name of a device profile, or a YAML file.", autocompletion=pipeline.profile_names)
]
Program = Annotated[
    str | None,
    typer.Option(help="Which graph of the model; the default is its main one.", autocompletion=names.programs),
]
Target = Annotated[str, typer.Option(help=f"{', '.join(TARGETS)} or all.", autocompletion=names.targets)]
WithoutPass = Annotated[
    list[str] | None,
    typer.Option("--without-pass", help="A pass over the graph to leave out; may be given again.", show_default=False),
]
