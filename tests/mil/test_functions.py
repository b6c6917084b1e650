"""Whole functions: control flow, lists, states, several functions, flexible shapes, classifiers, random numbers."""

import uuid

import numpy as np
import pytest

from exporter import mil
from exporter.core.errors import ProgramError, UnknownNameError


@pytest.fixture(scope="module")
def mb(coremltools):
    from coremltools.converters.mil.mil import Builder

    return Builder


@pytest.fixture
def built(coremltools, packages):
    """Convert a pymil program to a package without passes that would simplify it."""

    def run(program, release=17, **options):
        model = coremltools.convert(
            program,
            minimum_deployment_target=getattr(coremltools.target, f"iOS{release}"),
            compute_precision=coremltools.precision.FLOAT32,
            pass_pipeline=coremltools.PassPipeline.EMPTY,
            skip_model_load=True,
            **options,
        )
        path = packages / f"{uuid.uuid4().hex}.mlpackage"
        model.save(str(path))
        return path

    return run


def test_cond_runs_one_branch_on_values_from_outside(mb, built, coremltools):
    @mb.program(input_specs=[mb.TensorSpec((3,)), mb.TensorSpec((1,))], opset_version=coremltools.target.iOS17)
    def program(a, b):
        doubled = mb.mul(x=a, y=np.float32(2))
        chosen = mb.squeeze(x=mb.greater(x=b, y=np.float32(0)), axes=[0])
        return mb.cond(
            pred=chosen,
            _true_fn=lambda: mb.add(x=doubled, y=b),
            _false_fn=lambda: mb.sub(x=mb.exp(x=doubled), y=np.float32(1)),
        )

    loaded = mil.load(built(program))
    a = np.float32([1, 2, 3])
    (up,) = loaded.run({"a": a, "b": np.float32([5])}).values()
    (down,) = loaded.run({"a": a, "b": np.float32([-5])}).values()
    assert up.tolist() == [7, 9, 11]
    np.testing.assert_allclose(down, np.exp(2 * a) - 1, rtol=1e-6)


def _collatz(mb, coremltools):
    @mb.program(input_specs=[mb.TensorSpec((1,), dtype=coremltools.converters.mil.mil.types.int32)])
    def program(n):
        def holds(value, steps):
            return mb.squeeze(x=mb.not_equal(x=value, y=np.int32(1)), axes=[0])

        def step(value, steps):
            even = mb.squeeze(x=mb.equal(x=mb.mod(x=value, y=np.int32(2)), y=np.int32(0)), axes=[0])
            following = mb.cond(
                pred=even,
                _true_fn=lambda: mb.floor_div(x=value, y=np.int32(2)),
                _false_fn=lambda: mb.add(x=mb.mul(x=value, y=np.int32(3)), y=np.int32(1)),
            )
            return following, mb.add(x=steps, y=np.int32(1))

        return mb.while_loop(_cond=holds, _body=step, loop_vars=(n, np.int32([0])))

    return program


def test_loops_and_branches_nest(mb, built, coremltools):
    loaded = mil.load(built(_collatz(mb, coremltools)))
    outputs = loaded.run({"n": np.int32([27])})
    assert sorted(value.item() for value in outputs.values()) == [1, 111]
    kinds = {operation.type for operation in loaded.function().operations}
    assert {"while_loop", "cond", "mod", "floor_div"} <= kinds


def test_a_loop_that_does_not_end_is_ended(mb, built, coremltools):
    path = built(_collatz(mb, coremltools))
    with pytest.raises(ProgramError, match="50 iterations"):
        mil.load(path, limits=mil.Limits(iterations=50)).run({"n": np.int32([27])})


