"""Training: reading, splitting, sampling and metrics by hand, and the command from a file to a checkpoint."""

import gzip
import json
import math
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score, roc_auc_score, top_k_accuracy_score
from typer.testing import CliRunner

from models import checkpoint
from models.forward_ofa.supernet import BACKBONES, Supernet
from models.scn.programs import SPEC
from models.training import cli, metrics, next_item
from models.training.data import Interactions, histories, leave_one_out, read_interactions
from models.training.readers import DataError
from models.training.run import run
from models.training.sampling import clicked, sample_negatives
from models.training.settings import BOUNDS, Filters, NextItem, Request, Settings, SettingsError
from models.zoo import load_spec

SETTINGS = Settings(seed=3, epochs=2, learning_rate=1e-2, weight_decay=0.01, batch_size=256, history=6)


def interactions(*users, vocabulary=200) -> Interactions:
    starts = np.concatenate([[0], np.cumsum([len(user) for user in users])])
    return Interactions(np.concatenate(users).astype(np.int32), starts, vocabulary, "")


@pytest.fixture
def train(cocorr_train):
    def run(data, output, *options, model="scn"):
        return cocorr_train(model, "--data", data, "--output", output, "--epochs", 2, "--batch-size", 256, *options)

    return run


def test_from_a_file_to_a_checkpoint_that_repeats_itself(clicks, tmp_path, train):
    first, again = train(clicks, tmp_path / "a" / "scn"), train(clicks, tmp_path / "b" / "scn")
    assert first.code == again.code == 0, first.err
    one, two = checkpoint.read(tmp_path / "a" / "scn"), checkpoint.read(tmp_path / "b" / "scn")
    assert one.sha256 == two.sha256
    assert set(one.config["metrics"]["test"]) == {
        "UAUC",
        *(f"{m}@{k}" for m in ("NDCG", "HitRate") for k in (5, 10, 20)),
    }
    assert "NDCG@10" in first.out
    assert "s left" in first.err
    assert str(tmp_path) not in json.dumps(dict(one.config))
    model = checkpoint.build(one, SPEC)
    with torch.no_grad():
        scores = model(torch.from_numpy(one.golden["item_ids"]), torch.from_numpy(one.golden["candidate_ids"]))
    np.testing.assert_allclose(scores, one.golden["scores"], rtol=1e-5, atol=1e-5)


def test_a_checkpoint_of_another_model_or_other_data_is_replaced_only_by_force(clicks, tmp_path, train):
    folder, renamed, grown = tmp_path / "it", tmp_path / "renamed.tsv", tmp_path / "grown.tsv"
    renamed.write_bytes(gzip.decompress(clicks.read_bytes()))
    grown.write_bytes(renamed.read_bytes() + b"\n7\t1007\t9999")
    assert train(clicks, folder, model="din").code == 0
    assert train(renamed, folder, "--seed", 1, model="din").code == 0  # the same data, however it is stored
    before = checkpoint.read(folder).sha256
    assert (
        f"{folder} holds another checkpoint: model din and not sasrec; choose"
        in train(clicks, folder, model="sasrec").refusal()
    )
    assert train(clicks, tmp_path / "long", "--epochs", 1, model="sasrec").code == 0
    longer = train(clicks, tmp_path / "long", "--history", 7, model="sasrec").refusal()
    assert "another checkpoint: history_length" in longer and "and not 7; choose" in longer
    made_from = (
        r"another checkpoint: made from renamed\.tsv \(\w{12}\) and not grown\.tsv \(\w{12}\); .* with --force\n"
    )
    assert re.search(made_from, train(grown, folder, model="din").refusal())
    assert checkpoint.read(folder).sha256 == before
    assert train(grown, folder, "--force", model="din").code == 0
    assert checkpoint.read(folder).config["training"]["data"] == "grown.tsv"


