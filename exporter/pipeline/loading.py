"""A target's runtime in this process, as the agent starts it on a device."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from exporter.artifact.manifest import Manifest
    from exporter.connections.agent.contract import Runtime
    from exporter.core.protocols import Target


def started(target: "Target", manifest: "Manifest") -> "Runtime":
    """Start the runtime of a target with the threads and options of an artifact."""
    from exporter import targets
    from exporter.connections.agent.contract import Loader
    from exporter.connections.agent.running import start_runtime

    start = importlib.import_module(f"{targets.__name__}.{target.name}.loader").start
    loader = Loader(start, target.runtime.packages, target.runtime.distribution)
    return start_runtime({target.name: loader}, target.name, manifest.threads, dict(manifest.options))
