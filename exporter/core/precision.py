"""How numbers are stored in an artifact; the command line imports this when it starts, and nothing else of `core`."""

from typing import Literal

Precision = Literal["fp32", "fp16"]
Fold = Literal["none", "same_size", "double", "all"]
"""How far what is computed of an item's row alone goes into tables: by how much the artifact may grow for that."""
