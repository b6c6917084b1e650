"""State dicts under published names give the published scores; whatever else a file holds is refused in one line."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import published
import pytest
import safetensors.torch
import torch

from models import checkpoint
from models.importing import ORIGINS, torch_file
from models.importing.run import Imported, Request, run
from models.importing.weights_file import ImportingError
from models.training.data import read_interactions
from models.training.evaluation import ranking_cases, split_to_train_on
from models.training.golden import golden_cases
from models.zoo import load_spec
from safeio import catalogue
from safeio.errors import OutputError

ORACLES = Path(__file__).parent / "oracles"
HISTORIES = [[3, 9, 4, 7, 1, 5, 2], [6, 2, 9], [4], [19, 3, 30, 3, 3], []]
CANDIDATES = [1, 5, 19, 39, 2]
MOVED = {"cocorrrec-din", "cocorrrec-gru4rec", "cocorrrec-sasrec"}
"""Where row 0 is taken off all rows, so that even what reads it stays exact."""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)  # as the command does: models this small only wait for each other


def save(state: object, path: Path) -> Path:
    torch.save(state, path)
    return path


def take(file: Path, name: str, output: Path, **options: object) -> Imported:
    if ORIGINS[name].asked:
        options = {"heads": published.HEADS, **options}
    if "history_length" not in ORIGINS[name].sizes:
        options = {"history": published.N, **options}
    return run(Request(file, ORIGINS[name], output, **options), lambda _: None)


def built(imported: Imported) -> torch.nn.Module:
    read = checkpoint.read(imported.checkpoint.folder)
    return checkpoint.build(read, load_spec(read.model))


@pytest.mark.parametrize("name", published.MODELS)
def test_imported_weights_give_the_published_scores(name: str, tmp_path: Path) -> None:
    theirs = published.build(name)
    file = tmp_path / "weights"
    if name.endswith("rec"):
        state = {key: tensor.contiguous() for key, tensor in theirs.state_dict().items()}
        file.write_bytes(safetensors.torch.save(state))
    else:
        save({"state_dict": theirs.state_dict(), "epoch": 3}, file)
    imported = take(file, name, tmp_path / "checkpoint")
    ours = built(imported)
    histories = torch.tensor([clicks + [0] * (published.N - len(clicks)) for clicks in HISTORIES], dtype=torch.int32)
    candidates = torch.tensor(CANDIDATES, dtype=torch.int32)
    with torch.no_grad():
        expected = torch.stack([theirs(clicks.long(), candidates.long()) for clicks in histories])
        scores = ours(histories, candidates.expand(len(histories), -1))
    told = len(HISTORIES) if name in MOVED else len(HISTORIES) - 1  # an empty history reads row 0
    assert expected.std() > 0.1
    torch.testing.assert_close(scores[:told], expected[:told], rtol=1e-5, atol=1e-5)
    assert any("row 0" in note for note in imported.notes)
    training = imported.checkpoint.config["training"]
    assert (training["imported_from"], training["file"], len(training["file_sha256"])) == (name, "weights", 64)
    assert training["golden_cases"] == "64 drawn at random"


def oracle(name: str) -> tuple[dict[str, torch.Tensor], dict[str, np.ndarray]]:
    arrays = dict(np.load(ORACLES / f"{name}.npz"))
    roles = {key.removeprefix("param."): torch.from_numpy(arrays.pop(key)) for key in list(arrays) if "param." in key}
    return published.published_scn(roles), arrays


@pytest.mark.parametrize(("name", "history"), [("scn_b10_n10", 10), ("scn_gcn_b10_n10", 10), ("scn_gcn_b10_n10", 20)])
def test_an_imported_scn_gives_the_scores_of_its_own_code(name: str, history: int, tmp_path: Path) -> None:
    """For histories of two mini-batches, where the second is padding, these are those of the first."""
    state, vectors = oracle(name)
    block = "ttt.layers.0.seq_modeling_block."
    derived = {f"{block}token_idx": torch.ones(10), f"{block}rotary_emb.inv_freq": torch.ones(8)}
    imported = take(save(state | derived, tmp_path / "scn.pt"), "cocorrrec-scn", tmp_path / "out", history=history)
    gcn = "gcn" in name
    sizes = {"vocabulary": 200, "dimension": 64, "heads": 4, "mini_batch": 10}
    assert imported.checkpoint.architecture == sizes | ({"gcn": 1} if gcn else {})
    assert not any("row 0" in note for note in imported.notes)
    model = built(imported)
    assert imported.checkpoint.golden["item_ids"].shape[1] == history
    ids = [torch.from_numpy(vectors[key]) for key in ("item_ids", "candidate_ids")]
    padded = torch.nn.functional.pad(ids[0], (0, history - ids[0].shape[1]))
    with torch.no_grad():
        scores = (model.corrected if gcn else model)(padded, ids[1][:, None])[:, 0]
    np.testing.assert_allclose(scores, vectors["scores"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_become_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {name: tensor.to(dtype) for name, tensor in published.build("recbole-gru4rec").state_dict().items()}
    imported = take(save(state, tmp_path / "w.pt"), "recbole-gru4rec", tmp_path / "out")
    assert torch.equal(imported.checkpoint.state["output.weight"], state["dense.weight"].float())
    assert f"weights of {str(dtype)[6:]} became float32" in imported.notes


def test_all_that_does_not_fit_is_told_at_once(tmp_path: Path) -> None:
    state, _ = oracle("scn_gcn_b10_n10")
    block = "ttt.layers.0.seq_modeling_block."
    del state[f"{block}q_proj.weight"], state["ttt.norm.weight"], state[f"{block}Att_corrnet._gru_cell.bias_hh_l0"]
    state[f"{block}W1"] = torch.zeros(4, 16, 15)
    state["_target_trans.net.0.bias"] = torch.full((64,), torch.nan)
    state[f"{block}P"] = torch.zeros(1, dtype=torch.int64)
    state["ttt.layers.1.seq_norm.weight"] = torch.ones(64)
    with pytest.raises(ImportingError) as refused:
        take(save(state, tmp_path / "w.pt"), "cocorrrec-scn", tmp_path / "out")
    message = str(refused.value)
    assert (
        f"missing: {block}q_proj.weight, ttt.norm.weight, {block}Att_corrnet._gru_cell.bias_hh_l0;"
        f" of another shape: {block}W1 is [4, 16, 15] and not [4, 16, 16];"
        " not finite: _target_trans.net.0.bias;"
        f" no floats: {block}P (int64); left over: ttt.layers.1.seq_norm.weight;"
    ) in message
    assert not (tmp_path / "out").exists()
    state = published.build("cocorrrec-din").state_dict()
    with pytest.raises(
        ImportingError, match=r"missing: ttt.embed_tokens.weight, .* and 13 more; .* and 7 more; give .* --as"
    ):
        take(save(state, tmp_path / "w.pt"), "cocorrrec-scn", tmp_path / "out")


def test_a_name_that_is_published_is_asked_for_once_and_by_all() -> None:
    for origin in ORIGINS.values():
        names = dict(origin.names) | {name: own for part in origin.parts.values() for name, own in part.items()}
        spec = load_spec(origin.model)
        with torch.device("meta"):
            ours = spec.build({"vocabulary": 40, **spec.architecture, **spec.optional}).state_dict()
        placed = {own.replace("{}", str(number)) for own in names.values() for number in range(2)}
        assert len(set(names.values())) == len(names)
        assert placed >= ours.keys(), origin.name


def without_residual() -> dict[str, torch.Tensor]:
    state = published.build("cocorrrec-mamba4rec").state_dict()
    return {name: tensor for name, tensor in state.items() if "mamba_layers.1" not in name}


def with_a_gap() -> dict[str, torch.Tensor]:
    state = published.build("recbole-sasrec").state_dict()
    return {name.replace("layer.1.", "layer.7."): tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("name", "state", "options", "words"),
    [
        ("cocorrrec-din", None, {"heads": 2}, "--heads 2 is not for cocorrrec-din: it has no heads"),
        ("cocorrrec-bert4rec", None, {"heads": 3}, "impossible: dimension 16 must be a multiple of heads = 3"),
        ("cocorrrec-bert4rec", None, {"history": 9}, "its table of positions is for 7 clicks"),
        ("cocorrrec-sasrec", None, {"history": 41}, "history_length 41 is more than the 40 rows"),
        ("cocorrrec-gru4rec", None, {"history": 5000}, "--history must be a whole number from 1 to 4096"),
        ("cocorrrec-mamba4rec", without_residual, {}, "blocks is 1, .* a single Mamba layer has no residual there"),
        ("recbole-sasrec", with_a_gap, {}, r"missing: trm_encoder.layer.1.* left over: trm_encoder.layer.7"),
    ],
)
def test_sizes_that_cannot_be_are_refused(name, state, options, words, tmp_path: Path) -> None:
    weights = state() if state else published.build(name).state_dict()
    with pytest.raises(ImportingError, match=words):
        take(save(weights, tmp_path / "w.pt"), name, tmp_path / "out", **options)


class Config:
    """Stands for the objects that trainers keep beside weights."""


def packed(data: bytes) -> bytes:
    """Return the same archive with its members deflated."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as plain, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, plain.read(entry))
    return target.getvalue()