@pytest.mark.parametrize("model", ["scn", "din", "gru4rec", "sasrec", "bert4rec", "mamba4rec"])
def test_training_starts_from_weights_of_the_spread_that_is_asked_for(model, clicks, tmp_path, train):
    folder = tmp_path / model
    result = train(clicks, folder, "--learning-rate", "0", "--initial-std", "0.5", model=model)
    assert result.code == 0, result.err
    saved = checkpoint.read(folder)
    assert saved.config["training"]["initial_std"] == 0.5
    assert "--initial-std 0.5" in saved.config["training"]["command"]
    drawn = {name for name, tensor in saved.state.items() if tensor.dim() == 2 and not name.endswith("A_log")}
    drawn |= {"initial_weight"} & set(saved.state)
    for name, tensor in saved.state.items():
        if name in drawn:
            values = tensor[1:] if name == "items.weight" else tensor
            assert values.std().item() == pytest.approx(0.5, rel=0.2), name
        elif name.endswith("bias"):
            assert not tensor.any() or "conv1d" in name, name
    assert not saved.state["items.weight"][0].any()


def test_ids_stay_what_the_file_says(tmp_path, train):
    rng = np.random.default_rng(0)
    strange = ["01", "1", "001", "1_0", "a, b", 'say ""x""', "Käse 🧀", "\\t", *(f"i{n}" for n in range(300))]
    rows = [("user", "item", "time")]
    rows += [(user, strange[n], time) for user in range(40) for time, n in enumerate(rng.permutation(308)[:9])]
    rows += [(40, name, time) for time, name in enumerate(strange[:8])]
    lines = [f'{user},"{name}",{time}' if time != "time" else "user_id,item_id,time" for user, name, time in rows]
    (tmp_path / "clicks.csv").write_text("\n".join(lines))
    result = train(tmp_path / "clicks.csv", tmp_path / "scn", model="din")
    assert result.code == 0, result.err
    saved = checkpoint.read(tmp_path / "scn")
    assert saved.items[0] == ""
    clicked = [name.replace('""', '"') for _, name, _ in rows[1:]]
    assert sorted(saved.items[1:]) == sorted(set(clicked))
    last = [name for user, name, time in rows[1:] if user == 7][-3:-1]
    history = next(
        row[row != 0] for row in saved.golden["item_ids"] if [saved.items[i] for i in row[row != 0]][-2:] == last
    )
    assert len(history)  # what a golden history is called is what its user clicked, in that order
    listed = dict(line.split("\t")[1:] for line in saved.items_file.decode().splitlines()[1:])
    assert int(listed["1_0"]) == clicked.count("1_0")


def test_forward_ofa_from_a_file_to_a_checkpoint_that_repeats_itself(clicks, tmp_path, cocorr_train):
    options = ["--epochs", "1", "--batch-size", "256", "--history", "6", "--targets-per-user", "4", "--seed", "2"]
    folders = [tmp_path / name / "ofa" for name in "ab"]
    for folder in folders:
        result = cocorr_train("ofa", "--data", clicks, "--output", folder, *options)
        assert result.code == 0, result.err
    one, two = map(checkpoint.read, folders)
    assert one.sha256 == two.sha256
    assert sum(file.stat().st_size for file in folders[0].iterdir()) < 17_500_000  # fp16 on disk
    metrics, training = one.config["metrics"], one.config["training"]
    assert set(metrics["test"]) == {f"{m}@{k}" for m in ("NDCG", "HitRate") for k in (5, 10, 20)}
    parts = metrics["sub_networks"]
    runs = [parts[f"runs_block{index}"] for index in range(6)]
    assert parts["blocks"] == pytest.approx(sum(runs), abs=1e-5)
    assert parts["parameters"] == pytest.approx(sum(runs) * 20_800, abs=1)
    assert parts["macs"] == pytest.approx(sum(runs) * parts["macs_of_all_blocks"] / 6, rel=1e-5)
    assert (training["temperature"], training["compactness"], training["targets_per_user"]) == (5.0, 0.005, 4)
    assert "--backbone sasrec --method forward_ofa --temperature 5.0" in training["command"]
    assert "s left" in result.err
    model = checkpoint.build(one, load_spec("ofa"))
    with torch.no_grad():
        scores = model(torch.from_numpy(one.golden["item_ids"]), torch.from_numpy(one.golden["candidate_ids"]))
    np.testing.assert_allclose(scores, one.golden["scores"], rtol=1e-5, atol=1e-5)


