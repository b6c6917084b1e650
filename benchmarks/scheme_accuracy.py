"""What a scheme changes for all test users of a checkpoint: NDCG@10 and Hit@10 in torch, user by user beside fp32.

Users, their histories and the negatives are those of the checkpoint's own test, by the seed of its training. Among its
negatives an SCN and the like rank with the very graph that is lowered for ONNX: after all passes, with its tables as
they are stored, one user a call. Among all items, and Forward-OFA always, the model itself ranks with its table as it
is computed back; Forward-OFA's controller and mapper, which are the cloud's, stay in fp32. A body in fp16 is in the
first kind alone.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from exporter import profiles
from exporter.core.errors import BadInputError
from exporter.core.extras import without_noise
from exporter.core.precision import Precision, Tables, body_of, tables_of
from exporter.graph.editing import Editor
from exporter.graph.quantise import quantise
from exporter.pipeline import ProgramChoice
from exporter.pipeline import source as sources
from exporter.pipeline.lengths import Lowering
from models import checkpoint
from models.forward_ofa.supernet import Supernet
from models.layers import tower
from models.scn.network import SCN
from models.training.data import Interactions, read_interactions
from models.training.evaluation import Cases, ranking_cases, split_to_train_on
from models.training.metrics import ranks

COLUMNS = (
    "model",
    "among",
    "scheme",
    "users",
    "NDCG@10",
    "change, %",
    "95 %",
    "Hit@10",
    "change in Hit@10, %",
    "its 95 %",
)
TARGET, CUTOFF, BATCH = "onnx", 10, 256
Report = Callable[[str], None]
Ranked = tuple[str, Precision, np.ndarray]
"""Among what a scheme ranks, the scheme, and the ranks [U] from 0."""


def rows(model: str, folder: Path, data: Path, schemes: Sequence[Precision], say: Report) -> Iterator[list[str]]:
    """Yield the cells of each scheme; raises BadInputError where `data` has not what the checkpoint was trained on."""
    torch.set_num_threads(1)  # graphs of one user leave nothing to share
    config = checkpoint.read_config(folder)
    training = config["training"]
    interactions = read_interactions(data / training["data"], training["seed"])
    if training.get("data_sha256", interactions.sha256) != interactions.sha256:
        raise BadInputError(f"{training['data']} is not the file that the checkpoint was trained on")
    ways = (among_all,) if model == "ofa" else (among_negatives, among_all)
    references: dict[str, dict[str, np.ndarray]] = {}
    for way in ways:
        for among, scheme, rank in way(folder, config, interactions, schemes, say):
            gains = {"NDCG@10": np.where(rank < CUTOFF, 1 / np.log2(rank + 2.0), 0.0), "Hit@10": (rank < CUTOFF) * 1.0}
            reference = references.setdefault(among, gains)
            cells = []
            for name, gain in gains.items():
                percent, low, high = change(gain, reference[name])
                cells += [f"{gain.mean():.6f}", f"{percent:+.3f}", f"{low:+.3f} to {high:+.3f}"]
            yield [model, among, scheme, f"{len(rank):,}", *cells]


def change(values: np.ndarray, reference: np.ndarray) -> tuple[float, float, float]:
    """Return by how much the mean over users differs from that of `reference`, in percent, with its 95 % interval.

    The interval is that of a ratio of means of pairs, by the normal distribution (the delta method).
    """
    ratio = values.mean() / reference.mean()
    error = (values - ratio * reference).std(ddof=1) / np.sqrt(len(values)) / reference.mean()
    return tuple(100 * (ratio - 1 + away * error) for away in (0.0, -1.96, 1.96))


def among_negatives(
    folder: Path, config: Mapping, interactions: Interactions, schemes: Sequence[Precision], say: Report
) -> Iterator[Ranked]:
    """Yield the ranks of the positives among the negatives of the test, by each scheme."""
    split, negatives = split_to_train_on(interactions)
    cases = test_cases(config, interactions, split.test, negatives.test)
    choice = ProgramChoice(config["model"], checkpoint=folder)
    source = sources.load(choice, candidates=cases.candidate_ids.shape[1])
    for scheme in schemes:
        say(f"{config['model']} {scheme}: {len(cases.item_ids):,} users")
        lowering = Lowering(TARGET, scheme, profiles.load("generic").options_for(TARGET))
        with without_noise():
            program = lowering.captured(source).exported.module(check_guards=False)
        yield f"{negatives.test} negatives", scheme, ranks(scores(program, cases))


def test_cases(config: Mapping, interactions: Interactions, targets: np.ndarray, negatives: int) -> Cases:
    """Return the histories and candidates of a checkpoint's own test."""
    return ranking_cases(interactions, targets, config["history_length"], [config["training"]["seed"], 2], negatives)


def scores(program: Callable[..., Tensor], cases: Cases) -> np.ndarray:
    """Return the scores [U, 1 + negatives] of a program that takes one user a call."""
    users = zip(*map(torch.from_numpy, (cases.item_ids, cases.candidate_ids)), strict=True)
    with torch.no_grad():
        found = [program(item_ids=one[None], candidate_ids=other[None].int()) for one, other in users]
    return np.concatenate([next(iter(one.values())).float().numpy() for one in found])


def among_all(
    folder: Path, config: Mapping, interactions: Interactions, schemes: Sequence[Precision], say: Report
) -> Iterator[Ranked]:
    """Yield the ranks of the test items among all items, by each scheme with a body in fp32.

    For Forward-OFA, among the negatives too. Of models that VECTORS has not, nothing.
    """
    choice = ProgramChoice(config["model"], checkpoint=folder)
    cloud = sources.load(choice).model
    vectors = VECTORS.get(config["model"])
    if vectors is None:
        return
    split, negatives = split_to_train_on(interactions, sampled=config["model"] != "ofa")
    cases = test_cases(config, interactions, split.test, negatives.test)
    for scheme in schemes:
        if body_of(scheme) != "fp32":
            continue
        say(f"{config['model']} {scheme}: {len(split.test):,} users among all items")
        device = copy.deepcopy(cloud)
        if tables_of(scheme) != "fp32":
            device.items.weight.data = restored(cloud.items.weight.detach(), tables_of(scheme))
        all_ranks, some_ranks = [], []
        for start in range(0, len(split.test), BATCH):
            item_ids, candidate_ids = (
                torch.from_numpy(ids[start : start + BATCH]).long() for ids in (cases.item_ids, cases.candidate_ids)
            )
            with torch.no_grad():
                users, items = vectors(cloud, device, item_ids)
                found = users @ items.T  # [B, V]; row 0 is padding
            positive = candidate_ids[:, :1]
            all_ranks.append((~(found[:, 1:] < found.gather(1, positive))).sum(1).numpy() - 1)
            some_ranks.append(ranks(found.gather(1, candidate_ids).numpy()))
        yield "all items", scheme, np.concatenate(all_ranks)
        if config["model"] == "ofa":
            yield f"{negatives.test} negatives", scheme, np.concatenate(some_ranks)


def of_scn(_: nn.Module, device: SCN, item_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors of users and items."""
    return device.user(item_ids), tower(device.items.weight, device.candidate_hidden, device.candidate_output)


def of_ofa(cloud: Supernet, device: Supernet, item_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return the vectors of users, by weights that the cloud made of its own table, and of items."""
    structure = cloud.structure(item_ids)
    sent = cloud.generate(item_ids, structure)
    device.weights = lambda *_: sent
    return device.user_state(item_ids, structure), device.items.weight


VECTORS = {"scn": of_scn, "ofa": of_ofa}


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
