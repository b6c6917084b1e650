"""The division of constants, on graphs whose parts are known by how they were made."""

from exporter.core import kinds
from exporter.core.types import Constant, Lowered, MemoryPlan, Operation
from exporter.measure.memory import parts


def constant(name, size, sha256="-"):
    return Constant(name, (size // 4, 1), size, sha256, name)


def operation(name, kind, reads, size=1):
    return Operation(name, "Native", kind, ((1,),) * len(reads), ((size,),), reads=tuple(reads), writes=(name,))


def divided(constants, operations):
    graph = Lowered(tuple(operations), tuple(constants), (("ids", "x"), ("candidates", "y")), MemoryPlan(0, 0, ""))
    return parts(graph, ["ids", "candidates"])


def test_by_hand():
    """The table is expanded before rows are chosen; `w` and `v` are mixed without an input, for the head alone."""
    found = divided(
        [constant("table", 400), constant("w", 40), constant("v", 4), constant("b", 8)],
        [
            operation("wide", kinds.MOVE, ["table"], 200),
            operation("rows", kinds.GATHER, ["wide", "x"]),
            operation("hidden", kinds.ADD, ["rows", "b"]),
            operation("mixed", kinds.MULTIPLY, ["w", "v"]),
            operation("scores", kinds.MATMUL, ["hidden", "mixed", "y"]),
        ],
    )
    assert (found.embedding_bytes, found.body_bytes, found.head_bytes) == (400, 8, 44)
    assert [(one.constants, one.operation, one.bytes) for one in found.expanded] == [(("table",), "wide", 800)]
    assert found.stored_twice[0].names == ("table", "w")  # alike by their hash


def test_the_work_grows_with_the_file():
    """Each value follows from one constant more than the one before, rows are chosen of all, and all are alike."""
    count = 10_000
    operations = [
        operation(f"v{i}", kinds.MOVE, [f"v{i - 1}" if i else "c0", f"c{i}"], 1 + i % 2) for i in range(count)
    ]
    operations += [operation(f"g{i}", kinds.GATHER, [f"v{i}", "x"]) for i in range(count)]
    found = divided([constant(f"c{i}", 4) for i in range(count)], operations)
    assert (found.embedding_bytes, found.body_bytes, found.head_bytes) == (4 * count, 0, 0)
    assert len(found.stored_twice) == count - 1 and len(found.expanded) == count
    assert max(len(one.constants) for one in found.expanded) == 16