def test_forward_ofa_starts_from_the_blocks_of_a_plain_backbone(clicks, tmp_path, cocorr_train):
    options = ["--data", clicks, "--epochs", "1", "--batch-size", "256", "--history", "6", "--targets-per-user"]
    plain, folder = tmp_path / "plain", tmp_path / "ofa"
    result = cocorr_train("ofa", *options, 3, "--method", "devicerec", "--output", plain)
    assert result.code == 0, result.err
    start = ["--start-from", plain, "--output", folder]
    result = cocorr_train("ofa", *options, 1, "--learning-rate", 0, *start)
    assert result.code == 0, result.err
    lender, ofa = checkpoint.read(plain), checkpoint.read(folder)
    assert ofa.config["training"]["start_from"]["sha256"] == lender.sha256
    assert "--start-from plain" in ofa.config["training"]["command"]
    for name, tensor in lender.state.items():
        own = ofa.state["mapper.linear.bias"].reshape(6, -1) if name == "own_weights" else ofa.state[name]
        assert torch.equal(own, tensor), name
    assert "with another seed" in cocorr_train("ofa", *options, 1, "--seed", 1, *start).refusal()
    refusal = cocorr_train(
        "ofa", *options, 1, "--backbone", "nextitnet", *start[:2], "--output", tmp_path / "new"
    ).refusal()
    assert "of the same backbone and sizes" in refusal


def test_next_item_training_learns_a_walk_and_ranks_among_all_items(clicks):
    data = read_interactions(clicks, 0)
    torch.manual_seed(0)
    model = Supernet(data.vocabulary, 16, 2, 6, "nextitnet", "controller")
    settings = Settings(seed=0, epochs=12, learning_rate=2e-2, weight_decay=0.0, batch_size=64, history=6)
    trained = next_item.train(model, data, settings, NextItem(5.0, 0.001, 0.0, None), lambda done, total, note: None)
    assert trained.metrics["test"]["NDCG@10"] > 5 * trained.metrics["test_by_popularity"]["NDCG@10"]
    targets = leave_one_out(data).test
    item_ids = torch.from_numpy(histories(data, targets, 6))
    everything = torch.arange(data.vocabulary, dtype=torch.int32).expand(len(targets), -1)
    with torch.no_grad():
        scores = model(item_ids, everything).numpy()
    own = data.items[targets]
    better = (scores[:, 1:] >= scores[np.arange(len(own)), own][:, None]).sum(1) - 1
    assert np.abs(next_item.full_ranks(model, data, targets) - better).max() <= 1  # one product or another rounds ties


def test_a_broken_model_ranks_last():
    data = interactions([1, 2, 3, 4], vocabulary=9)
    model = Supernet(9, 8, 2, 3, "sasrec", "devicerec").eval()
    torch.nn.init.constant_(model.own_weights, torch.nan)
    assert next_item.full_ranks(model, data, np.array([3])).tolist() == [7]


