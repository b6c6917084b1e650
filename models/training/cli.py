"""The options of cocorr-train; torch is imported only once there is something to train."""

import time
from pathlib import Path
from typing import Annotated

import typer

from models.forward_ofa.compared.switches import METHODS
from models.training.__main__ import main
from models.training.columns import BY_NAME, Columns, parse_columns
from models.training.progress import Passing
from models.training.settings import DEVICES, Filters, NextItem, Request, Settings, SettingsError
from models.zoo import MODELS, installed, is_known
from safeio.errors import BadInputError, nearest
from safeio.packages import MissingExtraError, missing
from safeio.places import parse_path
from safeio.progress import PassingLine, tell

__all__ = ["app", "main"]

BLOCKS = {"sasrec": 6, "nextitnet": 12}
DEFAULTS = {"sasrec": (1e-3, 5.0, 0.005), "nextitnet": (2e-3, 12.0, 0.001)}
"""Learning rate, temperature and compactness that the paper gives for each backbone of Forward-OFA."""
GATE_PENALTY = 0.01
"""In place of the compactness, for what gates: a weight of the share of gates that are open."""
SPARSITY = 0.5
STEPS = 10

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


class Progress:
    """Tells notes with the time left, and on a terminal what is done just now."""

    def __init__(self) -> None:
        self.started = self.shown = time.monotonic()
        self.before = 0
        self.line = PassingLine()

    def __call__(self, done: int, total: int, note: str) -> None:
        """Report that `done` of `total` batches are trained; a total of 0 stands for a note before or after that."""
        now = time.monotonic()
        passing = not note or isinstance(note, Passing)
        if passing and (not self.line.is_shown or now - self.shown < 0.5):
            return
        self.shown = now
        if note and (not total or note.startswith("going on")):  # what was done before has no part in the pace
            self.started, self.before = now, done
            self.line.end()
            tell(note)
            return
        left = (now - self.started) / max(done - self.before, 1) * (total - done)
        line = f"{note or f'batch {done}/{total}'}, {left:.0f} s left"
        if passing:
            self.line.show(line)
        else:
            self.line.stay(line)


