"""How numbers are stored in an artifact; the command line imports this when it starts, and nothing else of `core`."""

from typing import Literal

Precision = Literal["fp32", "fp16"]
