"""Weights that other code trained: names and shapes of each origin as data, and what makes a checkpoint of them.

This module imports no torch, so that names can be listed before there is anything to do.
"""

from models.importing import cocorrrec, recbole
from models.importing.origin import Origin

ORIGINS: dict[str, Origin] = {origin.name: origin for origin in (*cocorrrec.ORIGINS, *recbole.ORIGINS)}
