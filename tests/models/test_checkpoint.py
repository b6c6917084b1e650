"""Checkpoints: what is written is read again, and nothing that is damaged, unsafe or foreign gets through."""

import io
import json
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from models import checkpoint
from models.checkpoint import CheckpointError
from models.scn.programs import SPEC, build
from safeio import catalogue
from safeio.errors import OutputError

ARCHITECTURE = {"vocabulary": 50, "dimension": 8, "heads": 2, "mini_batch": 4}
CONFIG = {
    "schema_version": 1,
    "model": "scn",
    "architecture": ARCHITECTURE,
    "history_length": 6,
    "training": {},
    "metrics": {},
}


def golden(cases=3, history=6, candidates=5):
    rng = np.random.default_rng(0)
    return {
        "item_ids": rng.integers(0, 50, (cases, history), dtype=np.int32),
        "candidate_ids": np.stack([rng.permutation(50)[:candidates] for _ in range(cases)]).astype(np.int32),
        "scores": rng.normal(size=(cases, candidates)).astype(np.float32),
    }


def state():
    torch.manual_seed(0)
    return build(ARCHITECTURE).state_dict()


@pytest.fixture
def folder(tmp_path) -> Path:
    checkpoint.write(tmp_path / "whole", CONFIG, state(), golden())
    return tmp_path / "whole"


def save_state(folder, **changes):
    tensors = {name: tensor.clone() for name, tensor in {**state(), **changes}.items() if tensor is not None}
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def save_config(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**CONFIG, **changes}))


def save_golden(folder, **changes):
    np.savez(folder / "golden.npz", **{**golden(), **changes})


def save_items(folder, vocabulary, **renamed):
    ids = [f"a{row}" for row in range(vocabulary)]
    items = catalogue.to_bytes([renamed.get(item, item) for item in ids], range(vocabulary))
    (folder / "items.tsv").write_bytes(items)


def zip_member(folder, name, header):
    """Replace one array of golden.npz by a hand-made .npy with `header`."""
    arrays = {key: value for key, value in golden().items() if key != name}
    text = header.ljust(117) + "\n"
    with zipfile.ZipFile(folder / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for key, value in arrays.items():
            stream = io.BytesIO()
            np.save(stream, value)
            archive.writestr(f"{key}.npy", stream.getvalue())
        archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


def truncate(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])


