"""The model of docs/adding-a-model.md: added as the page says, it is built, checkpointed, read and captured."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.graph.capture import capture
from models import checkpoint, zoo
from models.untrained import untrained

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-model.md"


@pytest.fixture
def spec(tmp_path, monkeypatch):
    text = PAGE.read_text()
    (source,) = re.findall(r"```python\n(.*?)```", text, re.S)
    (name, module) = re.search(r'^    "(\w+)": "models\.(\w+)",$', text, re.M).groups()
    (tmp_path / f"{module}_of_the_page.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(zoo.MODELS, name, f"{module}_of_the_page")
    return zoo.load_spec(name)


def test_the_page_holds_for_a_model_of_ones_own(tmp_path):
    """With `cocorr` in place of `models.…`, as docs/own-models.md says."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    own = tmp_path / "own_of_the_page.py"
    programs = "from cocorr import by_table, topk_program  # what the page names besides\n"
    own.write_text(programs + re.sub(r"from models\.\w+ import", "from cocorr import", source))
    assert zoo.load_spec(f"{own}:SPEC").name == "average"


def test_the_page_gives_a_whole_model(spec, tmp_path):
    model, drawn = untrained(spec, 5, 7)
    config = {"schema_version": 1, "model": spec.name, "training": {}, "metrics": {}}
    config |= {"architecture": drawn.architecture, "history_length": 5}
    written = checkpoint.write(tmp_path / "saved", config, model.state_dict(), drawn.golden)
    again = checkpoint.build(written, spec)
    program = spec.programs[spec.default_program]
    examples = {name: array[0] for name, array in program.cases(again, written.golden).items()}
    captured = capture(spec.name, program.name, program.build(again), examples, program.outputs)
    inputs = {name: torch.from_numpy(array) for name, array in examples.items()}
    scores = captured.exported.module()(**inputs)["scores"].detach().numpy()
    np.testing.assert_allclose(scores[0], drawn.golden["scores"][0], rtol=1e-5, atol=1e-6)
    empty = torch.zeros(1, 5, dtype=torch.int32)
    assert torch.isfinite(model(empty, inputs["candidate_ids"])).all()
