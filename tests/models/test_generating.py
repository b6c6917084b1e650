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
MADE_BY = "5a" * 32
"""The SHA-256 of a checkpoint."""


def generator(backbone, dimension=32):
    torch.manual_seed(0)
    model = Supernet(VOCABULARY, dimension, BLOCKS, LENGTH, backbone).eval()
    with torch.no_grad():
        model.items.weight[1:].normal_(0, 0.5)
        model.mapper.linear.weight.normal_(0, 0.1)
    return Generator(model, MADE_BY)


@pytest.fixture(scope="module", params=["sasrec", "nextitnet"])
def cloud(request):
    torch.set_num_threads(1)
    return generator(request.param)


def files(cloud, structures, latents, stored):
    """Return the packages [U] of users with structures [U, L], or all with one [L]."""
    found = {}
    for made in cloud.packages(np.broadcast_to(structures, (len(latents), BLOCKS)), latents, stored):
        assert len(made.users) == len(made.files) <= BATCH
        found |= zip(made.users.tolist(), (row.tobytes() for row in made.files), strict=True)
    assert len(found) == len(latents)
    return [found[user] for user in range(len(latents))]


@pytest.mark.parametrize("stored", STORED)
def test_a_user_gets_the_same_bytes_at_every_place_of_a_batch(cloud, stored):
    rng = np.random.default_rng(0)
    own = rng.integers(1, VOCABULARY, (1, LENGTH), dtype=np.int32)
    structure, latent = cloud.requests(own)
    (alone,) = files(cloud, structure, latent, stored)
    others = rng.integers(1, VOCABULARY, (BATCH, LENGTH), dtype=np.int32)
    for place in range(BATCH):
        beside = np.roll(others, place, axis=0)
        beside[place] = own
        structures, latents = cloud.requests(beside)
        assert structures[place].tobytes() == structure.tobytes() and latents[place].tobytes() == latent.tobytes()
        assert files(cloud, structures, latents, stored)[place] == alone


@settings(max_examples=40, deadline=None)
@given(
    users=st.integers(1, 2 * BATCH + 3),
    seed=st.integers(0, 2**31),
    kinds=st.integers(1, 2**BLOCKS),
    stored=st.sampled_from(STORED),
)
def test_whoever_is_beside_and_whichever_blocks_run(cloud, users, seed, kinds, stored):
    rng = np.random.default_rng(seed)
    some = rng.permutation(2**BLOCKS)[:kinds, None] >> np.arange(BLOCKS) & 1
    structures = some[rng.integers(kinds, size=users)].astype(np.int8)
    latents = rng.normal(size=(users, 32)).astype(np.float32)
    together = files(cloud, structures, latents, stored)
    sizes = [cloud.package_bytes(tuple(row), stored) for row in structures.tolist()]
    assert [len(one) for one in together] == sizes
    user = int(rng.integers(users))
    assert files(cloud, structures[user], latents[user : user + 1], stored) == [together[user]]


def test_all_users_can_be_given_one_structure(cloud):
    item_ids = np.ones((BATCH + 1, LENGTH), np.int32)
    structures, latents = cloud.requests(item_ids, (0, 1, 1, 0))
    assert (structures == (0, 1, 1, 0)).all() and latents.shape == (BATCH + 1, 32)


@pytest.mark.parametrize("stored", STORED)
def test_they_are_the_bytes_that_the_writer_of_one_package_writes(cloud, stored):
    structure = (1, 0, 1, 1)
    rng = np.random.default_rng(1)
    item_ids = rng.integers(1, VOCABULARY, (3, LENGTH), dtype=np.int32)
    _, latents = cloud.requests(item_ids, structure)
    exact = [safetensors.torch.load(one) for one in files(cloud, structure, latents, "fp32")]
    backbone = cloud.model.backbone
    made = files(cloud, structure, latents, stored)
    assert made == [weights_package.to_bytes(backbone, structure, one, stored, MADE_BY) for one in exact]
    assert made == [layout_of(backbone, MADE_BY, structure, stored).filled(one) for one in exact]
    none = (0,) * BLOCKS
    assert layout_of(backbone, MADE_BY, none, stored).filled({}) == weights_package.to_bytes(
        backbone, none, {}, stored, MADE_BY
    )
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
    made = next(cloud.packages(*cloud.requests(item_ids), stored))
    own = made.users
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
        layout_of(cloud.model.backbone, MADE_BY, (1, 0, 0, 0), stored).filled(weights)


def test_a_method_without_a_mapper_has_no_packages():
    model = Supernet(VOCABULARY, 16, BLOCKS, LENGTH, "sasrec", "devicerec")
    with pytest.raises(ValueError, match="has no mapper"):
        Generator(model, MADE_BY)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=256, max_size=256))
def test_a_weight_in_int8_is_off_by_at_most_half_a_step(numbers):
    rows = torch.tensor(numbers).reshape(32, 8)
    (name, numbers, kept_in), (of_scales, scales, _) = weights_package.entries("w", rows, "int8")
    assert (name, of_scales) == ("w", "w.scale")
    steps, scale = numbers.double(), scales.double()
    assert kept_in == torch.int8 and bool((numbers.to(kept_in) == numbers).all())
    assert bool((scale > 0).all()) and steps.abs().max() <= 127
    assert bool(((rows.double() - steps * scale).abs() <= 0.5 * scale * (1 + 1e-4)).all())