def bomb(folder):
    with zipfile.ZipFile(folder / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in golden():
            archive.writestr(f"{name}.npy", bytes(65 << 20) if name == "scores" else b"")


def flip_byte_of_golden(folder):
    data = bytearray((folder / "golden.npz").read_bytes())
    data[200] ^= 0xFF
    (folder / "golden.npz").write_bytes(data)


def zip_in_place_of_weights(folder):
    torch.save({"weight": torch.ones(2)}, folder / "model.safetensors")


def pickle_beside_no_weights(folder):
    (folder / "model.safetensors").rename(folder / "model.pt")


DAMAGE = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "no golden": (lambda f: (f / "golden.npz").unlink(), "has no golden.npz"),
    "a .pt instead": (
        pickle_beside_no_weights,
        "model.pt in place of model.safetensors; this project never loads pickles",
    ),
    "torch's zip": (zip_in_place_of_weights, "is a pickle; this project never loads pickles"),
    "a pickle": (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps({"a": 1})), "never loads pickles"),
    "half the weights": (lambda f: truncate(f, "model.safetensors"), "truncated or damaged"),
    "empty weights": (lambda f: (f / "model.safetensors").write_bytes(b""), "truncated or damaged"),
    "no number": (lambda f: save_state(f, **{"query.weight": torch.full((8, 8), torch.nan)}), "query.weight has NaN"),
    "infinite": (lambda f: save_state(f, **{"key.weight": torch.full((8, 8), torch.inf)}), "key.weight has NaN or inf"),
    "double": (
        lambda f: save_state(f, **{"key.weight": torch.ones(8, 8).double()}),
        "save weights as float32 or float16",
    ),
    "missing tensor": (lambda f: save_state(f, **{"key.weight": None}), "key.weight is missing"),
    "extra tensor": (lambda f: save_state(f, more=torch.ones(1)), "more is not part of scn"),
    "wrong shape": (
        lambda f: save_state(f, **{"key.weight": torch.ones(8, 9)}),
        r"key.weight has shape \[8, 9\] where",
    ),
    "padding row": (lambda f: save_state(f, **{"items.weight": torch.ones(50, 8)}), "row 0 of items.weight is padding"),
    "other vocabulary": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "vocabulary": 51}),
        r"items.weight has shape \[50, 8\] where \[51, 8\]",
    ),
    "a table that is not there": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "vocabulary": 10_000_000}),
        "but config.json wants 80000000 or more",
    ),
    "unknown size": (lambda f: save_config(f, architecture={**ARCHITECTURE, "layers": 2}), "does not fit scn"),
    "odd heads": (lambda f: save_config(f, architecture={**ARCHITECTURE, "heads": 3}), "does not fit scn"),
    "other model": (lambda f: save_config(f, model="gcn"), "is of model 'gcn', not 'scn'"),
    "model no name": (lambda f: save_config(f, model=7), "model must be a string"),
    "not JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "not UTF-8": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe{}"), "not valid JSON"),
    "deep JSON": (lambda f: (f / "config.json").write_text("[" * 200_000), "not valid JSON"),
    "NaN in JSON": (lambda f: save_config(f, metrics={"NDCG@10": float("nan")}), "NaN is not JSON"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "must be a JSON object"),
    "other schema": (lambda f: save_config(f, schema_version=2), "schema_version must be 1"),
    "no architecture": (lambda f: save_config(f, architecture=None), "architecture must be an object"),
    "absurd vocabulary": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "vocabulary": 10**12}),
        "architecture.vocabulary must be a whole number from 2 to 10000000",
    ),
    "absurd dimension": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "dimension": 10**9}),
        "architecture.dimension must be a whole number from 1 to 4096",
    ),
    "a true size": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "heads": True}),
        "architecture.heads must be",
    ),
    "a text size": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "heads": "2"}),
        "architecture.heads must be",
    ),
    "a number for a name": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "backbone": 3}),
        "architecture.backbone must be a name",
    ),
    "two lengths": (
        lambda f: save_config(f, architecture={**ARCHITECTURE, "history_length": 7}),
        "architecture.history_length and history_length differ",
    ),
    "no history": (lambda f: save_config(f, history_length=0), "history_length must be a whole number"),
    "metrics no object": (lambda f: save_config(f, metrics=[1]), "metrics must be an object"),
    "half the golden": (lambda f: truncate(f, "golden.npz"), "damaged .*write the golden cases again"),
    "flipped bits": (flip_byte_of_golden, "damaged .*write the golden cases again"),
    "zip bomb": (bomb, "unpacks to"),
    "a header that lies": (
        lambda f: zip_member(f, "scores", "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000), }"),
        "the array 'scores' of float32",
    ),
    "objects": (lambda f: save_golden(f, scores=np.array([[{}]], dtype=object)), "of object, and no numbers"),
    "a fourth array": (lambda f: save_golden(f, more=np.ones(1)), "and nothing else"),
    "wide ids": (lambda f: save_golden(f, item_ids=np.ones((3, 6), np.int64)), "item_ids must be int32"),
    "other history": (lambda f: save_golden(f, item_ids=np.ones((3, 7), np.int32)), "but history_length is 6"),
    "fewer cases": (lambda f: save_golden(f, item_ids=np.ones((2, 6), np.int32)), "do not agree on cases"),
    "no cases": (lambda f: save_golden(f, item_ids=np.ones((0, 6), np.int32)), "must be int32 of shape"),
    "unknown id": (lambda f: save_golden(f, item_ids=np.full((3, 6), 50, np.int32)), "within the vocabulary, 0 to 49"),
    "negative id": (
        lambda f: save_golden(f, candidate_ids=np.full((3, 5), -1, np.int32)),
        "candidate_ids must be within",
    ),
    "twice": (lambda f: save_golden(f, candidate_ids=np.ones((3, 5), np.int32)), "distinct within a case"),
    "ids of a smaller table": (lambda f: save_items(f, 49), "items.tsv lists 48 items, and the model has 49"),
    "one id twice": (
        lambda f: save_items(f, 50, a7="a3"),
        "items.tsv gives the id 'a3' to two items, in lines 4 and 8; train again",
    ),
    "no catalogue": (lambda f: (f / "items.tsv").write_text("id\n"), "items.tsv is no catalogue"),
    "endless score": (lambda f: save_golden(f, scores=np.full((3, 5), np.inf, np.float32)), "scores must be finite"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_said_in_one_line(folder, name):
    damage, message = DAMAGE[name]
    damage(folder)
    with pytest.raises(CheckpointError, match=message) as caught:
        checkpoint.build(checkpoint.read(folder), SPEC)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_missing_or_a_file_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        checkpoint.read(tmp_path / "none")
    torch.save({}, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="never loads pickles"):
        checkpoint.read(tmp_path / "model.pth")


def test_a_checkpoint_comes_back_as_it_was_and_its_hash_follows_every_file(folder):
    first = checkpoint.read(folder)
    model = checkpoint.build(first, SPEC)
    assert not model.training
    assert all(torch.equal(tensor, state()[name]) for name, tensor in model.state_dict().items())
    assert all(np.array_equal(first.golden[name], array) for name, array in golden().items())
    assert (first.model, first.history_length, dict(first.architecture)) == ("scn", 6, ARCHITECTURE)
    hashes = {first.sha256, checkpoint.read(folder).sha256}
    assert len(hashes) == 1
    for change in (
        lambda: save_config(folder, metrics={"a": 1}),
        lambda: save_golden(folder),
        lambda: save_state(folder),
        lambda: save_items(folder, 50),
    ):
        change()
        hashes.add(checkpoint.read(folder).sha256)
    assert len(hashes) >= 4
    assert (first.items, checkpoint.read(folder).items[3]) == (None, "a3")


def test_half_precision_on_disk_becomes_single_in_memory(folder):
    safetensors.torch.save_file({name: t.half() for name, t in state().items()}, folder / "model.safetensors")
    model = checkpoint.build(checkpoint.read(folder), SPEC)
    assert {tensor.dtype for tensor in model.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("shape", [[2**64 - 1, 0], [0, 2**62, 2**62], [0] * 200])
def test_shapes_that_torch_cannot_have_are_damage(shape, folder):
    data = (folder / "model.safetensors").read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end]) | {"odd": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data[end:])
    with pytest.raises(CheckpointError, match=r"damaged|not part of|axes"):
        checkpoint.build(checkpoint.read(folder), SPEC)


