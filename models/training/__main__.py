"""The command cocorr-train; little is imported here, so that a signal finds its handler soon after the start."""

from typing import TYPE_CHECKING, NoReturn

from safeio import command, process

if TYPE_CHECKING:
    import typer

INTERRUPTED = "interrupted; repeat the command to go on after the last whole epoch"


def main() -> NoReturn:
    """Run cocorr-train and exit."""
    command.run(_load, INTERRUPTED)


def _load() -> "typer.Typer":
    from models.training.cli import app

    return app


if __name__ == "__main__":
    process.alone(main)
