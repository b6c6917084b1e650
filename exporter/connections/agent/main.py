"""Serve the request in a folder: what the zip file's `__main__.py` calls."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from exporter.connections.agent.contract import Loader, RefusalError
from exporter.connections.agent.folder import PROTOCOL, discard_spent, refusal_of, respond, write_outputs
from exporter.connections.agent.guards import guard, hold
from exporter.connections.agent.running import compare, execute


def main(folder: Path, loaders: Mapping[str, Loader]) -> int:
    """Serve the request in `folder`; the exit status is 0 with outputs and 1 with an error in response.json.

    `loaders` are those of the targets that this agent knows, by name.
    """
    request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
    try:
        if request.get("protocol") != PROTOCOL:
            spoken = request.get("protocol")
            raise RefusalError("protocol", f"the agent speaks protocol {PROTOCOL}, the request {spoken!r}")
        guard(folder, request)
        held = None if request["lock"] is None else hold(folder / request["lock"])  # noqa: F841 - until the end
        if request["rival"] is not None:
            answer = compare(folder, request, loaders)
        else:
            answer, outputs = execute(folder, request, loaders)
            write_outputs(folder, outputs)
        respond(folder, {"status": "ok", **answer})
    except Exception as error:
        discard_spent(folder)
        respond(folder, refusal_of(error))
        return 1
    return 0
