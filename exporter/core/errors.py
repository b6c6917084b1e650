"""The one error tree: every message says what was wrong and what to do next.

The exit code of a class is the exit code of the command that ends with it: 2 for bad input, which leaves everything on
disk as it was, and 1 for an artifact that was tried and does not work. The root of the tree is `safeio.errors`.
"""

from collections.abc import Iterable

from safeio.errors import BadInputError, CocorrError, OutputError, nearest
from safeio.packages import MissingExtraError

__all__ = [
    "ArtifactError",
    "BadInputError",
    "CheckpointError",
    "CocorrError",
    "ConfigError",
    "DeviceError",
    "LoweringError",
    "MissingExtraError",
    "OutputError",
    "ProfileError",
    "ProgramError",
    "RuntimeCrashError",
    "RuntimeFailureError",
    "RuntimeMemoryError",
    "RuntimeMissingError",
    "RuntimeTimeoutError",
    "SetupError",
    "UnknownNameError",
    "UnsupportedOperationError",
]


class UnknownNameError(BadInputError):
    """A name that nobody registered; the message lists the known ones, and says which was probably meant."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{nearest(name, names)}; known: {', '.join(names)}")


class ProfileError(BadInputError):
    """A device profile that does not fit the schema; the message names file, line and key."""


class ConfigError(BadInputError):
    """A configuration of the gate, or its lock, that cannot be used; the message names file, line and key."""


class CheckpointError(BadInputError):
    """A checkpoint folder that is missing, damaged, unsafe or of another architecture."""


class ArtifactError(BadInputError):
    """An artifact folder or file that cannot be read as what it claims to be."""


class SetupError(BadInputError):
    """Something that the project fetches or builds on this machine cannot be had; the message says what is missing."""


class DeviceError(BadInputError):
    """The device cannot be reached, or does not let itself be used; nothing is said about the artifact."""


class LoweringError(CocorrError):
    """A vendor's converter refused the program."""


class ProgramError(BadInputError):
    """A Core ML program that is malformed, unsafe to read, or called with the wrong inputs."""


class UnsupportedOperationError(ProgramError):
    """An operation that the reference interpreter does not know; the message says what to do."""


class RuntimeFailureError(CocorrError):
    """A runtime ended without giving outputs."""


class RuntimeCrashError(RuntimeFailureError):
    """The runtime's process died, or the runtime raised an error."""


class RuntimeTimeoutError(RuntimeFailureError):
    """The runtime did not finish within its time limit and was killed."""


class RuntimeMemoryError(RuntimeFailureError):
    """The runtime ran out of memory."""


class RuntimeMissingError(CocorrError):
    """No runtime for this artifact exists where it should run; what it would have proved stays unverified."""

    exit_code = 3
