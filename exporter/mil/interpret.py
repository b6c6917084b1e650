"""`cocorr-export run`: compute any Core ML program with the reference interpreter, arrays in and arrays out."""

import warnings
from pathlib import Path

import numpy as np

from exporter import mil
from exporter.core.errors import BadInputError
from safeio import files, npz, places

_MAX_INPUT_BYTES = 1 << 30
_OTHER_OUTPUT = "choose another --outputs"


def run_package(package: Path, inputs: Path, outputs: Path, intermediates: bool) -> list[str]:
    """Read `inputs`, an .npz with an array per input, run the default function and write its outputs as an .npz.

    Returns what made values infinite or not a number, and what rests on choices that only a Mac could settle. Raises
    BadInputError, ProgramError for the package or the inputs, and OutputError; the file at `outputs` is replaced whole
    or not at all.
    """
    place = places.check_file(outputs, _OTHER_OUTPUT)
    program = mil.load(package)
    arrays = _read(inputs)
    state = program.make_state() if program.function().states else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", mil.ResultWarning)
        results = program.run(arrays, intermediates, state=state)
    with files.replacing(place, _OTHER_OUTPUT) as file:
        npz.write(file, results, compress=False)
    return [str(entry.message) for entry in caught if issubclass(entry.category, mil.ResultWarning)]


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        return npz.read(files.read_file(path, _MAX_INPUT_BYTES, follow_link=True), _MAX_INPUT_BYTES)
    except files.UnreadableError as error:
        raise BadInputError(f"{path} {error}; give an .npz with an array for each input") from error
