"""`cocorr-export run`: compute any Core ML program with the reference interpreter, arrays in and arrays out."""

import io
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np

from exporter import mil
from exporter.core.errors import BadInputError, OutputError

_MAX_INPUT_BYTES = 4 << 30


def run_package(package: Path, inputs: Path, outputs: Path, intermediates: bool) -> list[str]:
    """Read `inputs`, an .npz with an array per input, run the default function and write its outputs as an .npz.

    Returns what made values infinite or not a number. Raises BadInputError, ProgramError for the package or the inputs,
    and OutputError; the file at `outputs` is replaced whole or not at all.
    """
    program = mil.load(package)
    arrays = _read(inputs)
    state = program.make_state() if program.function().states else None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", mil.NonFiniteWarning)
        results = program.run(arrays, intermediates, state=state)
    temporary = outputs.with_name(f".{outputs.name}.{os.getpid()}")
    try:
        with zipfile.ZipFile(temporary, "w") as archive:  # not numpy.savez: a value may be called like its arguments
            for name, array in results.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
        temporary.replace(outputs)
    except OSError as error:
        raise OutputError(f"cannot write {outputs}: {error.strerror}; choose another --outputs") from error
    finally:
        temporary.unlink(missing_ok=True)
    return [str(entry.message) for entry in caught if issubclass(entry.category, mil.NonFiniteWarning)]


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        data = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _MAX_INPUT_BYTES:
                raise BadInputError(f"{path} unpacks to more than {_MAX_INPUT_BYTES} bytes; give smaller inputs")
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except OSError as error:
        raise BadInputError(f"cannot read {path}: {error.strerror}; give an .npz with an array per input") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise BadInputError(f"{path} is no .npz of plain arrays; write it with numpy.savez") from error
