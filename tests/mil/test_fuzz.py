"""Mutated packages give one of our errors or an answer; benchmarks/fuzz_mil.py does the same for ten minutes."""

import shutil
import time
import uuid

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mil_fuzzing import Mutator, attempt, looped
from mil_networks import build

MODEL, WEIGHTS = ("com.apple.CoreML", "model.mlmodel"), ("com.apple.CoreML", "weights", "weight.bin")


@pytest.fixture(scope="module")
def corpus(convert, coremltools, packages):
    """A convolutional network with compressed weights, one with gathers, and one with nested loops and branches."""
    import coremltools.optimize.coreml as optimize

    paths = [convert(*build("unet"), "iOS18"), convert(*build("encoder"), "iOS17", "FLOAT16")]
    how = optimize.OpPalettizerConfig(mode="uniform", nbits=4, weight_threshold=64)
    compressed = packages / f"{uuid.uuid4().hex}.mlpackage"
    model = coremltools.models.MLModel(str(paths[0]), skip_model_load=True)
    optimize.palettize_weights(model, optimize.OptimizationConfig(global_config=how)).save(str(compressed))
    loop = packages / f"{uuid.uuid4().hex}.mlpackage"
    coremltools.convert(
        looped(coremltools),
        minimum_deployment_target=coremltools.target.iOS17,
        pass_pipeline=coremltools.PassPipeline.EMPTY,
        skip_model_load=True,
    ).save(str(loop))
    return [(path, mutator(path)) for path in (compressed, paths[1], loop)]


def mutator(path):
    """Return the mutator of a package on disk."""
    weights = path.joinpath("Data", *WEIGHTS)
    return Mutator(path.joinpath("Data", *MODEL).read_bytes(), weights.read_bytes() if weights.exists() else b"")


def test_the_corpus_runs_unchanged(corpus):
    assert [attempt(path) for path, _ in corpus] == [None] * len(corpus)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(which=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_mutations_give_our_errors_or_answers(corpus, tmp_path, which, seed):
    model, weights = corpus[which][1].mutate(seed)
    path = tmp_path / "mutated.mlpackage"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(corpus[which][0], path)
    path.joinpath("Data", *MODEL).write_bytes(model)
    if path.joinpath("Data", *WEIGHTS).exists():
        path.joinpath("Data", *WEIGHTS).write_bytes(weights)
    start = time.process_time()
    error = attempt(path)
    assert time.process_time() - start < 20
    if error is not None:
        assert "\n" not in str(error) and str(error)
