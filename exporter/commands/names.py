"""The names that a shell offers while a command is typed; none of them needs torch."""

from typing import Any

from exporter import pipeline
from exporter.targets import TARGETS


def targets() -> list[str]:
    """Return the targets, and all of them."""
    return [*TARGETS, "all"]


def one_target() -> list[str]:
    """Return the targets, for a command that takes one."""
    return list(TARGETS)


def connections() -> list[str]:
    """Return the connections that need no profile, and the profiles, each of which names one."""
    return list(dict.fromkeys((*pipeline.NAMED_CONNECTIONS, *pipeline.profile_names())))


def programs(ctx: Any) -> list[str]:
    """Return the programs of the model whose command is typed."""
    return pipeline.program_names(ctx.info_name)
