"""Recommender models in plain torch, their checkpoints and their training; knows nothing of the exporter."""

from safeio.invocation import require_command

require_command(__name__, __path__)
