"""Mutations of packages for the fuzz tests: of raw bytes, and of the tree of messages that the bytes spell."""

import random
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from exporter import mil
from exporter.core.errors import CocorrError
from exporter.mil.schema import SCHEMA
from exporter.mil.wire import Field

LIMITS = mil.Limits(memory_bytes=64 << 20, iterations=200)

Node = tuple[int, int, object]  # field number, wire type, int or bytes or Tree


@dataclass
class Tree:
    """A message as a list of fields in file order; fields that the schema does not take for messages stay bytes."""

    message: str
    nodes: list[Node] = field(default_factory=list)


def parse(data: bytes, message: str) -> Tree:
    """Read well-formed bytes into a tree."""
    tree, position = Tree(message), 0
    fields = SCHEMA[message].fields
    while position < len(data):
        key, position = _varint(data, position)
        number, wire = key >> 3, key & 7
        known = fields.get(number)
        if wire == 0:
            value, position = _varint(data, position)
            tree.nodes.append((number, wire, value))
        elif wire == 2:
            size, position = _varint(data, position)
            body = data[position : position + size]
            position += size
            inner = _inner(known)
            tree.nodes.append((number, wire, parse(body, inner) if inner else body))
        else:
            size = 8 if wire == 1 else 4
            tree.nodes.append((number, wire, data[position : position + size]))
            position += size
    return tree


def _inner(known: Field | None) -> str:
    if known is None or known.kind not in ("message", "map"):
        return ""
    return known.message if known.kind == "message" else f"{known.message}Entry"


def encode(tree: Tree) -> bytes:
    """Write a tree as bytes."""
    parts = []
    for number, wire, value in tree.nodes:
        parts.append(_key(number << 3 | wire))
        if isinstance(value, int):
            parts.append(_key(value))
        elif wire == 2:
            body = encode(value) if isinstance(value, Tree) else value
            parts.append(_key(len(body)) + body)
        else:
            parts.append(value)
    return b"".join(parts)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position


def _key(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _walk(tree: Tree) -> Iterator[Tree]:
    yield tree
    for _, _, value in tree.nodes:
        if isinstance(value, Tree):
            yield from _walk(value)


_NUMBERS = (0, 1, 2, 3, 7, 64, 255, 65_536, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**64 - 1)
_TEXTS = (
    b"",
    b"x",
    b"..",
    b"@model_path/../../x",
    b"@model_path/weights/weight.bin",
    b"fp16",
    b"int8",
    b"\xff",
    b"a" * 300,
)


class Mutator:
    """Mutates one package; the same seed gives the same mutation."""

    def __init__(self, model: bytes, weights: bytes) -> None:
        self._model, self._weights = model, weights
        self._tree = parse(model, "Model")
        assert encode(self._tree) == model, "the tree does not spell the file it was read from"
        self._texts = sorted({v for t in _walk(self._tree) for _, w, v in t.nodes if w == 2 and isinstance(v, bytes)})

    def mutate(self, seed: int) -> tuple[bytes, bytes]:
        """Return the bytes of a mutated model file and weight file."""
        chance = random.Random(seed)
        kind = chance.random()
        if kind < 0.25:
            return self._bytes(self._model, chance), self._weights
        if kind < 0.35:
            return self._model, self._bytes(self._weights, chance)
        tree = parse(self._model, "Model")
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            self._change(tree, chance)
        return encode(tree), self._weights

    @staticmethod
    def _bytes(data: bytes, chance: random.Random) -> bytes:
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 2, 8))):
            if not changed:
                break
            place = chance.randrange(len(changed))
            action = chance.randrange(4)
            if action == 0:
                changed[place] ^= 1 << chance.randrange(8)
            elif action == 1:
                changed[place] = chance.randrange(256)
            elif action == 2:
                del changed[place : place + chance.choice((1, 4, 64, 10_000))]
            else:
                other = chance.randrange(len(changed))
                changed[place:place] = changed[other : other + chance.choice((1, 8, 200))]
        return bytes(changed)

    def _change(self, tree: Tree, chance: random.Random) -> None:
        trees = [t for t in _walk(tree) if t.nodes]
        target = chance.choice(trees)
        place = chance.randrange(len(target.nodes))
        number, wire, value = target.nodes[place]
        action = chance.randrange(6)
        if action == 0:
            del target.nodes[place]
        elif action == 1:
            target.nodes.insert(chance.randrange(len(target.nodes) + 1), target.nodes[place])
        elif action == 2:
            other = chance.randrange(len(target.nodes))
            target.nodes[place], target.nodes[other] = target.nodes[other], target.nodes[place]
        elif isinstance(value, Tree):
            # Put another message of the same kind in its place: types, arguments and values wander about.
            like = [t for t in trees if t.message == value.message]
            if like:
                target.nodes[place] = (number, wire, parse(encode(chance.choice(like)), value.message))
        elif isinstance(value, int):
            target.nodes[place] = (number, wire, chance.choice((*_NUMBERS, chance.randrange(300), value + 1)))
        elif wire == 2:
            target.nodes[place] = (number, wire, chance.choice(chance.choice((self._texts, _TEXTS))))


def attempt(path):
    """Load and run a package on zeros; returns the error, or None when it gave an answer."""
    try:
        program = mil.load(path, limits=LIMITS)
        inputs = {}
        for spec in program.inputs:
            if np.prod([float(size) for size in spec.shape]) > 1e6:
                return None
            inputs[spec.name] = np.zeros(spec.shape, spec.dtype)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mil.NonFiniteWarning)
            program.run(inputs, state=program.make_state())
    except CocorrError as error:
        return error
    return None


def looped(coremltools):
    """A program whose loop counts up, with a branch inside, and a list that it fills."""
    builder = coremltools.converters.mil.mil.Builder

    @builder.program(input_specs=[builder.TensorSpec((4,))], opset_version=coremltools.target.iOS17)
    def program(x):
        def holds(count, total):
            return builder.squeeze(x=builder.less(x=count, y=np.int32(5)), axes=[0])

        def step(count, total):
            large = builder.squeeze(x=builder.greater(x=count, y=np.int32(2)), axes=[0])
            total = builder.cond(
                pred=large,
                _true_fn=lambda: builder.add(x=total, y=x),
                _false_fn=lambda: builder.mul(x=total, y=np.float32(2)),
            )
            return builder.add(x=count, y=np.int32(1)), total

        _, total = builder.while_loop(_cond=holds, _body=step, loop_vars=(np.int32([0]), x))
        ls = builder.make_list(init_length=np.int32(2), elem_shape=(np.int32(4),))
        ls = builder.list_write(ls=ls, index=np.int32(1), value=total)
        return builder.list_gather(ls=ls, indices=np.int32([1, 0]))

    return program
