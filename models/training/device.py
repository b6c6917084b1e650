"""Where a training runs: on the CPU, or on a GPU that is there."""

import torch

from models.training.settings import SettingsError


def find_device(name: str) -> torch.device:
    """Return the device of that name, or for `auto` a GPU where there is one; raises SettingsError."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(device for device, is_there in there.items() if is_there))
    if not there[name]:
        raise SettingsError(
            f"--device {name}: torch {torch.__version__} finds no such device here; leave --device out, or install a"
            " build of torch for it"
        )
    return torch.device(name)
