"""What a scheme changes for all test users of a checkpoint: NDCG@10 and Hit@10 in torch, user by user beside fp32.

Users, their histories and the items that are ranked are those of the checkpoint's own test, by the seed of its
training. An SCN and the like rank the positive among the negatives of that test, with the very graph that is lowered
for ONNX: after all passes, with its tables as they are stored, one user a call. Forward-OFA ranks among all items:
controller and mapper, which are the cloud's, stay in fp32, and blocks and scores read the stored table.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from exporter import profiles
from exporter.core.errors import BadInputError
from exporter.core.extras import without_noise
from exporter.core.precision import Precision, Tables, tables_of
from exporter.graph.editing import Editor
from exporter.graph.quantise import quantise
from exporter.pipeline import ProgramChoice
from exporter.pipeline import source as sources
from exporter.pipeline.lengths import Lowering
from models import checkpoint
from models.forward_ofa.supernet import Supernet
from models.training.data import Interactions, histories, read_interactions
from models.training.evaluation import Cases, ranking_cases, split_to_train_on
from models.training.metrics import ranks

COLUMNS = ("model", "scheme", "users", "NDCG@10", "change, %", "95 %", "Hit@10", "change in Hit@10, %", "its 95 %")
TARGET, CUTOFF, BATCH = "onnx", 10, 256
Report = Callable[[str], None]


def rows(model: str, folder: Path, data: Path, schemes: Sequence[Precision], say: Report) -> Iterator[list[str]]:
    """Yield the cells of each scheme; raises BadInputError where `data` has not what the checkpoint was trained on."""
    config = checkpoint.read_config(folder)
    training = config["training"]
    interactions = read_interactions(data / training["data"], training["seed"])
    if training.get("data_sha256", interactions.sha256) != interactions.sha256:
        raise BadInputError(f"{training['data']} is not the file that the checkpoint was trained on")
    ranked = next_item if model == "ofa" else sampled
    reference = None
    for scheme, rank in ranked(folder, config, interactions, schemes, say):
        gains = {"NDCG@10": np.where(rank < CUTOFF, 1 / np.log2(rank + 2.0), 0.0), "Hit@10": (rank < CUTOFF) * 1.0}
        reference = reference or gains
        changes = [(gain.mean(), *change(gain, reference[name])) for name, gain in gains.items()]
        cells = [
            [f"{mean:.6f}", f"{percent:+.3f}", f"{low:+.3f} to {high:+.3f}"] for mean, percent, low, high in changes
        ]
        yield [model, scheme, f"{len(rank):,}", *cells[0], *cells[1]]


def change(values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Return by how much the mean over users differs from that of `reference`, in percent, with its 95 % interval.

    The interval is that of a ratio of means of pairs, by the normal distribution (the delta method).
    """
    ratio = values.mean() / reference.mean()
    error = (values - ratio * reference).std(ddof=1) / np.sqrt(len(values)) / reference.mean()
    return tuple(100 * (ratio - 1 + away * error) for away in (0.0, -1.96, 1.96))


def sampled(
    folder: Path, config: Mapping, interactions: Interactions, schemes: Sequence[Precision], say: Report
) -> Iterator[tuple[Precision, np.ndarray]]:
    """Yield the ranks [U] of the positives among the negatives of the test, by each scheme."""
    split, negatives = split_to_train_on(interactions)
    seed = [config["training"]["seed"], 2]
    cases = ranking_cases(interactions, split.test, config["history_length"], seed, negatives.test)
    choice = ProgramChoice(config["model"], checkpoint=folder)
    source = sources.load(choice, candidates=cases.candidate_ids.shape[1])
    for scheme in schemes:
        say(f"{config['model']} {scheme}: {len(cases.item_ids):,} users")
        lowering = Lowering(TARGET, scheme, profiles.load("generic").options_for(TARGET))
        with without_noise():
            program = lowering.captured(source).exported.module(check_guards=False)
        yield scheme, ranks(scores(program, cases))


def scores(program: Callable[..., Tensor], cases: Cases) -> np.ndarray:
    """Return the scores [U, 1 + negatives] of a program that takes one user a call."""
    users = zip(*map(torch.from_numpy, (cases.item_ids, cases.candidate_ids)), strict=True)
    with torch.no_grad():
        found = [program(item_ids=one[None], candidate_ids=other[None].int()) for one, other in users]
    return np.concatenate([next(iter(one.values())).float().numpy() for one in found])


def next_item(
    folder: Path, config: Mapping, interactions: Interactions, schemes: Sequence[Precision], say: Report
) -> Iterator[tuple[Precision, np.ndarray]]:
    """Yield the ranks [U] of the test items among all items, by each scheme."""
    cloud = sources.load(ProgramChoice(config["model"], checkpoint=folder)).model
    split, _ = split_to_train_on(interactions, sampled=False)
    for scheme in schemes:
        say(f"{config['model']} {scheme}: {len(split.test):,} users")
        device = copy.deepcopy(cloud)
        if tables_of(scheme) != "fp32":
            device.items.weight.data = restored(cloud.items.weight.detach(), tables_of(scheme))
        parts = np.split(split.test, range(BATCH, len(split.test), BATCH))
        yield scheme, np.concatenate([_ranks(cloud, device, interactions, part) for part in parts])


def _ranks(cloud: Supernet, device: Supernet, interactions: Interactions, targets: np.ndarray) -> np.ndarray:
    item_ids = torch.from_numpy(histories(interactions, targets, cloud.history_length))
    target = torch.from_numpy(interactions.items[targets].astype(np.int64))[:, None] - 1
    with torch.no_grad():
        structure = cloud.structure(item_ids)
        sent = cloud.generate(item_ids, structure)
        device.weights = lambda *_: sent
        all_scores = device.user_state(item_ids, structure) @ device.items.weight[1:].T
    return ((~(all_scores < all_scores.gather(1, target))).sum(1) - 1).numpy()


def restored(table: Tensor, tables: Tables) -> Tensor:
    """Return a table [V, D] as the graph's lookups compute it back after it was stored in fewer bits."""
    ids = torch.arange(len(table), dtype=torch.int32)
    module = torch.export.export(torch.nn.Embedding.from_pretrained(table), (ids,)).module(check_guards=False)
    editor = Editor(module, frozenset(), 1.0)
    quantise(editor, tables)
    editor.finish()
    with torch.no_grad():
        restored_rows: Tensor = module(ids)
    return restored_rows
