"""Packages of many users at once: each has the bytes of the one that is made alone, whoever stands beside it."""

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.forward_ofa import weights_package
from models.forward_ofa.assembler import block_weights
from models.forward_ofa.generating import BATCH, Generator
from models.forward_ofa.layout import layout_of
from models.forward_ofa.supernet import Supernet

STORED = ("fp32", "fp16", "int8")
BLOCKS, LENGTH, VOCABULARY = 4, 6, 50


def generator(backbone, dimension=32):
    torch.manual_seed(0)
    model = Supernet(VOCABULARY, dimension, BLOCKS, LENGTH, backbone).eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(0, 0.5)
        model.mapper.linear.weight.normal_(0, 0.1)
    return Generator(model)


@pytest.fixture(scope="module", params=["sasrec", "nextitnet"])
def cloud(request):
    torch.set_num_threads(1)
    return generator(request.param)


def files(cloud, structure, latents, stored):
    return [row.tobytes() for made in cloud.packages(structure, latents, stored) for row in made.files]


@pytest.mark.parametrize("stored", STORED)
def test_a_user_gets_the_same_bytes_at_every_place_of_a_batch(cloud, stored):
    rng = np.random.default_rng(0)
    own = rng.integers(1, VOCABULARY, (1, LENGTH), dtype=np.int32)
    structure, latent = cloud.requests(own)
    chosen = tuple(structure[0].tolist())
    (alone,) = files(cloud, chosen, latent, stored)
    others = rng.integers(1, VOCABULARY, (BATCH, LENGTH), dtype=np.int32)
    for place in range(BATCH):
        beside = np.roll(others, place, axis=0)
        beside[place] = own
        structures, latents = cloud.requests(beside)
        assert structures[place].tobytes() == structure.tobytes() and latents[place].tobytes() == latent.tobytes()
        made = next(cloud.packages(chosen, latents, stored))
        assert made.files[place].tobytes() == alone


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(1, 2 * BATCH + 3),
    seed=st.integers(0, 2**31),
    chosen=st.integers(0, 2**BLOCKS - 1),
    stored=st.sampled_from(STORED),
)
def test_whoever_is_beside_and_whichever_blocks_run(cloud, users, seed, chosen, stored):
    rng = np.random.default_rng(seed)
    structure = tuple(chosen >> block & 1 for block in range(BLOCKS))
    item_ids = rng.integers(0, VOCABULARY, (users, LENGTH), dtype=np.int32)
    structures, latents = cloud.requests(item_ids, structure)
    assert (structures == structure).all()
    together = files(cloud, structure, latents, stored)
    assert len(together) == users and all(len(one) == cloud.package_bytes(structure, stored) for one in together)
    user = int(rng.integers(users))
    alone = cloud.requests(item_ids[user : user + 1], structure)[1]
    assert files(cloud, structure, alone, stored) == [together[user]]


@pytest.mark.parametrize("stored", STORED)
def test_they_are_the_bytes_that_the_writer_of_one_package_writes(cloud, stored):
    structure = (1, 0, 1, 1)
    rng = np.random.default_rng(1)
    item_ids = rng.integers(1, VOCABULARY, (3, LENGTH), dtype=np.int32)
    _, latents = cloud.requests(item_ids, structure)
    exact = [safetensors.torch.load(one) for one in files(cloud, structure, latents, "fp32")]
    backbone = cloud.model.backbone
    made = files(cloud, structure, latents, stored)
    assert made == [weights_package.to_bytes(backbone, structure, one, stored) for one in exact]
    assert made == [layout_of(backbone, structure, stored).filled(one) for one in exact]
    none = (0,) * BLOCKS
    assert layout_of(backbone, none, stored).filled({}) == weights_package.to_bytes(backbone, none, {}, stored)
    with torch.no_grad():
        packed = cloud.mapper(torch.from_numpy(latents))
    for one, own in zip(exact, packed, strict=True):
        for name, tensor in block_weights(backbone, own, structure).items():
            torch.testing.assert_close(one[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("stored", STORED)
def test_scores_are_those_of_the_assembled_sub_network(cloud, stored):
    rng = np.random.default_rng(2)
    item_ids = rng.integers(1, VOCABULARY, (5, LENGTH), dtype=np.int32)
    candidates = rng.integers(1, VOCABULARY, (5, 12), dtype=np.int32)
    structures, latents = cloud.requests(item_ids)
    structure = structures[0]
    own = np.flatnonzero((structures == structure).all(axis=1))
    made = next(cloud.packages(tuple(structure.tolist()), latents[own], stored))
    with torch.no_grad():
        whole = cloud.model(*map(torch.from_numpy, (item_ids[own], candidates[own]))).numpy()
    np.testing.assert_allclose(made.scores(item_ids[own], candidates[own], as_stored=False), whole, atol=1e-5)
    near = {"fp32": 1e-5, "fp16": 1e-2, "int8": 0.3}[stored]
    np.testing.assert_allclose(made.scores(item_ids[own], candidates[own], as_stored=True), whole, atol=near)


@pytest.mark.parametrize(
    ("number", "stored", "wrong"),
    [(float("nan"), "fp32", "not finite"), (float("inf"), "int8", "not finite"), (1e6, "fp16", "fp16 cannot hold")],
)
def test_numbers_that_no_package_can_hold_are_refused(number, stored, wrong):
    cloud = generator("sasrec")
    with torch.no_grad():
        cloud.mapper.linear.bias[7] = number
    with pytest.raises(weights_package.WeightsPackageError, match=wrong):
        files(cloud, (1, 0, 0, 0), np.zeros((1, 32), np.float32), stored)
    packed = cloud.mapper(torch.zeros(1, 32))[0].detach()
    weights = block_weights(cloud.model.backbone, packed, (1, 0, 0, 0))
    with pytest.raises(weights_package.WeightsPackageError, match=wrong if stored == "fp16" else "NaN or infinite"):
        layout_of(cloud.model.backbone, (1, 0, 0, 0), stored).filled(weights)


def test_a_method_without_a_mapper_has_no_packages():
    model = Supernet(VOCABULARY, 16, BLOCKS, LENGTH, "sasrec", "devicerec")
    with pytest.raises(ValueError, match="has no mapper"):
        Generator(model)
