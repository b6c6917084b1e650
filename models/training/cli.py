"""The command cocorr-train; torch is imported only once there is something to train."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from models.zoo import MODELS

BLOCKS = {"sasrec": 6, "nextitnet": 12}
DEFAULTS = {"sasrec": (1e-3, 5.0, 0.005), "nextitnet": (2e-3, 12.0, 0.001)}
"""Learning rate, temperature and compactness that the paper gives for each backbone of Forward-OFA."""
METHODS = ("forward_ofa", "devicerec", "controller", "duet", "no_structure_vector", "random", "first", "last")

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
    model: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(MODELS)}.")],
    data: Annotated[Path, typer.Option(help="A .tsv or .tsv.gz with the columns user, item, order or timestamp.")],
    output: Annotated[Path, typer.Option(help="The checkpoint folder to write.")],
    seed: Annotated[int, typer.Option(min=0, help="Makes a run repeatable.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data; the best one is kept.")] = 10,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Of AdamW; 1e-3 unless ofa says else.")] = None,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of AdamW.")] = 0.01,
    batch_size: Annotated[int, typer.Option(min=1, help="Positives per step.")] = 1024,
    history: Annotated[int, typer.Option(min=1, max=2048, help="Latest clicks that the model sees.")] = 10,
    backbone: Annotated[str | None, typer.Option(help=f"ofa: {' or '.join(BLOCKS)}.")] = None,
    method: Annotated[str | None, typer.Option(help=f"ofa: {', '.join(METHODS)}.")] = None,
    kept_blocks: Annotated[int | None, typer.Option(min=1, help="ofa: blocks of random, first and last.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.01, help="ofa: of the Gumbel-softmax.")] = None,
    compactness: Annotated[float | None, typer.Option(min=0.0, help="ofa: weight of the compact constraint.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=0.9, help="ofa: of the embedded clicks; 0.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="ofa: a devicerec checkpoint to start from.")] = None,
    targets_per_user: Annotated[int | None, typer.Option(min=1, help="ofa: drawn for an epoch; all if absent.")] = None,
) -> None:
    """Train MODEL on interaction data and write a checkpoint with its metrics; exit code 2 for bad input."""
    if model not in MODELS:
        _refuse(f"unknown model {model!r}; known: {', '.join(MODELS)}")
    only_ofa = (backbone, method, kept_blocks, temperature, compactness, dropout, start_from, targets_per_user)
    if model != "ofa" and any(option is not None for option in only_ofa):
        _refuse("--backbone and the options below it are for ofa")
    backbone, method = backbone or "sasrec", method or "forward_ofa"
    if backbone not in BLOCKS:
        _refuse(f"unknown backbone {backbone!r}; known: {', '.join(BLOCKS)}")
    if method not in METHODS:
        _refuse(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    import torch

    from models.checkpoint import CheckpointError
    from models.training.data import DataError
    from models.training.loop import Settings
    from models.training.next_item import NextItem
    from models.training.run import run

    # One thread: sums do not then depend on the number of cores, and with batches this small more threads gain little.
    torch.set_num_threads(1)
    architecture: dict[str, int | str] = {}
    options, rate = None, 1e-3
    if model == "ofa":
        rate, usual_temperature, usual_compactness = DEFAULTS[backbone]
        options = NextItem(
            usual_temperature if temperature is None else temperature,
            usual_compactness if compactness is None else compactness,
            dropout or 0.0,
            targets_per_user,
        )
        architecture |= {"blocks": BLOCKS[backbone], "backbone": backbone, "method": method}
        architecture |= {} if kept_blocks is None else {"kept_blocks": kept_blocks}
    rate = rate if learning_rate is None else learning_rate
    settings = Settings(seed, epochs, rate, weight_decay, batch_size, history)
    try:
        checkpoint = run(model, architecture, data, output, settings, Progress(), options, start_from)
    except (DataError, CheckpointError, ValueError) as error:
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