def calling(words: bytes) -> bytes:
    """Return a torch file whose pickle does something else."""
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved(WEIGHTS))) as plain, zipfile.ZipFile(target, "w") as archive:
        for entry in plain.infolist():
            archive.writestr(entry.filename, words if entry.filename.endswith("data.pkl") else plain.read(entry))
    return target.getvalue()


def larger(value: object, numbers: int) -> bytes:
    """Return a torch file that states another count of numbers for a storage of 8 of them."""
    pickled = zipfile.ZipFile(io.BytesIO(saved(value))).read("archive/data.pkl")
    assert pickled.count(b"cpuq\x06K\x08t") == 1
    return calling(pickled.replace(b"cpuq\x06K\x08t", b"cpuq\x06J" + numbers.to_bytes(4, "little") + b"t"))


def saved(value: object, **options: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **options)
    return file.getvalue()


def keyed(key: bytes) -> bytes:
    """Return a torch file of a dict whose one key these instructions make."""
    return calling(b"\x80\x02}" + key + b"K\x01s.")


def hiding(method: str) -> bytes:
    """Return a torch file of an OrderedDict with an attribute in place of a method."""
    state = OrderedDict(WEIGHTS)
    setattr(state, method.upper(), 5)
    pickled = zipfile.ZipFile(io.BytesIO(saved(state))).read("archive/data.pkl")
    return calling(pickled.replace(method.upper().encode(), method.encode()))


