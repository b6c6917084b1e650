"""The command cocorr-train; torch is imported only once there is something to train."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

ARCHITECTURES: dict[str, dict[str, int]] = {"scn": {"dimension": 64, "heads": 4, "mini_batch": 10}}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Progress:
    """Prints notes with the time left to stderr, and on a terminal also a line that is overwritten between them."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Report that `done` of `total` batches are trained."""
        now = time.monotonic()
        if not note and (not self.terminal or now - self.shown < 0.5):
            return
        self.shown = now
        left = (now - self.started) / done * (total - done)
        line = f"{note or f'batch {done}/{total}'}, {left:.0f} s left"
        typer.echo(f"\r{line:<100}" if self.terminal else line, err=True, nl=bool(note))


@app.command()
def train(
    model: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(ARCHITECTURES)}.")],
    data: Annotated[Path, typer.Option(help="A .tsv or .tsv.gz with the columns user, item, order or timestamp.")],
    output: Annotated[Path, typer.Option(help="The checkpoint folder to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Makes a run repeatable.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data; the best one is kept.")] = 10,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="Of AdamW.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of AdamW.")] = 0.01,
    batch_size: Annotated[int, typer.Option(min=1, help="Positives per step.")] = 1024,
    history: Annotated[int, typer.Option(min=1, max=2048, help="Latest clicks that the model sees.")] = 10,
) -> None:
    """Train MODEL on interaction data and write a checkpoint with its metrics; exit code 2 for bad input."""
    if model not in ARCHITECTURES:
        _refuse(f"unknown model {model!r}; known: {', '.join(ARCHITECTURES)}")
    import torch

    from models.checkpoint import CheckpointError
    from models.training.data import DataError
    from models.training.loop import Settings
    from models.training.run import run

    # One thread: sums do not then depend on the number of cores, and with batches this small more threads gain little.
    torch.set_num_threads(1)
    settings = Settings(seed, epochs, learning_rate, weight_decay, batch_size, history)
    try:
        checkpoint = run(model, ARCHITECTURES[model], data, output, settings, Progress())
    except (DataError, CheckpointError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; nothing was written", err=True)
        raise typer.Exit(130) from None
    for part, values in checkpoint.config["metrics"].items():
        typer.echo(f"{part}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    typer.echo(f"wrote {output}")


def _refuse(message: str) -> None:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)


def main() -> None:
    """Run cocorr-train."""
    app()
