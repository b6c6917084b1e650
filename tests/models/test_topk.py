"""The program `topk` of each model gives the best of the scores that the model has of all items."""

import numpy as np
import pytest
import tiny_models
import torch

from models.topk import DEFAULT_TOP
from models.zoo import MODELS, load_spec

SIZES = {
    **tiny_models.SIZES,
    "recbole-sasrec": {"dimension": 16, "heads": 2, "blocks": 2, "inner": 32, "history_length": tiny_models.LENGTH},
    "recbole-gru4rec": {"dimension": 16, "hidden": 12, "layers": 2},
}
HAVING = [name for name in MODELS if "topk" in load_spec(name).programs]


def test_models_that_rank_by_a_product_have_it() -> None:
    assert set(HAVING) == set(SIZES) - {"din"}


@pytest.mark.parametrize("name", HAVING)
def test_it_gives_the_best_of_all_items(name: str) -> None:
    spec = load_spec(name)
    program = spec.programs["topk"]
    torch.manual_seed(0)
    model = spec.build({"vocabulary": tiny_models.VOCABULARY, **SIZES[name]}).eval()
    model.reset(0.3)
    histories = torch.from_numpy(tiny_models.golden(model)["item_ids"])
    everything = torch.arange(1, tiny_models.VOCABULARY)[None]
    assert program.of_top is not None
    for module, count in ((program.build(model), DEFAULT_TOP), (program.of_top(7)(model), 7)):
        with torch.no_grad():
            for history in histories.split(1):
                ids, scores = module(history)
                expected = model(history, everything)[0].topk(count).values
                assert (ids.dtype, ids.shape, scores.shape) == (torch.int32, (1, count), (1, count))
                assert len(set(ids[0].tolist())) == count and ids.min() >= 1
                np.testing.assert_allclose(scores[0], expected, rtol=0, atol=1e-5)
                np.testing.assert_allclose(scores, model(history, ids), rtol=0, atol=1e-5)
    stored = {id(parameter): parameter for parameter in module.parameters()}
    whole = sum(parameter.numel() for parameter in model.parameters())
    assert sum(parameter.numel() for parameter in stored.values()) < whole + model.items.weight.numel()
    with pytest.raises(ValueError, match="the catalogue has 119 items"):
        program.of_top(tiny_models.VOCABULARY)(model)
