"""The one way to read a model file: with the vendor's reader, in a process of its own that has limits.

Model files come from strangers, and vendors' readers do what a file says: they fill the memory, never end, crash, or
raise what they like. All of that ends here as one line that names the file.
"""

import signal
from pathlib import Path

from exporter.core.errors import ArtifactError, BadInputError, MissingExtraError, OutputError, RuntimeFailureError
from exporter.core.protocols import Target
from exporter.core.types import Lowered
from exporter.targets import apart
from exporter.targets.answer import MOST_ANSWER_BYTES, Answer, from_json, to_json
from safeio.staging import scratch

# What the reader's process may have, and what it may have more for each byte of the file.
_MEMORY_BYTES, _MEMORY_PER_BYTE = 1 << 30, 6
_WRITTEN_BYTES, _WRITTEN_PER_BYTE = 64 << 20, 16  # any one temporary file
_CPU_S, _CPU_S_PER_BYTE = 10, 1 / (16 << 20)
_WALL_S = 120.0

_START = apart.start(__name__)


def read(target: Target, model_file: Path) -> Lowered:
    """Return what a model file says of itself: operations, constants, inputs, memory plan.

    Raises ArtifactError, whatever is wrong with the file, and BadInputError where this machine lacks what reading
    takes: a package, room for temporary files.
    """
    with scratch("read") as folder:
        arguments = [target.name, str(model_file.resolve())]
        data, status = apart.ask(_START, arguments, folder, _WALL_S, MOST_ANSWER_BYTES)
    if -status in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        ended = signal.Signals(-status).name
        raise RuntimeFailureError(f"what reads {model_file} was ended from outside ({ended}); start this again")
    refused = f"{model_file}: cannot be read as a model for {target.name}"
    if status or not data:
        raise ArtifactError(f"{refused}: {_end(status)}; export the artifact again")
    try:
        answer = from_json(data)
    except ValueError as error:
        raise ArtifactError(f"{refused}: {error}; export the artifact again") from error
    if answer.refusal is not None:
        raise BadInputError(answer.refusal)
    if answer.lowered is None:
        raise ArtifactError(f"{refused}: {answer.damage}; export the artifact again")
    return answer.lowered


def _end(status: int) -> str:
    """Say how a reader ended that gave no answer."""
    match -status:
        case signal.SIGXCPU:
            return f"reading it takes more than {_CPU_S} s of processor time, too long for a file of its size"
        case signal.SIGALRM:
            return f"reading it takes more than {_WALL_S:g} s"
        case signal.SIGXFSZ:
            return "it has more parts than a program for a device"
        case signal.SIGKILL:
            return "its reader was killed, most likely for want of memory"
        case number if number > 0:
            return f"its reader crashed with {signal.Signals(number).name}"
    return f"its reader ended with status {status} and without an answer"


def main(target: str, model_file: str) -> None:
    """Read a model file in this process, which has no other task, and write the answer to standard output."""
    size = apart.size_of(Path(model_file))
    apart.answer(
        lambda: answer_to(target, Path(model_file)),
        _MEMORY_BYTES + _MEMORY_PER_BYTE * size,
        _WRITTEN_BYTES + _WRITTEN_PER_BYTE * size,
        int(_CPU_S + _CPU_S_PER_BYTE * size),
    )


def answer_to(target: str, model_file: Path) -> bytes:
    """Read a model file here and now; return the answer, which says what went wrong, whatever it was."""
    from exporter.targets import TARGETS

    try:
        return to_json(Answer(lowered=TARGETS[target].read(model_file)))
    except (MissingExtraError, OutputError) as error:
        return to_json(Answer(refusal=str(error)))
    except MemoryError:
        return to_json(Answer(damage="reading it takes more memory than a file of its size is given"))
    except Exception as error:  # whatever a vendor's reader raises for what it cannot make sense of
        return to_json(Answer(damage=_words(error)))


def _words(error: Exception) -> str:
    text = " ".join(str(error)[:300].split())
    if isinstance(error, BadInputError):  # ours
        return text.rstrip(".")
    return f"its parts do not fit ({type(error).__name__}{': ' if text else ''}{text})"
