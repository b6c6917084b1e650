"""Training as a user expects it: it goes on after a kill, ends early, says how it went; GCN and baselines included."""

import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, example, given, settings, strategies

from models import checkpoint
from models.training import loop
from models.training import resume as resumes
from models.training.resume import Progress, Resume
from models.training.run import run
from models.training.settings import Filters, NextItem, Request, Settings
from models.zoo import load_spec
from safeio.errors import OutputError
from safeio.files import writing

SETTINGS = Settings(seed=3, epochs=4, learning_rate=1e-2, weight_decay=0.01, batch_size=256, history=10)
SMALL = {"ofa": {"dimension": 16, "blocks": 2}, "bert4rec": {"dimension": 16, "blocks": 1}}


def silent(done, total, note):
    pass


def request(model, clicks, output, settings=SETTINGS, **more):
    options = NextItem(5.0, 0.001, 0.0, 3) if model == "ofa" else None
    architecture = {"dimension": 16, **SMALL.get(model, {}), **more.pop("architecture", {})}
    return Request(model, architecture, clicks, output, settings, Filters(), options, **more)


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


class Killed(BaseException):
    """Nothing catches it, as nothing catches a kill."""


@pytest.mark.parametrize("model", ["scn", "ofa", "bert4rec"])  # bert4rec draws its dropout from torch's generator
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(model, clicks, tmp_path):
    straight = run(request(model, clicks, tmp_path / "straight" / "it"), silent)

    def kill(done, total, note):
        if not note and done > total * 0.7:
            raise Killed

    interrupted = request(model, clicks, tmp_path / "killed" / "it")
    with pytest.raises(Killed):
        run(interrupted, kill)
    assert names(tmp_path / "killed") == ["it.resume"]
    notes = []
    resumed = run(interrupted, lambda done, total, note: notes.append(note))
    assert "going on after epoch 2" in notes
    assert resumed.sha256 == straight.sha256
    assert names(tmp_path / "killed") == ["it"]


def test_progress_of_another_run_or_damaged_progress_is_refused(clicks, tmp_path):
    def kill(done, total, note):
        if note.startswith("epoch 2"):
            raise Killed

    with pytest.raises(Killed):
        run(request("scn", clicks, tmp_path / "it"), kill)
    file = tmp_path / "it.resume"
    content = file.read_bytes()
    other = Settings(seed=4, epochs=4, learning_rate=1e-2, weight_decay=0.01, batch_size=256, history=10)
    with pytest.raises(
        checkpoint.CheckpointError, match="another run, with another command; repeat that one, or remove"
    ):
        run(request("scn", clicks, tmp_path / "it", other), silent)
    file.write_bytes(content[:-1])
    with pytest.raises(checkpoint.CheckpointError, match=r"it\.resume is damaged: .*; remove it to start anew"):
        run(request("scn", clicks, tmp_path / "it"), silent)
    assert not (tmp_path / "it").exists()


def test_a_full_disk_ends_the_run_and_loses_no_earlier_progress(clicks, tmp_path, monkeypatch):
    replace, calls = resumes.replace_file, []

    def full(path, data, advice):
        calls.append(path)
        with writing(path, advice):
            if len(calls) == 2:
                raise OSError(28, "No space left on device")
            replace(path, data, advice)

    monkeypatch.setattr(resumes, "replace_file", full)
    with pytest.raises(OutputError, match=r"No space left on device; the progress after epoch 2 is lost: make room"):
        run(request("scn", clicks, tmp_path / "it"), silent)
    assert names(tmp_path) == ["it.resume"]
    notes = []
    run(request("scn", clicks, tmp_path / "it"), lambda done, total, note: notes.append(note))
    assert "going on after epoch 1" in notes


