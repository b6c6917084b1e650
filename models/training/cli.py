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
        self.before = 0
        self.terminal = sys.stderr.isatty()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Report that `done` of `total` batches are trained; a total of 0 stands for a note before the training."""
        now = time.monotonic()
        if not note and (not self.terminal or now - self.shown < 0.5):
            return
        self.shown = now
        if note and (not total or note.startswith("going on")):  # what was done before has no part in the pace
            self.started, self.before = now, done
            typer.echo(note, err=True)
            return
        left = (now - self.started) / max(done - self.before, 1) * (total - done)
        line = f"{note or f'batch {done}/{total}'}, {left:.0f} s left"
        typer.echo(f"\r{line:<100}" if self.terminal else line, err=True, nl=bool(note))


@app.command()
def train(
    model: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(MODELS)}.")],
    data: Annotated[
        Path,
        typer.Option(
            help="Interactions, gzipped or not: MovieLens ratings.dat or ratings.csv, Amazon ratings (CSV) or reviews"
            " (JSON lines), Yelp reviews (JSON lines), or a table with a header such as user, item, timestamp."
        ),
    ],
    output: Annotated[Path, typer.Option(help="The checkpoint folder to write; repeat the command to go on.")],
    seed: Annotated[int, typer.Option(min=0, help="Makes a run repeatable.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data; the best one is kept.")] = 10,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many epochs without a better one; never if absent.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(min=0.0, help="Of AdamW; 1e-3 unless ofa says else.")] = None,
    weight_decay: Annotated[float, typer.Option(min=0.0, help="Of AdamW.")] = 0.01,
    initial_std: Annotated[
        float | None, typer.Option(min=1e-6, help="Of the first weights, all N(0, STD); the model's own if absent.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Positives per step.")] = 1024,
    history: Annotated[int, typer.Option(min=1, max=2048, help="Latest clicks that the model sees.")] = 10,
    min_rating: Annotated[float | None, typer.Option(help="Leave lower ratings out.")] = None,
    min_user_clicks: Annotated[int, typer.Option(min=1, help="Leave users with fewer clicks out.")] = 1,
    min_item_clicks: Annotated[int, typer.Option(min=1, help="Leave items with fewer clicks out.")] = 1,
    gcn: Annotated[
        bool, typer.Option("--gcn", help="scn: with its GCN; jointly, or on top of --start-from, which stays as it is.")
    ] = False,
    backbone: Annotated[str | None, typer.Option(help=f"ofa: {' or '.join(BLOCKS)}.")] = None,
    method: Annotated[str | None, typer.Option(help=f"ofa: {', '.join(METHODS)}.")] = None,
    kept_blocks: Annotated[int | None, typer.Option(min=1, help="ofa: blocks of random, first and last.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0.01, help="ofa: of the Gumbel-softmax.")] = None,
    compactness: Annotated[float | None, typer.Option(min=0.0, help="ofa: weight of the compact constraint.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0.0, max=0.9, help="ofa: of the embedded clicks; 0.")] = None,
    start_from: Annotated[
        Path | None, typer.Option(help="A checkpoint to start from: ofa: a devicerec; scn --gcn: an scn.")
    ] = None,
    targets_per_user: Annotated[int | None, typer.Option(min=1, help="ofa: drawn for an epoch; all if absent.")] = None,
) -> None:
    """Train MODEL on interaction data and write a checkpoint with its metrics; exit code 2 for bad input."""
    if model not in MODELS:
        _refuse(f"unknown model {model!r}; known: {', '.join(MODELS)}")
    only_ofa = (backbone, method, kept_blocks, temperature, compactness, dropout, targets_per_user)
    if model != "ofa" and any(option is not None for option in only_ofa):
        _refuse("--backbone and the options below it are for ofa")
    if gcn and model != "scn":
        _refuse("--gcn is for scn")
    if start_from is not None and model != "ofa" and not gcn:
        _refuse("--start-from is for ofa, and for scn with --gcn")
    backbone, method = backbone or "sasrec", method or "forward_ofa"
    if backbone not in BLOCKS:
        _refuse(f"unknown backbone {backbone!r}; known: {', '.join(BLOCKS)}")
    if method not in METHODS:
        _refuse(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    import torch

    from models.checkpoint import CheckpointError
    from models.training.data import Filters
    from models.training.loop import Settings
    from models.training.next_item import NextItem
    from models.training.readers import DataError
    from models.training.run import Request, run

    # One thread: sums do not then depend on the number of cores, and with batches this small more threads gain little.
    torch.set_num_threads(1)
    architecture: dict[str, int | str] = {"gcn": 1} if gcn else {}
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
    settings = Settings(seed, epochs, rate, weight_decay, batch_size, history, patience, initial_std)
    filters = Filters(min_rating, min_user_clicks, min_item_clicks)
    try:
        checkpoint = run(Request(model, architecture, data, output, settings, filters, options, start_from), Progress())
    except (DataError, CheckpointError, ValueError) as error:
        _refuse(str(error))
    except KeyboardInterrupt:
        typer.echo("\ninterrupted; repeat the command to go on after the last whole epoch", err=True)
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
