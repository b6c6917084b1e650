"""Stepping through a history click by click against the program that takes it in as a whole."""

import numpy as np
import pytest
import torch

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