def test_targets_per_user_bounds_what_an_epoch_draws():
    owners = np.repeat([0, 2, 5], [7, 2, 4])
    drawn = [next_item._some(np.random.default_rng(seed), owners, 3) for seed in range(50)]
    assert all(np.bincount(owners[one], minlength=6).tolist() == [3, 0, 2, 0, 0, 3] for one in drawn)
    assert set(np.concatenate(drawn).tolist()) == set(range(13))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["scn", "--targets-per-user", "2"], "--targets-per-user is for ofa"),
        (["ofa", "--backbone", "bert"], "unknown backbone 'bert'; known: sasrec, nextitnet"),
        (["ofa", "--method", "best"], "unknown method 'best'; known: forward_ofa"),
        (["ofa", "--sparsity", "0.5"], "--sparsity is for the method rare_gem"),
        (["ofa", "--steps", "3"], "--steps is for the method finetune"),
        *(
            (
                ["ofa", "--method", "finetune", "--start-from", "x", option, "1"],
                f"{option} is of training, and the blocks",
            )
            for option in ("--learning-rate", "--patience", "--targets-per-user")
        ),
        (["ofa", "--method", "finetune", "--steps", "0"], "steps must be a whole number from 1 to 4096, not 0"),
        (["ofa", "--method", "rare_gem", "--epochs", "1"], "give --epochs 2 or more"),
        (["ofa", "--method", "first"], "the method first runs kept_blocks, 1 to 6 of them, not none"),
        (["ofa", "--method", "last", "--kept-blocks", "7"], "last runs kept_blocks, 1 to 6 of them, not 7"),
        (["ofa", "--method", "duet", "--kept-blocks", "2"], "kept_blocks is for the methods random, first and last"),
        (["ofa", "--method", "gater", "--temperature", "3"], "--temperature is for methods whose controller learns"),
        (["ofa", "--method", "sttd", "--compactness", "1"], "--compactness is for methods with a controller"),
        (["ofa", "--initial-std", "0.1"], "--initial-std is for runs that start from nothing, and not for ofa"),
        (["ofa", "--history", "600"], "history_length 600 is more than 512"),
        (
            ["ofa", "--method", "first", "--kept-blocks", "-1"],
            "kept_blocks must be a whole number from 1 to 4096, not -1",
        ),
        (["scn", "--output", ""], "an empty word stands where a path is wanted"),
        (["scn", "--data", ""], "an empty word stands where a path is wanted"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_options_that_do_not_go_together_are_refused(clicks, tmp_path, options, message, cocorr_train):
    assert message in cocorr_train("--data", clicks, "--output", tmp_path / "out", *options).refusal()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", BOUNDS)
def test_numbers_out_of_bounds_are_refused_before_anything_is_read(name, tmp_path, cocorr_train):
    least, most = BOUNDS[name]
    whole = isinstance(least, int)
    step = 1 if whole else max(1, abs(least) / 100)
    beyond = [least - step, most + step if whole else most * 1.01, *([] if whole else [math.nan, math.inf, -math.inf])]
    model = "ofa" if name in ("temperature", "compactness", "sparsity", "dropout", "targets_per_user") else "scn"
    option = f"--{name.replace('_', '-')}"
    for value in beyond:
        arguments = [f"{option}={value}", "--data", tmp_path / "none", "--output", tmp_path / "out"]
        assert f"{option} must be a" in cocorr_train(model, *arguments).refusal()
    kind = next(kind for kind in (Settings, Filters, NextItem) if name in kind.__dataclass_fields__)
    right = {field: max(BOUNDS[field][0], 0) for field in kind.__dataclass_fields__}
    for value in (least, most):
        kind(**{**right, name: value})
    for value in (*beyond, True, "1"):
        with pytest.raises(SettingsError, match=option):
            kind(**{**right, name: value})


@pytest.mark.parametrize("model", ["scn", "ofa"])
def test_what_the_data_cannot_give_is_refused_before_the_first_epoch(model, tmp_path, cocorr_train):
    rows = [f"{user}\t{(user + step) % 6}\t{step}" for user in range(30) for step in range(6)]
    (tmp_path / "few.tsv").write_text("\n".join(["user\titem\torder", *rows]))
    refusal = cocorr_train(model, "--data", tmp_path / "few.tsv", "--output", tmp_path / "out").refusal()
    assert "no negatives can be drawn: of 6 items one user has clicked 6" in refusal


def test_no_more_items_are_trained_on_than_a_checkpoint_holds(clicks, tmp_path, monkeypatch, train):
    monkeypatch.setattr(checkpoint, "MAX_VOCABULARY", 250)
    refusal = train(clicks, tmp_path / "out").refusal()
    assert "items, more than a checkpoint of scn holds; leave rare ones out with --min-item-clicks" in refusal


def test_the_command_line_knows_the_backbones_without_importing_torch():
    assert set(BACKBONES) == set(cli.BLOCKS) == set(cli.DEFAULTS)


def test_an_interrupted_run_keeps_what_was_there(clicks, tmp_path):
    output = tmp_path / "scn"
    request = Request("scn", {}, clicks, output, SETTINGS, Filters())
    run(request, lambda done, total, note: None)
    before = checkpoint.read(output).sha256

    def interrupt(done, total, note):
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(request, interrupt)
    assert checkpoint.read(output).sha256 == before
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["scn", "scn.resume"]


HEADER = b"user\titem\torder\n"
FAULTS = {
    "no header": (b"1\t2\t3\n", "line 1: no column for the user: expected a header with user, userId"),
    "a word": (HEADER + b"1\t2\t0\n1\t2\tx\n", "line 3: 'x' is not a time"),
    "no number": (HEADER + b"1\t2\tnan\n", "line 2: 'nan' is not a time"),
    "no item": (HEADER + b"1\t \t3\n", "line 2: the item is empty"),
    "a column less": (HEADER + b"1\t2\t0\n1\t2\n", "line 3: expected 3 columns, found 2"),
    "a column more": (HEADER + b"1\t2\t0\t4\n", "line 2: expected 3 columns, found 4"),
    "binary": (HEADER + b"\xff\xfe\x00\n", "line 2: byte 1 of the line is not UTF-8; save the file as UTF-8"),
    "nothing": (HEADER, "has a header and no interactions"),
    "blank lines": (HEADER + b"\r\n\n", "has a header and no interactions"),
    "short histories": (HEADER + b"1\t2\t0\n1\t3\t1\n", "no user has the four clicks"),
    "one item": (HEADER + b"".join(b"1\t7\t%d\n" % i for i in range(9)), "of 1 items one user has clicked 1"),
    "few items": (HEADER + b"".join(b"1\t%d\t%d\n" % (i, i) for i in range(9)), "of 9 items one user has clicked 9"),
}


@pytest.mark.filterwarnings("error::UserWarning")  # a library's warning would be a second line on the screen
@pytest.mark.parametrize("name", FAULTS)
def test_a_file_that_cannot_be_trained_on_is_named_with_its_line(name, tmp_path, train):
    content, message = FAULTS[name]
    (tmp_path / "bad.tsv").write_bytes(content)
    assert message in train(tmp_path / "bad.tsv", tmp_path / "out").refusal()
    assert not (tmp_path / "out").exists()


def test_damaged_gzip_missing_file_and_unknown_model_end_with_2(clicks, tmp_path, train):
    (tmp_path / "half.tsv.gz").write_bytes(clicks.read_bytes()[:100])
    (tmp_path / "text.tsv.gz").write_bytes(HEADER)
    for data in (tmp_path / "half.tsv.gz", tmp_path / "text.tsv.gz", tmp_path / "none.tsv", tmp_path):
        train(data, tmp_path / "out").refusal()
    assert "unknown model 'gnc'; known: scn, ofa, din" in train(clicks, tmp_path / "out", model="gnc").refusal()
    (tmp_path / "letters.txt").write_text("dear")
    train(clicks, tmp_path).refusal()  # before any training


def test_reading_sorts_by_time_and_gives_items_other_ids(tmp_path):
    path = tmp_path / "clicks.tsv"
    path.write_text("timestamp\tuser\titem\n30\t7\t500\n10\t7\t600\n5\t2\t500\n20\t7\t700\n")
    data = read_interactions(path, seed=1)
    assert (data.users, data.vocabulary, data.starts.tolist()) == (2, 4, [0, 1, 4])
    first, second, third, fourth = data.items.tolist()
    assert first == fourth
    assert sorted([second, third, fourth]) == [1, 2, 3]
    others = {tuple(read_interactions(path, seed).items) for seed in range(20)}
    assert len(others) > 1


def test_the_last_click_is_for_the_test_and_the_one_before_for_validation():
    data = interactions([11, 12, 13, 14, 15], [21, 22], [31], [41, 42, 43])
    split = leave_one_out(data)
    assert data.items[split.test].tolist() == [15, 43]
    assert data.items[split.validation].tolist() == [14, 42]
    assert data.items[split.train].tolist() == [12, 13, 22]
    assert histories(data, split.test, 3).tolist() == [[12, 13, 14], [41, 42, 0]]
    assert histories(data, split.train, 3).tolist() == [[11, 0, 0], [11, 12, 0], [21, 0, 0]]


def test_negatives_are_new_distinct_and_uniform():
    data = interactions([1, 2, 3], [4], [5, 6, 7, 8], vocabulary=12)
    known = clicked(data, np.arange(8))
    users = np.repeat([0, 1, 2], 3000)
    drawn = sample_negatives(np.random.default_rng(0), known, users, 5)
    assert all(len(set(row)) == 5 for row in drawn.tolist())
    for user, own in enumerate([{1, 2, 3}, {4}, {5, 6, 7, 8}]):
        counts = np.bincount(drawn[users == user].ravel(), minlength=12)
        allowed = [item for item in range(1, 12) if item not in own]
        assert counts.sum() == counts[allowed].sum()
        np.testing.assert_allclose(counts[allowed], 15_000 / len(allowed), rtol=0.1)
    with pytest.raises(DataError, match="8 negatives per user cannot be drawn: of 11 items one user has clicked 4"):
        sample_negatives(np.random.default_rng(0), known, users, 8)


def test_metrics_by_hand():
    scores = np.array([[3.0, 1, 2, 0], [1, 3, 2, 0], [1, 1, 1, 1]])  # ranks 0, 2, and all tied: 3
    rank = metrics.ranks(scores)
    assert rank.tolist() == [0, 2, 3]
    assert metrics.uauc(scores) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)
    assert metrics.ndcg(rank, 3) == pytest.approx((1 + 1 / np.log2(4)) / 3)
    assert metrics.hit_rate(rank, 2) == pytest.approx(1 / 3)
    assert metrics.ranks(np.full((1, 4), np.nan)).tolist() == [3]  # a model that broke must not look perfect


def test_metrics_agree_with_scikit_learn():
    scores = np.random.default_rng(0).normal(size=(200, 101)) + np.eye(1, 101) * 1.5
    labels = np.zeros_like(scores)
    labels[:, 0] = 1
    summary = metrics.summary(scores)
    assert summary["UAUC"] == pytest.approx(
        np.mean([roc_auc_score(*row) for row in zip(labels, scores, strict=True)]), abs=1e-6
    )
    for cutoff in metrics.CUTOFFS:
        assert summary[f"NDCG@{cutoff}"] == pytest.approx(ndcg_score(labels, scores, k=cutoff), abs=1e-6)
        hits = top_k_accuracy_score(np.zeros(len(scores)), scores, k=cutoff, labels=np.arange(scores.shape[1]))
        assert summary[f"HitRate@{cutoff}"] == pytest.approx(hits, abs=1e-6)


def test_help_has_its_short_name():
    shown = CliRunner().invoke(cli.app, ["-h"])
    assert (shown.exit_code, "Usage:" in shown.output) == (0, True)