@pytest.fixture
def saved(tmp_path):
    """What is needed to load progress, and a file of it after two of four epochs, the first of which was better."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Embedding(5, 3), torch.nn.Linear(3, 2))
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(2):
        model(torch.arange(5)).square().sum().backward()
        optimiser.step()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    log = [{"epoch": n, "loss": 0.5 / n, "NDCG@10": 0.3 / n, "seconds": 1.25} for n in (1, 2)]
    resume = Resume(tmp_path / "it.resume", {"command": "train"}, 4)
    rng = np.random.default_rng(1)
    resume.save(Progress(2, 0.3, 1, state, log), model, optimiser, rng)
    return resume, model, optimiser, rng


def changed(path, change):
    """Change facts and tensors of a progress file, and give it the checksum that belongs to them."""
    data = path.read_bytes()
    tensors = safetensors.torch.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header["__metadata__"]["facts"])
    del facts["sha256"]
    change(facts, tensors)
    facts = {"sha256": resumes._checksum(facts, tensors), **facts}
    path.write_bytes(safetensors.torch.save(tensors, {"facts": json.dumps(facts, indent=1), "more": ""}))


def refusal(saved):
    """Return why progress is refused, having seen that nothing of the run was changed by the attempt."""
    resume, model, optimiser, rng = saved

    def everything():
        state = [*model.state_dict().values(), *(t for s in optimiser.state.values() for t in s.values())]
        return [*(tensor.tolist() for tensor in state), torch.get_rng_state().tolist(), rng.bit_generator.state]

    before = everything()
    with pytest.raises(
        checkpoint.CheckpointError, match=r"it\.resume is damaged: .*; remove it to start anew"
    ) as caught:
        resume.load(model, optimiser, rng)
    assert everything() == before
    return str(caught.value)


def test_progress_may_be_laid_out_in_another_way(saved):
    resume, model, optimiser, rng = saved
    changed(resume.path, lambda facts, tensors: None)
    expected, state = {name: t.clone() for name, t in model.state_dict().items()}, rng.bit_generator.state
    with torch.no_grad():
        model[1].weight.zero_()
    rng.random(5)
    progress = resume.load(model, optimiser, rng)
    assert (progress.epoch, progress.best, progress.best_epoch, len(progress.log)) == (2, 0.3, 1, 2)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert rng.bit_generator.state == state


@example(0, 1)
@example(8, 255)
@given(strategies.integers(0, 10**6), strategies.integers(1, 255))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_changed_byte_and_a_cut_are_damage(saved, where, difference):
    path = saved[0].path
    content = path.read_bytes()
    where %= len(content)
    path.write_bytes(content[:where] + bytes([content[where] ^ difference]) + content[where + 1 :])
    changed_byte = refusal(saved)
    path.write_bytes(content[:where])
    cut = refusal(saved)
    path.write_bytes(content)
    assert changed_byte.count("\n") == cut.count("\n") == 0


FACTS = [("run",), ("numpy_rng",), ("epoch",), ("best",), ("best_epoch",), ("log",), ("log", 0), ("log", 1)]
FACTS += [("numpy_rng", key) for key in ("bit_generator", "state", "has_uint32", "uinteger")]
FACTS += [("numpy_rng", "state", key) for key in ("state", "inc")]
FACTS += [("log", 1, key) for key in ("epoch", "loss", "NDCG@10", "seconds")]
ODD = (None, True, -1, 5, 10**30, 10**400, 0.5, -0.5, 1e400, -1e400, float("nan"), "2", [], [1], {}, {"state": 1})
RIGHT = {(*("numpy_rng", "state", key), value) for key in ("state", "inc") for value in (5, 10**30)}
RIGHT |= {("numpy_rng", "uinteger", 5), ("log", 1, "NDCG@10", -0.0)}
RIGHT |= {("log", 1, key, value) for key in ("loss", "seconds") for value in (5, 0.5, -0.5)}


@pytest.mark.parametrize("place", FACTS, ids=str)
def test_facts_that_cannot_be_are_damage_whatever_the_checksum_says(saved, place):
    content = saved[0].path.read_bytes()
    for value in ODD:
        if isinstance(value, list | dict) or (*place, value) not in RIGHT:

            def change(facts, tensors, value=value):
                *above, last = place
                for key in above:
                    facts = facts[key]
                facts[last] = value

            saved[0].path.write_bytes(content)
            changed(saved[0].path, change)
            if place == ("run",) and isinstance(value, dict):
                with pytest.raises(checkpoint.CheckpointError, match="is the progress of another run, with another"):
                    saved[0].load(*saved[1:])
            else:
                refusal(saved)


def put(name, value):
    return lambda facts, tensors: tensors[name].view(-1)[:1].fill_(value)


TENSORS = {
    "model.0.weight is not finite": put("model.0.weight", float("nan")),
    "best.1.bias is not finite": put("best.1.bias", float("inf")),
    "optimiser.0.exp_avg is not finite": put("optimiser.0.exp_avg", float("-inf")),
    "optimiser.2.exp_avg_sq has a negative mean of squares": put("optimiser.2.exp_avg_sq", -1e-30),
    "optimiser.1.step is -1": put("optimiser.1.step", -1),
    "optimiser.1.step is 0.5": put("optimiser.1.step", 0.5),
    "it has a tensor 'optimiser.9.step'": lambda _, t: t.update({"optimiser.9.step": torch.ones(())}),
    "it has a tensor 'optimiser.00.step'": lambda _, t: t.update({"optimiser.00.step": torch.ones(())}),
    "it has a tensor 'more'": lambda _, t: t.update({"more": torch.ones(2)}),
    "it has no tensor optimiser.1.exp_avg_sq": lambda _, t: t.pop("optimiser.1.exp_avg_sq"),
    "it has no tensor best.0.weight": lambda _, t: t.pop("best.0.weight"),
    "it has no tensor torch_rng": lambda _, t: t.pop("torch_rng"),
    "model.0.weight is torch.int32": lambda _, t: t.update({"model.0.weight": t["model.0.weight"].int()}),
    "model.0.weight is torch.bfloat16": lambda _, t: t.update({"model.0.weight": t["model.0.weight"].bfloat16()}),
    "of shape [1, 1, 15]": lambda _, t: t.update({"model.0.weight": t["model.0.weight"].reshape(1, 1, 15)}),
    "of shape [0]": lambda _, t: t.update({"optimiser.0.step": torch.empty(0)}),
    "torch_rng is no state of torch's generator": lambda _, t: t["torch_rng"].zero_(),
}


@pytest.mark.parametrize("message", TENSORS)
def test_tensors_that_cannot_be_are_damage_whatever_the_checksum_says(saved, message):
    changed(saved[0].path, TENSORS[message])
    assert message in refusal(saved)


def test_a_place_where_no_progress_can_be_saved_is_refused_before_the_data_is_read(clicks, tmp_path):
    (tmp_path / "it.resume").mkdir()
    with pytest.raises(OutputError, match="choose another --output, since progress is saved beside it"):
        run(request("scn", tmp_path / "no data", tmp_path / "it"), silent)
    (tmp_path / "it.resume").rmdir()
    (tmp_path / "it.resume").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is a link; choose another --output"):
        run(request("scn", tmp_path / "no data", tmp_path / "it"), silent)
    assert names(tmp_path) == ["it.resume"]


@pytest.mark.parametrize(
    ("model", "rate", "decay", "what"),
    [
        ("sasrec", 1e38, 1e38, "the weights after epoch 1 are"),
        ("sasrec", 1e37, 0.0, "the scores of the validation are"),
        ("ofa", 1e5, 0.0, "the weights, rounded to the 16 bits in which they ship, are"),
    ],
)
def test_a_training_that_diverges_in_its_last_step_can_be_repeated_at_another_rate(
    model, rate, decay, what, clicks, tmp_path
):
    one_step = {"seed": 0, "epochs": 1, "batch_size": 100_000, "history": 10}  # its loss was finite
    asked = request(model, clicks, tmp_path / "it", Settings(learning_rate=rate, weight_decay=decay, **one_step))
    with pytest.raises(loop.DivergedError, match=f"^{what} not finite: .* take a lower --learning-rate"):
        run(asked, silent)
    assert names(tmp_path) == []
    run(request(model, clicks, tmp_path / "it", Settings(learning_rate=1e-3, weight_decay=0.0, **one_step)), silent)
    assert names(tmp_path) == ["it"]


def test_a_training_that_diverges_later_leaves_no_progress_either(clicks, tmp_path, monkeypatch):
    def diverge(epoch, *_):
        if epoch == 3:
            raise loop.DivergedError("the loss of epoch 3 is")

    with monkeypatch.context() as patched, pytest.raises(loop.DivergedError):
        patched.setattr(loop, "_require_sound", diverge)
        run(request("scn", clicks, tmp_path / "it"), silent)
    assert names(tmp_path) == []


def test_training_ends_when_patience_does_and_says_how_it_went(clicks, tmp_path):
    impatient = Settings(0, 40, 0.5, 0.0, 256, 10, patience=2)  # a rate at which nothing is learnt for long
    trained = run(request("gru4rec", clicks, tmp_path / "it", impatient), silent)
    training = trained.config["training"]
    assert training["epochs_run"] == training["best_epoch"] + 2 < 40
    assert "--patience 2" in training["command"]
    log = json.loads((tmp_path / "it" / "metrics.json").read_text())
    assert [row["epoch"] for row in log["epochs"]] == list(range(1, training["epochs_run"] + 1))
    best = max(log["epochs"], key=lambda row: row["NDCG@10"])
    assert best["epoch"] == training["best_epoch"]
    assert log["validation"]["NDCG@10"] == pytest.approx(best["NDCG@10"], abs=1e-6)
    assert log["test"] == trained.config["metrics"]["test"]
    assert all(row["seconds"] > 0 and row["loss"] > 0 for row in log["epochs"])


@pytest.mark.parametrize("model", ["din", "gru4rec", "sasrec", "bert4rec", "mamba4rec"])
def test_the_command_trains_every_baseline(model, clicks, tmp_path, cocorr_train):
    ended = cocorr_train(model, "--data", clicks, "--output", tmp_path / model, "--epochs", 1, "--history", 7)
    assert ended.code == 0, ended.err
    read = checkpoint.read(tmp_path / model)
    network = checkpoint.build(read, load_spec(model))
    with torch.no_grad():
        scores = network(torch.from_numpy(read.golden["item_ids"]), torch.from_numpy(read.golden["candidate_ids"]))
    np.testing.assert_allclose(scores, read.golden["scores"], rtol=1e-5, atol=1e-5)
    assert read.history_length == 7


def test_a_gcn_is_trained_on_top_of_an_scn_that_stays_as_it_is(clicks, tmp_path):
    plain = run(request("scn", clicks, tmp_path / "plain"), silent)
    both = run(
        request("scn", clicks, tmp_path / "both", architecture={"gcn": 1}, start_from=tmp_path / "plain"), silent
    )
    for name, tensor in plain.state.items():
        assert torch.equal(both.state[name], tensor), name
    assert np.array_equal(both.golden["scores"], plain.golden["scores"])
    assert both.config["metrics"]["test"] == plain.config["metrics"]["test"]
    assert {"test_corrected", "validation_corrected"} <= {*both.config["metrics"]}
    assert both.config["training"]["start_from"]["sha256"] == plain.sha256
    assert both.state["gcn.bias_weight"] != 0.25  # it has learnt
    model = checkpoint.build(both, load_spec("scn"))
    assert model.gcn is not None
    given = [torch.from_numpy(both.golden[name]) for name in ("item_ids", "candidate_ids")]
    with torch.no_grad():  # too little data for another ranking, but not for other scores
        assert not torch.allclose(model.corrected(*given), model(*given), rtol=0, atol=1e-4)
    assert checkpoint.build(checkpoint.read(tmp_path / "plain"), load_spec("scn")).gcn is None


def test_a_gcn_is_trained_together_with_its_scn(clicks, tmp_path):
    """For two mini-batches, of which each has a correction of its own."""
    longer = replace(SETTINGS, history=20)
    trained = run(request("scn", clicks, tmp_path / "both", longer, architecture={"gcn": 1}), silent)
    assert trained.history_length == 20
    assert trained.config["metrics"]["test_corrected"] != trained.config["metrics"]["test"]
    assert trained.config["training"]["command"].endswith(" --gcn")
    assert (trained.state["gcn.attention_weight"] != 0).all()
    best = max(json.loads((tmp_path / "both" / "metrics.json").read_text())["epochs"], key=lambda row: row["NDCG@10"])
    assert trained.config["metrics"]["validation_corrected"]["NDCG@10"] == pytest.approx(best["NDCG@10"], abs=1e-6)


def test_a_mini_batch_of_another_size_is_trained_and_named_in_the_command(clicks, tmp_path):
    trained = run(request("scn", clicks, tmp_path / "three", architecture={"mini_batch": 3}), silent)
    assert " --mini-batch 3" in trained.config["training"]["command"]
    assert checkpoint.build(checkpoint.read(tmp_path / "three"), load_spec("scn")).mini_batch == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["gru4rec", "--gcn"], "--gcn is for scn"),
        (["scn", "--start-from", "x"], "--start-from is for ofa, and for scn with --gcn"),
        (["scn", "--gcn", "--history", "12"], "corrects mini-batches of 10 clicks: give a multiple of 10 as --history"),
        (["gru4rec", "--mini-batch", "5"], "--mini-batch is for scn"),
        (["scn", "--mini-batch", "0"], "mini_batch must be a whole number from 1"),
        (["scn", "--gcn", "--start-from", "nowhere"], "checkpoint folder nowhere does not exist"),
        (["sasrec", "--history", "2000"], "history_length 2000 is more than the"),
        (["scn", "--min-rating", "3"], "has no ratings to compare with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message, clicks, tmp_path, cocorr_train):
    assert message in cocorr_train(*options, "--data", clicks, "--output", tmp_path / "out").refusal()
    assert names(tmp_path) == []