def test_lists_are_written_read_gathered_and_scattered(mb, built, coremltools):
    @mb.program(input_specs=[mb.TensorSpec((2,)), mb.TensorSpec((2, 2))], opset_version=coremltools.target.iOS17)
    def program(x, rows):
        ls = mb.make_list(init_length=np.int32(1), elem_shape=(np.int32(2),), dynamic_length=True)
        ls = mb.list_write(ls=ls, index=np.int32(0), value=x)
        ls = mb.list_write(ls=ls, index=np.int32(2), value=mb.mul(x=x, y=np.float32(3)))
        ls = mb.list_scatter(ls=ls, indices=np.int32([3, 1]), value=rows)
        return (
            mb.list_gather(ls=ls, indices=np.int32([3, 2, 1, 0])),
            mb.list_read(ls=ls, index=np.int32(2)),
            mb.expand_dims(x=mb.list_length(ls=ls), axes=[0]),
        )

    loaded = mil.load(built(program))
    gathered, read, length = loaded.run({"x": np.float32([1, 2]), "rows": np.float32([[5, 6], [7, 8]])}).values()
    assert gathered.tolist() == [[5, 6], [3, 6], [7, 8], [1, 2]]
    assert read.tolist() == [3, 6] and length.tolist() == [4]


def test_states_outlive_runs_and_are_apart(convert, coremltools):
    import torch

    class Accumulator(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("total", torch.zeros(3, dtype=torch.float16))

        def forward(self, x):
            self.total.add_(x)
            return self.total * 2

    path = convert(
        Accumulator(),
        (torch.zeros(3, dtype=torch.float16),),
        "iOS18",
        "FLOAT16",
        inputs=[coremltools.TensorType(name="x", shape=(3,), dtype=np.float16)],
        outputs=[coremltools.TensorType(name="y", dtype=np.float16)],
        states=[coremltools.StateType(coremltools.TensorType(shape=(3,), dtype=np.float16), name="total")],
    )
    program = mil.load(path)
    first, second = program.make_state(), program.make_state()
    x = np.float16([1, 2, 3])
    assert program.run({"x": x}, state=first)["y"].tolist() == [2, 4, 6]
    assert program.run({"x": x}, state=first)["y"].tolist() == [4, 8, 12]
    assert program.run({"x": x}, state=second)["y"].tolist() == [2, 4, 6]
    (name,) = first.names()
    assert first[name].tolist() == [2, 4, 6]
    first[name] = np.float16([10, 10, 10])
    assert program.run({"x": x}, state=first)["y"].tolist() == [22, 24, 26]
    with pytest.raises(ProgramError, match="make_state"):
        program.run({"x": x})
    with pytest.raises(ProgramError, match="float16"):
        first[name] = np.zeros(3, np.float32)


def test_several_functions_share_their_weights(convert, coremltools, packages):
    import torch

    paths = []
    for scale in (1.0, 2.0):

        class Scaled(torch.nn.Module):
            def __init__(self, scale=scale):
                super().__init__()
                torch.manual_seed(0)
                self.inner, self.scale = torch.nn.Linear(4, 3), scale

            def forward(self, x):
                return self.inner(x) * self.scale

        paths.append(convert(Scaled(), (torch.ones(1, 4),), "iOS18", outputs=[coremltools.TensorType(name="y")]))
    description = coremltools.utils.MultiFunctionDescriptor()
    for name, path in zip(("plain", "double"), paths, strict=True):
        description.add_function(str(path), src_function_name="main", target_function_name=name)
    description.default_function_name = "plain"
    merged = packages / f"{uuid.uuid4().hex}.mlpackage"
    coremltools.utils.save_multifunction(description, str(merged))
    program = mil.load(merged)
    assert set(program.functions) == {"plain", "double"} and program.default == "plain"
    inputs = {program.inputs[0].name: np.float32([[1, -2, 3, -4]])}
    np.testing.assert_allclose(program.run(inputs, function="double")["y"], 2 * program.run(inputs)["y"], rtol=1e-6)
    with pytest.raises(UnknownNameError, match="double, plain"):
        program.run(inputs, function="triple")


def _flexible(coremltools, shape):
    import torch

    class Pooled(torch.nn.Module):
        def forward(self, x):
            return torch.relu(x).mean(1)

    dynamic = {"x": {1: torch.export.Dim("n", min=2, max=9)}}
    exported = torch.export.export(Pooled(), (torch.ones(1, 4, 3),), dynamic_shapes=dynamic).run_decompositions({})
    return coremltools.convert(
        exported,
        inputs=[coremltools.TensorType(name="x", shape=shape)],
        outputs=[coremltools.TensorType(name="y")],
        minimum_deployment_target=coremltools.target.iOS17,
        compute_precision=coremltools.precision.FLOAT32,
        skip_model_load=True,
    )


def test_ranges_of_shapes_are_checked_and_described(coremltools, packages):
    path = packages / f"{uuid.uuid4().hex}.mlpackage"
    _flexible(coremltools, (1, coremltools.RangeDim(2, 9, default=4), 3)).save(str(path))
    program = mil.load(path)
    assert program.inputs[0].shape == (1, 4, 3)
    assert program.function().flexible["x"].ranges == ((1, 1), (2, 9), (3, 3))
    for length in (2, 5, 9):
        x = np.random.default_rng(length).standard_normal((1, length, 3)).astype(np.float32)
        np.testing.assert_allclose(program.run({"x": x})["y"], np.maximum(x, 0).mean(1), rtol=1e-5, atol=1e-6)
    for length in (1, 10):
        with pytest.raises(ProgramError, match=r"2\.\.9"):
            program.run({"x": np.zeros((1, length, 3), np.float32)})


def test_enumerated_shapes_are_checked_and_described(coremltools, packages):
    shapes = coremltools.EnumeratedShapes([(1, 4, 3), (1, 7, 3)], default=(1, 4, 3))
    path = packages / f"{uuid.uuid4().hex}.mlpackage"
    _flexible(coremltools, shapes).save(str(path))
    program = mil.load(path)
    assert set(program.function().flexible["x"].shapes) == {(1, 4, 3), (1, 7, 3)}
    assert program.run({"x": np.ones((1, 7, 3), np.float32)})["y"].tolist() == [[1, 1, 1]]
    with pytest.raises(ProgramError, match=r"one of \[1, 4, 3\], \[1, 7, 3\]"):
        program.run({"x": np.ones((1, 5, 3), np.float32)})


@pytest.mark.parametrize("labels", [["ant", "bee", "cat"], [7, 8, 9]])
def test_classifiers_give_label_and_probabilities(convert, coremltools, labels):
    import torch

    path = convert(torch.nn.Softmax(-1), (torch.zeros(1, 3),), classifier_config=coremltools.ClassifierConfig(labels))
    program = mil.load(path)
    classifier = program.function().classifier
    assert classifier is not None and classifier.classes == tuple(labels)
    outputs = program.run({program.inputs[0].name: np.float32([[0, 3, 1]])})
    assert outputs[classifier.label].item() == labels[1]
    np.testing.assert_allclose(outputs[classifier.probabilities].sum(), 1, rtol=1e-6)


def test_optional_inputs_have_their_default(coremltools, packages, convert):
    import torch

    class Sum(torch.nn.Module):
        def forward(self, x, y):
            return x + 2 * y

    path = convert(
        Sum(),
        (torch.ones(3), torch.ones(3)),
        inputs=[
            coremltools.TensorType(name="x", shape=(3,)),
            coremltools.TensorType(name="y", shape=(3,), default_value=np.full(3, 5, np.float32)),
        ],
        outputs=[coremltools.TensorType(name="z")],
    )
    program = mil.load(path)
    assert program.run({"x": np.float32([1, 2, 3])})["z"].tolist() == [11, 12, 13]
    with pytest.raises(ProgramError, match="missing"):
        program.run({"y": np.float32([1, 2, 3])})


def test_random_operations_repeat_by_seed_and_have_their_distribution(mb, built, coremltools):
    @mb.program(input_specs=[mb.TensorSpec((2, 3))], opset_version=coremltools.target.iOS17)
    def program(x):
        shape = np.int32([20_000])
        return (
            mb.random_normal(shape=shape, mean=np.float32(1), stddev=np.float32(2), seed=np.int32(5), name="normal"),
            mb.random_uniform(shape=shape, low=np.float32(-1), high=np.float32(3), seed=np.int32(-1), name="uniform"),
            mb.random_bernoulli(shape=shape, prob=np.float32(0.3), seed=np.int32(7), name="bernoulli"),
            mb.random_categorical(x=x, mode="logits", size=np.int32(20_000), seed=np.int32(9), name="categorical"),
        )

    loaded = mil.load(built(program))
    logits = np.float32([[0, 1, 2], [3, 0, 0]])
    first, again, other = (loaded.run({"x": logits}, seed=seed) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert np.array_equal(first["normal"], other["normal"]) and not np.array_equal(first["uniform"], other["uniform"])
    assert abs(first["normal"].mean() - 1) < 0.05 and abs(first["normal"].std() - 2) < 0.05
    assert first["uniform"].min() >= -1 and first["uniform"].max() < 3 and abs(first["uniform"].mean() - 1) < 0.05
    assert set(np.unique(first["bernoulli"])) == {0, 1} and abs(first["bernoulli"].mean() - 0.3) < 0.02
    shares = np.stack([np.bincount(row.astype(int), minlength=3) for row in first["categorical"]]) / 20_000
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert np.abs(shares - expected).max() < 0.02


def test_non_maximum_suppression_follows_its_definition(mb, built, coremltools):
    """Against a plain loop over the boxes, for both layouts and both kinds of suppression."""
    random = np.random.default_rng(3)
    boxes = np.concatenate([random.random((2, 40, 2)) * 10, 1 + random.random((2, 40, 2)) * 4], -1).astype(np.float32)
    scores = random.standard_normal((2, 40, 3)).astype(np.float32)
    turned = {"b": boxes.swapaxes(1, 2).copy(), "s": scores.swapaxes(1, 2).copy()}
    for per_class in (False, True):
        options = {"iou_threshold": np.float32(0.3), "max_boxes": np.int32(12), "per_class_suppression": per_class}
        early = _suppression(
            mb, boxes, scores, coremltools.target.iOS15, {**options, "score_threshold": np.float32(0.2)}
        )
        outputs = list(mil.load(built(early, 15)).run({"b": boxes, "s": scores}).values())
        late = _suppression(mb, turned["b"], turned["s"], coremltools.target.iOS17, options)
        modern = list(mil.load(built(late, 17)).run(turned).values())
        for sample in range(2):
            kept = _suppressed(boxes[sample], scores[sample], 0.3, 0.2, 12, per_class)
            assert outputs[2][sample][: len(kept)].tolist() == kept and outputs[3][sample] == len(kept)
            assert np.array_equal(outputs[0][sample][: len(kept)], boxes[sample][kept])
            assert (outputs[2][sample][len(kept) :] == -1).all() and not outputs[0][sample][len(kept) :].any()
            kept = _suppressed(boxes[sample], scores[sample], 0.3, -np.inf, 12, per_class)
            assert modern[2][sample][: len(kept)].tolist() == kept
            assert np.array_equal(modern[1][sample][:, : len(kept)], scores[sample][kept].T)


def _suppression(mb, boxes, scores, target, options):
    @mb.program(input_specs=[mb.TensorSpec(boxes.shape), mb.TensorSpec(scores.shape)], opset_version=target)
    def program(b, s):
        return mb.non_maximum_suppression(boxes=b, scores=s, **options)

    return program


def _suppressed(boxes, scores, limit, least, count, per_class):
    """The definition, box by box."""
    best, classes = scores.max(1), scores.argmax(1)
    kept = []
    for box in np.argsort(-best):
        if best[box] <= least:
            continue
        if all(_overlap(boxes[box], boxes[k]) <= limit or (per_class and classes[k] != classes[box]) for k in kept):
            kept.append(int(box))
    return kept[:count]


def _overlap(a, b):
    low = np.maximum(a[:2] - a[2:] / 2, b[:2] - b[2:] / 2)
    high = np.minimum(a[:2] + a[2:] / 2, b[:2] + b[2:] / 2)
    shared = float(np.prod(np.maximum(high - low, 0)))
    return shared / (float(np.prod(a[2:])) + float(np.prod(b[2:])) - shared)
