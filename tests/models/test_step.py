"""Going through a history click by click, or in chunks, against the program that takes it in as a whole."""

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from models.scn.inner import State
from models.zoo import load_spec

ARCHITECTURES = {
    "scn": {"vocabulary": 40, "dimension": 16, "heads": 2, "mini_batch": 7},
    "gru4rec": {"vocabulary": 40, "dimension": 16},
    "mamba4rec": {"vocabulary": 40, "dimension": 16, "blocks": 2, "state": 5},
}


def random_model(name):
    model = load_spec(name).build(ARCHITECTURES[name]).double().eval()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.3
            keeps = "norm" in parameter_name or parameter_name.endswith(("A_log", ".D"))
            parameter.copy_(parameter + noise if keeps else noise)
        model.items.weight[0] = 0
    return model


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_step_scores_as_the_whole_history_does(name):
    model = random_model(name)
    step = load_spec(name).programs["step"].build(model)
    item_ids = torch.randint(-2, 43, (3, 50), generator=torch.Generator().manual_seed(6), dtype=torch.int32)
    item_ids[item_ids == 0] = 99  # unknown ids are clicks too; padding is none
    candidate_ids = torch.tensor([[1, 20, 0, 99]] * 3, dtype=torch.int32)
    state = tuple(part.double() for part in step.start(3))
    seen = []
    with torch.no_grad():
        for clicks in range(1, 51):  # over seven borders of mini-batches
            scores, *state = step(item_ids[:, clicks - 1 : clicks], candidate_ids, *state)
            whole = model(item_ids[:, :clicks], candidate_ids)
            np.testing.assert_allclose(scores, whole, rtol=1e-9, atol=1e-9, err_msg=f"after {clicks} clicks")
            seen.append(scores)
    assert torch.stack(seen).std(0).max() > 0.1  # the state matters


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_golden_cases_are_the_last_click_and_the_state_before_it(name):
    model, program = random_model(name).float(), load_spec(name).programs["step"]
    rng = np.random.default_rng(7)
    item_ids = rng.integers(1, 40, (12, 11), dtype=np.int32)
    for row in range(11):
        item_ids[row, row:] = 0  # the first is empty
    golden = {"item_ids": item_ids, "candidate_ids": rng.integers(1, 40, (12, 6), dtype=np.int32)}
    cases = program.cases(model, golden)
    declared = [(spec.name, spec.shape(ARCHITECTURES[name], 11, 6), spec.dtype) for spec in program.inputs]
    assert [(key, array.shape[1:], array.dtype.name) for key, array in cases.items()] == declared
    module = program.build(model)
    inputs = [torch.from_numpy(array) for array in cases.values()]
    with torch.no_grad():
        results = [dict(zip(program.outputs, module(*case), strict=True)) for case in zip(*inputs, strict=True)]
        whole = model(torch.from_numpy(item_ids), torch.from_numpy(golden["candidate_ids"]))
    torch.testing.assert_close(torch.cat([result["scores"] for result in results]), whole, rtol=1e-4, atol=1e-5)
    for output, given in program.state.items():
        assert {tuple(result[output].shape) for result in results} == {cases[given].shape[1:]}
    assert not any(cases[given][:2].any() for given in program.state.values())  # up to one click: from the start


MINI_BATCH = ARCHITECTURES["scn"]["mini_batch"]


@hypothesis.settings(max_examples=15, deadline=None)
@hypothesis.given(st.lists(st.integers(-1, MINI_BATCH), min_size=1, max_size=6), st.integers(0, 2**16))
def test_chunks_and_steps_in_any_order_are_the_whole_history(sizes: list[int], seed: int) -> None:
    """-1 is a step, any other number a chunk of so many clicks."""
    model = random_model("scn")
    ids = torch.randint(-2, 43, (2, 64), generator=torch.Generator().manual_seed(seed), dtype=torch.int32)
    ids[ids == 0] = 99
    start = State(*(part.double() for part in model.start(2)))
    state = stepped = start
    read = 0
    with torch.no_grad():
        for size in sizes:
            before, begin, read = state, read, read + abs(size)
            if size < 0:
                user, state = model.step(ids[:, begin:read], state)
            else:
                clicks = torch.zeros(2, MINI_BATCH, dtype=torch.int32)
                clicks[:, :size] = ids[:, begin:read]
                user, state = model.chunk(clicks, state)
            for click in range(begin, read):
                _, stepped = model.step(ids[:, click : click + 1], stepped)
            for name, part, expected in zip(State._fields, state, stepped, strict=True):
                torch.testing.assert_close(part, expected, rtol=1e-9, atol=1e-12, msg=f"{name} after {sizes}")
            if size:
                torch.testing.assert_close(user, model.user(ids[:, :read]), rtol=1e-9, atol=1e-9)
            else:
                assert all(map(torch.equal, before, state))
        padding = torch.zeros(2, MINI_BATCH, dtype=torch.int32)
        torch.testing.assert_close(model.chunk(padding, start)[0], model.user(padding), rtol=1e-9, atol=1e-9)


def test_a_chunk_reads_nothing_but_its_clicks_whatever_the_position() -> None:
    model = random_model("scn").float()
    for position in (-1e9, -1.0, 1e9, float("inf"), float("nan")):
        with torch.no_grad():
            model.chunk(
                torch.ones(1, MINI_BATCH, dtype=torch.int32),
                model.start(1)._replace(position=torch.tensor([[position]])),
            )


def test_golden_chunks_begin_anywhere_and_go_over_borders() -> None:
    model, program = random_model("scn").float(), load_spec("scn").programs["chunk"]
    rng = np.random.default_rng(7)
    item_ids = rng.integers(1, 40, (28, 14), dtype=np.int32)
    for row in range(28):
        item_ids[row, row % 15 :] = 0  # the first is empty
    cases = program.cases(model, {"item_ids": item_ids, "candidate_ids": item_ids})
    declared = [(spec.name, spec.shape(ARCHITECTURES["scn"], 14, 6), spec.dtype) for spec in program.inputs]
    assert [(key, array.shape[1:], array.dtype.name) for key, array in cases.items()] == declared
    clicks, position = (cases["item_ids"] != 0).sum((1, 2)), cases["position"][:, 0, 0]
    assert set(clicks) == set(range(MINI_BATCH + 1))
    assert len(set(position)) > 4
    assert {-1, 0, 1} <= set(np.sign(position + clicks - MINI_BATCH))  # ends before a border, at one, and behind it
    module = program.build(model)
    with torch.no_grad():
        outputs = [module(*(torch.from_numpy(array[at]) for array in cases.values())) for at in range(28)]
        own = model.user(torch.from_numpy(item_ids))
        both = model.user(torch.from_numpy(np.concatenate([item_ids[26, 4:11], item_ids[27, :12]])[None]))
    for at in (*range(0, 28, 2), 27):
        expected = both[0] if at == 27 else own[at]
        torch.testing.assert_close(outputs[at][0][0], expected, rtol=1e-4, atol=1e-5)
