"""RecBole's models beyond their scores, which test_importing.py compares: each click by itself, 16 bits, sizes."""

import published
import pytest
import torch
from torch import nn

from models.zoo import load_spec

SIZES = {
    "recbole-sasrec": {"dimension": 16, "heads": 2, "blocks": 2, "inner": 24, "history_length": published.N},
    "recbole-gru4rec": {"dimension": 16, "hidden": 24, "layers": 2},
}
HISTORIES = torch.tensor([[3, 9, 4, 7, 1, 5, 2], [6, 2, 9, 0, 0, 0, 0], [99, 0, 0, 0, 0, 0, 0], [0] * 7])
CANDIDATES = torch.tensor([[1, 5, 19, 0, 99]]).expand(4, -1)


def build(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = load_spec(name).build({"vocabulary": published.V, **SIZES[name]})
    model.reset(0.5)
    return model.eval()


@pytest.mark.parametrize("name", SIZES)
def test_the_last_click_alone_is_computed_as_among_all(name: str) -> None:
    model = build(name)
    last = ((HISTORIES != 0).sum(1) - 1).clamp(min=0)
    with torch.no_grad():
        users = load_spec(name).encode(model, HISTORIES)[torch.arange(4), last]
        expected = torch.einsum("bd,bcd->bc", users, model.items(CANDIDATES))
        torch.testing.assert_close(model(HISTORIES, CANDIDATES), expected)
        longer = torch.cat([HISTORIES[1:, :6], torch.zeros(3, 1, dtype=torch.int64)], 1)
        torch.testing.assert_close(model(longer, CANDIDATES[1:]), expected[1:])


def test_one_click_at_a_time_gives_the_scores_of_the_whole_history() -> None:
    model = build("recbole-gru4rec")
    step = load_spec("recbole-gru4rec").programs["step"].build(model)
    (state,) = step.start(1)
    with torch.no_grad():
        for clicks in range(1, 8):
            scores, state = step(HISTORIES[:1, clicks - 1 : clicks], CANDIDATES[:1], state)
            seen = torch.nn.functional.pad(HISTORIES[:1, :clicks], (0, 7 - clicks))
            torch.testing.assert_close(scores, model(seen, CANDIDATES[:1]))


@pytest.mark.parametrize("name", SIZES)
def test_they_learn_and_stay_finite_in_16_bits(name: str) -> None:
    model = build(name)
    with torch.no_grad():
        exact = model(HISTORIES, CANDIDATES)
        torch.testing.assert_close(model.half()(HISTORIES, CANDIDATES).float(), exact, rtol=0.05, atol=0.1)
    model = build(name).train()
    model(HISTORIES, CANDIDATES).square().mean().backward()
    for parameter_name, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), parameter_name
        assert parameter.grad.abs().max() > 0, parameter_name
    assert not model.items.weight.grad[0].any()


def test_heads_must_divide_the_dimension() -> None:
    with pytest.raises(ValueError, match="a multiple of heads = 3"):
        load_spec("recbole-sasrec").build({"vocabulary": 20, **SIZES["recbole-sasrec"], "heads": 3})
