"""What the cloud of SCN answers a device: its corrections, a safetensors file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy

from models.spec import Answer, Arrays

FORMAT = "cocorr-scn-corrections-1"


def answers(_architecture: Mapping[str, Any], _checkpoint: str | None) -> Answer:
    """Return what writes the corrections of one user."""

    def answer(_inputs: Arrays, outputs: Arrays, _stored: str | None) -> bytes:
        """Write K_A [h, b, b] and K_c [h, b, d] as the device's program has them; raises ValueError for NaN."""
        if not all(np.isfinite(array).all() for array in outputs.values()):
            raise ValueError("the corrections are no finite numbers")
        tensors = {name: np.ascontiguousarray(array)[None] for name, array in outputs.items()}
        return bytes(safetensors.numpy.save(tensors, {"format": FORMAT}))

    return answer