@app.command(context_settings={"help_option_names": ["-h", "--help"]})
def train(
    model: Annotated[str, typer.Argument(help=f"The model to train: {', '.join(MODELS)}, or FILE.py:SPEC.")],
    data: Annotated[
        Path,
        typer.Option(
            parser=parse_path,
            metavar="FILE",
            help="Interactions, gzipped or not: MovieLens ratings.dat or ratings.csv, Amazon ratings (CSV) or reviews"
            " (JSON lines), Yelp reviews (JSON lines), Parquet, or a table with names such as user, item, timestamp.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            parser=parse_path, metavar="DIR", help="The checkpoint folder to write; repeat the command to go on."
        ),
    ],
    columns: Annotated[
        Columns | None,
        typer.Option(
            parser=parse_columns,
            metavar="user=NAME,item=NAME,time=NAME[,rating=NAME]",
            help="What the data calls its columns or keys, where their names do not tell.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Makes a run repeatable.")] = 0,
    epochs: Annotated[int, typer.Option(help="Passes over the data; the best one is kept.")] = 10,
    patience: Annotated[
        int | None, typer.Option(help="End after so many epochs without a better one; never if absent.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of AdamW; 1e-3 unless ofa says else.")] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.01,
    initial_std: Annotated[
        float | None, typer.Option(help="Of the first weights, all N(0, STD); the model's own if absent.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Positives per step.")] = 1024,
    history: Annotated[int, typer.Option(help="Latest clicks that the model sees.")] = 10,
    min_rating: Annotated[float | None, typer.Option(help="Leave lower ratings out.")] = None,
    min_user_clicks: Annotated[int, typer.Option(help="Leave users with fewer clicks out.")] = 1,
    min_item_clicks: Annotated[int, typer.Option(help="Leave items with fewer clicks out.")] = 1,
    gcn: Annotated[
        bool, typer.Option("--gcn", help="scn: with its GCN; jointly, or on top of --start-from, which stays as it is.")
    ] = False,
    mini_batch: Annotated[
        int | None, typer.Option(help="scn: clicks from which its inner weights learn at once; 10 if absent.")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help=f"ofa: {' or '.join(BLOCKS)}.")] = None,
    method: Annotated[str | None, typer.Option(help=f"ofa: {', '.join(METHODS)}.")] = None,
    kept_blocks: Annotated[int | None, typer.Option(help="ofa: blocks of random, first and last.")] = None,
    structure: Annotated[str | None, typer.Option(help="ofa, litepred: the blocks that run, a digit each.")] = None,
    temperature: Annotated[float | None, typer.Option(help="ofa: of the Gumbel-softmax.")] = None,
    compactness: Annotated[
        float | None, typer.Option(help="ofa: weight of the compact constraint; gater: of the gates' L1 norm.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="ofa, rare_gem: share of each weight matrix that is given up; 0.5.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="ofa, finetune: that each user's device takes on the user's clicks; 10.")
    ] = None,
    dropout: Annotated[float | None, typer.Option(help="ofa: of the embedded clicks; 0.")] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            parser=parse_path, metavar="DIR", help="A checkpoint to start from: ofa: a devicerec; scn --gcn: an scn."
        ),
    ] = None,
    targets_per_user: Annotated[int | None, typer.Option(help="ofa: drawn for an epoch; all if absent.")] = None,
    device: Annotated[str, typer.Option(help=f"What trains: {', '.join(DEVICES)}.")] = "cpu",
    force: Annotated[
        bool, typer.Option("--force", help="Replace a checkpoint of another model or of other data.")
    ] = False,
) -> None:
    """Train MODEL on interaction data and write a checkpoint with its metrics; exit code 2 for bad input."""
    if not is_known(model):
        known = ", ".join((*MODELS, *installed()))
        meant = nearest(model, (*MODELS, *installed()))
        raise SettingsError(f"unknown model {model!r}{meant}; known: {known}, or a model of your own: FILE.py:SPEC")
    only_ofa = {
        "backbone": backbone,
        "method": method,
        "kept-blocks": kept_blocks,
        "structure": structure,
        "steps": steps,
        "temperature": temperature,
        "compactness": compactness,
        "sparsity": sparsity,
        "dropout": dropout,
        "targets-per-user": targets_per_user,
    }
    given_to_others = [f"--{name}" for name, value in only_ofa.items() if value is not None]
    if model != "ofa" and given_to_others:
        raise SettingsError(f"{given_to_others[0]} is for ofa")
    if gcn and model != "scn":
        raise SettingsError("--gcn is for scn")
    if mini_batch is not None and model != "scn":
        raise SettingsError("--mini-batch is for scn")
    if start_from is not None and model != "ofa" and not gcn:
        raise SettingsError("--start-from is for ofa, and for scn with --gcn")
    backbone, method = backbone or "sasrec", method or "forward_ofa"
    usual_rate, usual_temperature, usual_compactness = _usual(backbone, method)
    architecture: dict[str, int | str] = {"gcn": 1} if gcn else {}
    architecture |= {} if mini_batch is None else {"mini_batch": mini_batch}
    options, rate = None, 1e-3
    if model == "ofa":
        rate = usual_rate
        options = NextItem(
            usual_temperature if temperature is None else temperature,
            usual_compactness if compactness is None else compactness,
            dropout or 0.0,
            targets_per_user,
            SPARSITY if sparsity is None and METHODS[method].sparse else sparsity,
        )
        if sparsity is not None and not METHODS[method].sparse:
            raise SettingsError("--sparsity is for the method rare_gem")
        if (structure is None) == (METHODS[method].structure == "given"):
            raise SettingsError("--structure, a digit for each block as in 110100, is what --method litepred trains")
        if temperature is not None and METHODS[method].structure != "controller":
            raise SettingsError(f"--temperature is for methods whose controller learns, and not for {method}")
        if compactness is not None and METHODS[method].structure != "controller" and not METHODS[method].gated:
            raise SettingsError(f"--compactness is for methods with a controller and for gater, and not for {method}")
        if steps is not None and not METHODS[method].tuned:
            raise SettingsError("--steps is for the method finetune")
        of_training = {"learning-rate": learning_rate, "patience": patience, "targets-per-user": targets_per_user}
        idle = [f"--{name}" for name, value in of_training.items() if value is not None]
        if METHODS[method].tuned and start_from is not None and idle:
            raise SettingsError(
                f"{idle[0]} is of training, and the blocks of finetune are not trained where --start-from gives them;"
                " leave one of the two out"
            )
        architecture |= {"blocks": BLOCKS[backbone], "backbone": backbone, "method": method}
        given = {"kept_blocks": kept_blocks, "structure": structure}
        architecture |= {name: value for name, value in given.items() if value is not None}
        architecture |= {"steps": STEPS if steps is None else steps} if METHODS[method].tuned else {}
    rate = rate if learning_rate is None else learning_rate
    settings = Settings(seed, epochs, rate, weight_decay, batch_size, history, patience, initial_std)
    filters = Filters(min_rating, min_user_clicks, min_item_clicks)
    if device not in DEVICES:
        raise SettingsError(f"unknown device {device!r}{nearest(device, DEVICES)}; known: {', '.join(DEVICES)}")
    named = columns or BY_NAME
    _run(Request(model, architecture, data, output, settings, filters, options, start_from, named, device, force))


def _usual(backbone: str, method: str) -> tuple[float, float, float]:
    """Return learning rate, temperature and compactness of a backbone; raises SettingsError for unknown names."""
    if backbone not in BLOCKS:
        raise SettingsError(f"unknown backbone {backbone!r}{nearest(backbone, BLOCKS)}; known: {', '.join(BLOCKS)}")
    if method not in METHODS:
        raise SettingsError(f"unknown method {method!r}{nearest(method, METHODS)}; known: {', '.join(METHODS)}")
    rate, temperature, compactness = DEFAULTS[backbone]
    return rate, temperature, GATE_PENALTY if METHODS[method].gated else compactness


def _run(request: Request) -> None:
    """Train, with progress on stderr, and print the metrics."""
    absent = missing(("pyarrow", "torch"))
    if absent:
        raise MissingExtraError(absent, "train")
    from models.training.readers import open_data

    open_data(request.data).close()  # torch takes seconds to import
    import torch

    # One thread: sums do not then depend on the number of cores, and with batches this small more threads gain little.
    torch.set_num_threads(1)
    from models.training.run import run

    progress = Progress()
    try:
        checkpoint = run(request, progress)
    except BadInputError:
        raise
    except ValueError as error:  # an architecture that is none
        raise BadInputError(str(error)) from error
    finally:
        progress.line.end()
    for part, values in checkpoint.config["metrics"].items():
        typer.echo(f"{part}: " + ", ".join(f"{name} {value:.4f}" for name, value in values.items()))
    typer.echo(f"wrote {request.output}")


if __name__ == "__main__":
    main()
