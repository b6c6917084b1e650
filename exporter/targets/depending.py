"""Which values of a lowered graph depend on its inputs: all others are constants, however they are computed."""

from exporter.core.types import Lowered, Operation


def depending(lowered: Lowered) -> dict[str, Operation]:
    """Return the operation that writes each value that depends on an input, in the order of the graph."""
    known = {value for _, value in lowered.inputs}
    makers: dict[str, Operation] = {}
    for operation in lowered.operations:
        if any(name in known or name in makers for name in operation.reads):
            makers.update(dict.fromkeys(operation.writes, operation))
    return makers