def shared(times: int) -> dict[str, torch.Tensor]:
    """Return tensors of one storage."""
    tensor = torch.ones(1 << 12)
    return {f"layer.{number}": tensor.view(64, 64) for number in range(times)}


WEIGHTS = {"item_embedding.weight": torch.ones(4, 2)}
FILES = {
    "nothing": (b"", "neither safetensors nor a torch file, .*; copy it again, or save"),
    "noise": (b"PK\x03\x04" + bytes(100), "cannot be read as a state dict"),
    "a pickle": (pickle.dumps({"a": 1}), r"is a pickle, .* weights_only=False\)\['state_dict'\], FILE\)"),
    "an old torch file": (saved(WEIGHTS, _use_new_zipfile_serialization=False), "of a torch before 1.6"),
    "objects": (saved({"config": Config(), "state_dict": WEIGHTS}), "holds more than tensors, .*Config among them"),
    "newer pickles": (saved(WEIGHTS, pickle_protocol=4), "pickle protocol 4 where torch uses 2 among them"),
    "memory": (calling(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."), "builtins.bytearray among them"),
    "a call": (calling(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."), "os.system among them"),
    "a storage that is not there": (larger(WEIGHTS, 1 << 30), "cannot be read as a state dict"),
    "a bomb": (packed(saved({"w": torch.zeros(1 << 20)})), "packed in a way that torch does not use"),
    "half a file": (saved(WEIGHTS)[:-200], "cannot be read as a state dict"),
    "half a safetensors file": (safetensors.torch.save(WEIGHTS)[:-9], "or damaged"),
    "a list": (saved([torch.ones(2)]), "no state dict but list"),
    "no weights": (saved({}), "no state dict but dict"),
    "numbers": (saved({**WEIGHTS, "epoch": 3}), "'epoch' is no plain tensor"),
    "names that are none": (saved({3: torch.ones(2)}), "'3' is no plain tensor"),
    "a sparse tensor": (saved({"w": torch.eye(3).to_sparse()}), "_rebuild_sparse_tensor among them"),
    "no memory": (saved({"w": torch.empty(1 << 40, device="meta")}), "_rebuild_meta_tensor_no_storage among them"),
    "one number for a table": (saved({"w": torch.ones(1).expand(9_000_000, 64)}), "than its storage of 1, as expand"),
    "one storage for many": (saved(shared(40)), "too many of them share their storage; save a clone"),
    "what lies beyond": (larger(WEIGHTS, 9), "a storage says 9 numbers and has 8"),
    "a key of 3,000 tuples": (keyed(b")" + 3_000 * b"\x85"), "a key that is no name but tuple among them"),
    "a key of 100,000 tuples": (keyed(b")" + 100_000 * b"\x85"), "a key that is no name but tuple among them"),
    "a key that doubles": (keyed(b")" + 99 * b"q\x01h\x01\x86"), "a key that is no name but tuple among them"),
    "a storage's key": (
        calling(b"\x80\x02(U\x01s)" + 3_000 * b"\x85" + b"tQ."),
        "the pickle instruction SHORT_BINSTRING",
    ),
    "items hidden": (hiding("items"), "attributes of an object among them"),
    "get hidden": (hiding("get"), "attributes of an object among them"),
    "axes": (saved({"w": torch.ones([1] * 9)}), "9 axes, which no model has; leave it out"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_is_no_state_dict_is_refused(kind: str, tmp_path: Path) -> None:
    data, words = FILES[kind]
    (tmp_path / "w.pt").write_bytes(data)
    with pytest.raises(ImportingError, match=words) as refused:
        take(tmp_path / "w.pt", "recbole-gru4rec", tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "out").exists()


def same(ours: object, theirs: object) -> None:
    """Hold values that we read against those that torch reads; its OrderedDicts and Parameters are plain here."""
    if isinstance(theirs, torch.Tensor):
        assert type(ours) is torch.Tensor
        assert (ours.dtype, ours.stride()) == (theirs.dtype, theirs.stride())
        assert torch.equal(ours, theirs)
    elif isinstance(theirs, dict):
        assert type(ours) is dict
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            same(ours[key], value)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs)
        for our, their in zip(ours, theirs, strict=True):
            same(our, their)
    else:
        assert (type(ours), ours) == (type(theirs), theirs)


def test_what_trainers_save_is_read_as_torch_reads_it() -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(70)), torch.nn.BatchNorm1d(3))
    model[1].weight = model[0].weight  # tied
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    table = torch.arange(24.0).reshape(4, 6)
    kinds = [
        torch.float16,
        torch.bfloat16,
        torch.float64,
        torch.int8,
        torch.uint8,
        torch.int16,
        torch.int32,
        torch.bool,
    ]
    state = {
        "state_dict": model.state_dict(),  # an OrderedDict with _metadata
        "parameters": dict(model.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "views": [table, table.t(), table[1:3, 2:], table[0, 0], table[:0], torch.ones(2, requires_grad=True)],
        "kinds": [table.to(kind) for kind in [*kinds, torch.complex64, torch.complex128]],
        "others": (None, True, False, 1.5, -1, 70_000, 1 << 40, "na\u00efve", [], (), {}, {3: (1, 2, 3, 4)}),
    }
    data = saved(state)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        ours = torch_file.read(archive)
    same(ours, torch.load(io.BytesIO(data), weights_only=True))
    tied = ours["state_dict"]
    assert tied["0.weight"].data_ptr() == tied["1.weight"].data_ptr()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clicks on 159 items whose ids are numbers, which a table of 160 rows may take as its rows."""
    path = tmp_path_factory.mktemp("shop") / "clicks.csv"
    rows = [f"u{user},{(user * 9 + time) % 159 + 1},{time}" for user in range(40) for time in range(9)]
    path.write_text("user,item,timestamp\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def weights(shop: Path) -> Path:
    state = published.build("recbole-gru4rec").state_dict()
    state["item_embedding.weight"] = torch.randn(160, published.D, generator=torch.Generator().manual_seed(0))
    return save(state, shop.with_name("weights.pt"))


def test_golden_cases_are_those_of_a_training_on_the_same_clicks(shop: Path, weights: Path, tmp_path: Path) -> None:
    clicks = read_interactions(shop, 0)
    items = tmp_path / "items.tsv"  # as cocorr-train numbers this catalogue
    items.write_bytes(catalogue.to_bytes(clicks.names, [0] * len(clicks.names)))
    imported = take(weights, "recbole-gru4rec", tmp_path / "out", data=shop, items=items)
    split, negatives = split_to_train_on(clicks)
    test = ranking_cases(clicks, split.test, published.N, [0, 2], negatives.test)
    expected = golden_cases(built(imported), test, 0)
    for name, array in imported.checkpoint.golden.items():
        np.testing.assert_array_equal(array, expected[name])
    assert imported.checkpoint.items == clicks.names
    assert imported.golden == "40 from the clicks of clicks.csv"
    # Without a catalogue, the ids are the rows.
    by_row = take(weights, "recbole-gru4rec", tmp_path / "rows", data=shop).checkpoint
    named = np.array([0, *map(int, clicks.names[1:])])
    np.testing.assert_array_equal(by_row.golden["item_ids"], named[expected["item_ids"]])
    assert by_row.items is None


def test_the_same_weights_with_other_sizes_or_other_ids_are_another_checkpoint(weights: Path, tmp_path: Path) -> None:
    """Fewer heads give other scores, and other ids other items; only where none were known may ids be given."""
    ids = ("", *map(str, range(1, 160)))
    one, other = (tmp_path / name for name in ("one.tsv", "other.tsv"))
    one.write_bytes(catalogue.to_bytes(ids, [0] * 160))
    other.write_bytes(catalogue.to_bytes(("", *reversed(ids[1:])), [0] * 160))
    take(weights, "recbole-gru4rec", tmp_path / "out")
    take(weights, "recbole-gru4rec", tmp_path / "out", items=one)
    before = take(weights, "recbole-gru4rec", tmp_path / "out", items=one).checkpoint.sha256
    for options, words in (({"items": other}, r"ids \w{12} and not \w{12}; choose"), ({}, r"ids \w{12} and not none;")):
        with pytest.raises(OutputError, match=words):
            take(weights, "recbole-gru4rec", tmp_path / "out", **options)
    assert checkpoint.read(tmp_path / "out").sha256 == before
    assert take(weights, "recbole-gru4rec", tmp_path / "out", items=other, force=True).checkpoint.sha256 != before
    headed = save(published.build("recbole-sasrec").state_dict(), tmp_path / "headed.pt")
    take(headed, "recbole-sasrec", tmp_path / "heads", heads=2)
    with pytest.raises(OutputError, match="another checkpoint: heads 2 and not 1; choose"):
        take(headed, "recbole-sasrec", tmp_path / "heads", heads=1)


def test_clicks_on_items_without_a_row_are_refused(shop: Path, weights: Path, tmp_path: Path) -> None:
    strange = tmp_path / "clicks.csv"
    strange.write_text(shop.read_text() + "u1,160,3\nu1,0,4\nu1,07,5\nu1,x,6\n")
    with pytest.raises(ImportingError, match=r"4 of its 163 items are no row from 1 to 159, '.*' first; give --items"):
        take(weights, "recbole-gru4rec", tmp_path / "out", data=strange)
    items = tmp_path / "items.tsv"
    items.write_bytes(catalogue.to_bytes(("", *map(str, range(1, 160))), [0] * 160))
    with pytest.raises(ImportingError, match="4 of its 163 items are no line of --items"):
        take(weights, "recbole-gru4rec", tmp_path / "out", data=strange, items=items)
    items.write_bytes(catalogue.to_bytes(("", "a", "b"), [0] * 3))
    with pytest.raises(ImportingError, match="lists 2 items, and the model has 159; write a line for each row"):
        take(weights, "recbole-gru4rec", tmp_path / "out", items=items)
    assert not (tmp_path / "out").exists()
