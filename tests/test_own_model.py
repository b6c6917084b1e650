"""A model that a user brings, FILE.py:SPEC or from an installed package: it does all that those that ship do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import run_here
from examples_of_the_project import EXAMPLES

from models import zoo

OWN = f"{EXAMPLES / 'own_model.py'}:SPEC"


def test_a_model_from_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    made = ("--untrained", "--target", "onnx", "--output", tmp_path, "--json")
    ended = run_here(capfd, "export", "--model", OWN, *made)
    assert (ended.code, ended.document["parity"]["verdict"]) == (0, "pass"), ended.err
    assert ended.document["artifact"] == str(tmp_path / "mean" / "rerank" / "generic" / "onnx")
    step = run_here(capfd, "export", "--model", OWN, *made, "--program", "step").document
    assert step["parity"]["verdict"] == "pass"
    assert step["state"] == {"next_total": "total", "next_clicks": "clicks"}
    profiled = run_here(capfd, "profile", step["artifact"], "--iterations", "20", "--json")
    assert "give its model: --model FILE.py:SPEC" in profiled.document["growth"]["reason"], profiled.err
    refused = run_here(capfd, "profile", step["artifact"], "--model", OWN, "--checkpoint", tmp_path)
    assert refused.code == 2 and "this artifact has drawn weights; leave --checkpoint out" in refused.error_line()
    profiled = run_here(capfd, "profile", step["artifact"], "--iterations", "20", "--json", "--model", OWN)
    assert profiled.document["growth"]["reason"] == "no input of this program has the length of the history"


BROKEN = {
    "no such file": (None, "broken.py is no file"),
    "no SPEC": ("x = 1", "broken.py has no SPEC"),
    "no ModelSpec": ("SPEC = {'name': 'x'}", "is dict, not a ModelSpec"),
    "syntax": ("a = 1\ndef", "broken.py:2: SyntaxError"),
    "an error": ("print('hello')\n\nraise RuntimeError('no luck')", "broken.py:3: RuntimeError: no luck"),
    "exit": ("import sys\nsys.exit(0)", "broken.py:2: SystemExit"),
    "a name that ships": ("replace(SPEC, name='scn')", "'scn' is the name of a model that ships"),
    "a path as name": ("replace(SPEC, name='../x')", "name is '../x'; give a name of letters"),
    "an error without words": (
        "class E(BaseException):\n    def __str__(self):\n        1 / 0\nraise E",
        "broken.py:4: E;",
    ),
    "shapes": (
        "def shape(*_):\n    raise KeyError('no shape')\nother, rerank = replace, SPEC.programs['rerank']\n"
        "rerank = other(rerank, inputs=tuple(other(one, shape=shape) for one in rerank.inputs))\n"
        "replace(SPEC, programs={'rerank': rerank})",
        "broken.py:4: KeyError: 'no shape'",
    ),
    "types": (
        "import numpy as np\nother, rerank = replace, SPEC.programs['rerank']\n"
        "def cases(*_):\n    return dict.fromkeys(['item_ids', 'candidate_ids'], np.ones((2, 1, 9), int))\n"
        "replace(SPEC, programs={'rerank': other(rerank, cases=cases)})",
        "have 'item_ids' in int64; give int32",
    ),
    "unhashable": ("replace(SPEC, default_program=[1])", "default_program is [1]; give one of rerank, step"),
    "no module": ("SPEC = program(build=lambda *_: None)", "build of rerank gives NoneType; give a torch.nn.Module"),
    "no network": ("replace(SPEC, build=lambda _: None)", "build of mean gives NoneType; give a torch.nn.Module"),
    "fewer outputs": (
        "SPEC = program(outputs=('scores', 'other'))",
        "broken.py:SPEC: forward of rerank gives 1 outputs, and its SPEC names scores, other",
    ),
    "other counts": (
        "SPEC = program(cases=lambda _, golden, __: {"
        "'item_ids': golden['item_ids'][:3, None], 'candidate_ids': golden['candidate_ids'][:, None]})",
        "not the same number for each input (item_ids 3, candidate_ids 64)",
    ),
    "no cases": (
        "SPEC = program(cases=lambda _, golden, __: {k: golden[k][:0, None] for k in ('item_ids', 'candidate_ids')})",
        "are none, or not the same number",
    ),
    "no such case": ("SPEC = program(cases=lambda *_: {})", "are for nothing; give item_ids, candidate_ids"),
    "other shapes": (
        "SPEC = program(cases=lambda _, golden, __: {k: golden[k] for k in ('item_ids', 'candidate_ids')})",
        "have 'item_ids' as [64, 10]; give [cases, 1, 10]",
    ),
    "a thousand million cases": (
        "import numpy as np\nmany = np.broadcast_to(np.int32(1), (10**9, 1, 10))\n"
        "SPEC = program(cases=lambda *_: {'item_ids': many, 'candidate_ids': many})",
        "the cases of rerank take 80000000000 bytes, more than the 1073741824 that are read",
    ),
    "many cases": (
        "import numpy as np\n"
        "SPEC = program(cases=lambda *_: dict.fromkeys(('item_ids', 'candidate_ids'), np.zeros((10**6, 1, 10), 'i4')))",
        "the cases of rerank are 1000000; give 65536 or fewer",
    ),
    "masked cases": (
        "import numpy as np\nmasked = np.ma.masked_array(np.ones((2, 1, 10), np.int32), mask=True)\n"
        "SPEC = program(cases=lambda *_: {'item_ids': masked, 'candidate_ids': masked})",
        "the cases of rerank: 'item_ids' is a masked array",
    ),
    "a shape of fractions": (
        "SPEC = shaped(lambda a, n, c: (1.0, float(n)))",
        "broken.py:SPEC: rerank: shape of item_ids gives (1.0, 10.0); give whole numbers from 1",
    ),
    "a shape of truths": (
        "SPEC = shaped(lambda a, n, c: (True, n))",
        "shape of item_ids gives (True, 10)",
    ),
    "a shape of nothing": ("SPEC = shaped(lambda *_: None)", "shape of item_ids gives None; give whole"),
    "not a number": (
        "import torch\nclass Nan(torch.nn.Module):\n    def forward(self, a, b):\n        return b * torch.nan\n"
        "SPEC = program(build=lambda *_: Nan())",
        "rerank gives NaN or infinite values as 'scores'",
    ),
    "64 bits": (
        "import torch\nclass Long(torch.nn.Module):\n    def forward(self, a, b):\n        return b.long()\n"
        "SPEC = program(build=lambda *_: Long())",
        "gives 'scores' in int64; give float32 or int32",
    ),
    "scores in a column": (
        "import torch\nclass Column(torch.nn.Module):\n    def forward(self, a, b):\n        return b[..., None] / 2\n"
        "SPEC = program(build=lambda *_: Column())",
        "forward of rerank: scores is [1, 100, 1]; give [1, 100], a score for each candidate",
    ),
    "build": ("def build(_):\n    return [][0]\nreplace(SPEC, build=build)", "broken.py:4: IndexError"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_with_a_file_is_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, words = BROKEN[kind]
    if code is not None and any(made in code for made in ("replace(", "program(", "shaped(")):
        code = code.replace("replace(", "SPEC = replace(")
        found = f"import sys; sys.path.append({str(EXAMPLES)!r}); from dataclasses import replace"
        changed = "replace(SPEC, programs={'rerank': replace(SPEC.programs['rerank'], **parts)})"
        shaped = "(replace(SPEC.programs['rerank'].inputs[0], shape=shape), SPEC.programs['rerank'].inputs[1])"
        helpers = f"program = lambda **parts: {changed}; shaped = lambda shape: program(inputs={shaped})"
        code = f"{found}\nfrom own_model import SPEC; {helpers}\n{code}"
    if code is not None:
        Path("broken.py").write_text(code)
    ended = run_here(capfd, "export", "--model", "broken.py:SPEC", "--untrained", "--target", "onnx", "--json")
    lines = [line for line in ended.noise() if line != "hello"]
    assert (ended.code, len(lines), words in lines[0]) == (2, 1, True), ended.err
    assert lines == [f"error: {ended.document['error']['message']}"]
    assert not Path("artifacts").exists()


def test_a_file_alone_is_no_model(capfd: pytest.CaptureFixture[str]) -> None:
    ended = run_here(capfd, "export", "--model", "ok.py", "--untrained", "--target", "onnx")
    assert (
        ended.code == 2 and "ok.py does not say what its ModelSpec is called; give FILE.py:SPEC" in ended.error_line()
    )


def test_models_of_installed_packages(tmp_path: Path) -> None:
    described = tmp_path / "shop-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    points = {"mean": "own_model:SPEC", "hurt": "hurt:SPEC", "scn": "own_model:SPEC"}
    lines = "\n".join(f"{name} = {place}" for name, place in points.items())
    (described / "entry_points.txt").write_text(f"[{zoo.ENTRY_POINTS}]\n{lines}\n")
    (tmp_path / "own_model.py").write_text((EXAMPLES / "own_model.py").read_text())
    (tmp_path / "hurt.py").write_text("import nowhere_at_all\n")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "exporter", *words]
        return subprocess.run(command, capture_output=True, text=True, env=environment)

    listed = {row["model"]: row["description"] for row in json.loads(run("list", "models", "--json").stdout)["models"]}
    assert listed["mean"] == "The mean of the clicks' embeddings"
    assert "hurt.py:1: ModuleNotFoundError" in listed["hurt"]
    assert "CoCorrRec" in listed["scn"]
    assert "Export a trained mean" in run("--help").stdout
    hurt = run("hurt", "--target", "onnx", "--untrained")
    assert (hurt.returncode, hurt.stderr.count("\n")) == (2, 2) and "hurt.py:1" in hurt.stderr, hurt.stderr
