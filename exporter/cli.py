"""The command line: thin, and quick to start; torch and the vendors' packages are imported by the work itself."""

from collections.abc import Callable
from typing import Annotated

import typer

from exporter import pipeline
from exporter.__main__ import main
from exporter.commands import checking, exporting, fleet, judging, listing, machines, packages, predicting, serve
from exporter.commands.groups import Group

__all__ = ["app", "main"]

COMMANDS: dict[str, Callable[..., None]] = {
    "check": checking.check,
    "program": exporting.program,
    "parity": judging.parity,
    "profile": judging.profile,
    "compare": judging.compare,
    "explain": judging.explain,
    "report": checking.report,
    "swap": exporting.swap,
    "rank": judging.rank,
    "fleet": fleet.fleet,
    "package": packages.package,
    "ofa package": packages.make_package,
    "ofa predict-latency": predicting.predict_latency,
    "serve": serve.serve,
    "import": exporting.import_weights,
    "run": judging.run,
    "list": listing.list_names,
    "passes": listing.passes,
    "doctor": listing.doctor,
}
GROUPS = {"emulator": machines.emulator, "browser": machines.browser, "device": machines.device}


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # half of the start-up time of --help
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Lower trained on-device recommenders to phone formats and prove that they still say the same thing there.",
)


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


app.command("export", help="Export a model of your own, FILE.py:SPEC, and verify what was made.")(
    exporting.export_model
)
for _model in sorted(set(pipeline.model_names()) - {"export", *COMMANDS, *GROUPS}):
    app.command(_model, help=f"Export a trained {_model} and verify what was made.")(exporting.command_of(_model))
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


if __name__ == "__main__":
    main()