def test_weights_that_begin_like_a_pickle_are_read(folder):
    # A safetensors file begins with the length of its header, here 0x0480: the first bytes of a pickle.
    data = safetensors.torch.save(state())
    length = int.from_bytes(data[:8], "little")
    padded = (length // 0x10000 + 1) * 0x10000 + 0x0480
    header = data[8 : 8 + length].ljust(padded)
    (folder / "model.safetensors").write_bytes(padded.to_bytes(8, "little") + header + data[8 + length :])
    assert (folder / "model.safetensors").read_bytes()[:2] == b"\x80\x04"
    checkpoint.build(checkpoint.read(folder), SPEC)


def test_a_write_that_fails_keeps_the_earlier_checkpoint_and_leaves_nothing_behind(folder):
    before = checkpoint.read(folder).sha256
    broken = {**golden(), "scores": np.full((3, 5), np.nan, np.float32)}
    with pytest.raises(CheckpointError, match="scores must be finite"):
        checkpoint.write(folder, CONFIG, state(), broken)
    assert checkpoint.read(folder).sha256 == before
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    checkpoint.write(folder, {**CONFIG, "metrics": {"new": 1}}, state(), golden())
    assert checkpoint.read(folder).config["metrics"] == {"new": 1}
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("theirs", "holds 'letters.txt'"),
        ("headless", "holds 'golden.npz'"),  # and no config.json
        ("published", "holds 'config.json'"),  # other projects save config.json and model.safetensors too
        ("theirs/letters.txt", "is no folder"),
        ("theirs/letters.txt/below", "cannot write"),
    ],
)
def test_what_is_no_checkpoint_is_not_replaced(place, words, folder, tmp_path):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "letters.txt").write_text("dear")
    shutil.copytree(folder, tmp_path / "headless", ignore=shutil.ignore_patterns("config.json"))
    folder.rename(tmp_path / "published")
    (tmp_path / "published" / "config.json").write_text('{"model_type": "bert"}')
    before = sorted(tmp_path.rglob("*"))
    for act in (checkpoint.check_destination, lambda where: checkpoint.write(where, CONFIG, state(), golden())):
        with pytest.raises(OutputError, match=words):
            act(tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "golden.npz", "items.tsv"])
def test_links_in_a_checkpoint_are_not_followed(folder, name, tmp_path):
    save_items(folder, 50)
    (folder / name).rename(tmp_path / "there")
    (folder / name).symlink_to(tmp_path / "there")
    with pytest.raises(CheckpointError, match="links are not followed"):
        checkpoint.read(folder)


def test_another_spec_is_refused(folder):
    other = replace(SPEC, name="other")
    with pytest.raises(CheckpointError, match="is of model 'scn', not 'other'"):
        checkpoint.build(checkpoint.read(folder), other)
