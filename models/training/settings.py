"""What a training may be asked for, with the bounds of every number: all are checked before any work begins."""

import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_args

from models.training.columns import BY_NAME, Columns
from safeio.errors import BadInputError

DEVICES = ("cpu", "cuda", "mps", "auto")
"""What a training may run on; `auto` is a GPU where there is one."""

BOUNDS: dict[str, tuple[float, float]] = {
    "seed": (0, 2**64 - 1),  # what torch takes
    "epochs": (1, 100_000),  # each has a row in the progress file
    "learning_rate": (0.0, 1e38),
    "weight_decay": (0.0, 1e38),
    "batch_size": (1, 1_000_000),
    "history": (1, 2048),
    "patience": (1, 100_000),
    "initial_std": (1e-6, 100.0),
    "min_rating": (-1e38, 1e38),
    "min_user_clicks": (1, 1_000_000_000),
    "min_item_clicks": (1, 1_000_000_000),
    "temperature": (0.01, 1e6),
    "compactness": (0.0, 1e6),
    "dropout": (0.0, 0.9),
    "targets_per_user": (1, 1_000_000),
    "sparsity": (0.0, 0.99),
}
"""The least and the most of each number; those with whole bounds are whole. Options have these names with dashes."""


class SettingsError(BadInputError, ValueError):
    """A number that no training can be asked for."""


class _Bounded:
    """A dataclass of numbers within BOUNDS; raises SettingsError where one is not."""

    def __post_init__(self) -> None:
        for field in fields(self):  # type: ignore[arg-type]  # only dataclasses inherit from it
            value, (least, most) = getattr(self, field.name), BOUNDS[field.name]
            if value is None and type(None) in get_args(field.type):
                continue
            whole = isinstance(least, int)
            right = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not right or not least <= value <= most:  # NaN is not within anything
                kind = "a whole number" if whole else "a number"
                name = field.name.replace("_", "-")
                raise SettingsError(f"--{name} must be {kind} from {least} to {most}, not {str(value)[:40]}")


@dataclass(frozen=True)
class Settings(_Bounded):
    """How to train; equal settings, data, thread count and torch version give equal weights.

    Training ends early after `patience` epochs without a better one, where that is not None. It starts from matrices
    drawn from N(0, initial_std), or where that is None from those that the model draws by itself.
    """

    seed: int
    epochs: int
    learning_rate: float
    weight_decay: float
    batch_size: int
    history: int
    patience: int | None = None
    initial_std: float | None = None


@dataclass(frozen=True)
class Filters(_Bounded):
    """Which interactions to keep: ratings of at least this, then users and items with at least so many clicks each.

    The last two hold together: what one of them takes away may bring others below the least number, which then go too.
    """

    min_rating: float | None = None
    min_user_clicks: int = 1
    min_item_clicks: int = 1


ALL = Filters()
"""Nothing is left out."""


@dataclass(frozen=True)
class NextItem(_Bounded):
    """What next-item training wants beside Settings.

    `temperature` is tau and `compactness` lambda, or the weight of the gates' L1 norm; `dropout` is of the embeddings
    that enter the first block; `targets_per_user` bounds the targets that each user has in one epoch, drawn anew for
    every epoch; None takes all. `sparsity` is the share of each weight matrix that a Rare Gem gives up; else None.
    """

    temperature: float
    compactness: float
    dropout: float
    targets_per_user: int | None
    sparsity: float | None = None


@dataclass(frozen=True)
class Request:
    """What `cocorr-train MODEL` was asked for; `architecture` has the sizes and names that are not the default ones.

    With `next_item` a model learns the next item among all, without it one positive among sampled negatives; the first
    kind is for `ofa`, and its weights are written in fp16. `start_from` is a checkpoint that was trained on the same
    data with the same seed: of an `ofa` without a mapper, which lends its embeddings and blocks, or of an SCN, which
    stays as it is while its GCN learns. `columns` says what the data calls its columns, where they are not found by
    their names. `device` is one of DEVICES; golden scores are computed on the CPU in any case. `force` replaces a
    checkpoint of another model or of other data.
    """

    model: str
    architecture: Mapping[str, int | str]
    data: Path
    output: Path
    settings: Settings
    filters: Filters
    next_item: NextItem | None = None
    start_from: Path | None = None
    columns: Columns = BY_NAME
    device: str = "cpu"
    force: bool = False

    @property
    def command(self) -> str:
        """Return the command that repeats the run, with file names in place of paths."""
        usual = asdict(ALL)
        chosen: dict[str, object] = {
            "data": self.data.name,
            "output": Path(os.path.realpath(self.output)).name,  # it may be given as `..`
            **asdict(self.settings),
            **{name: value for name, value in asdict(self.filters).items() if value != usual[name]},
            **{
                name: self.architecture.get(name)
                for name in ("mini_batch", "backbone", "method", "kept_blocks", "steps", "structure")
            },
            **(asdict(self.next_item) if self.next_item else {}),
            "start_from": self.start_from and self.start_from.name,
            "columns": shlex.quote(str(self.columns)) if self.columns.given else None,
            "device": self.device if self.device != "cpu" else None,
        }
        options = "".join(f" --{name.replace('_', '-')} {v}" for name, v in chosen.items() if v is not None)
        return f"cocorr-train {self.model}{options}{' --gcn' if self.architecture.get('gcn') else ''}"
