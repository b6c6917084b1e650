"""Recommender models in plain torch, their checkpoints and their training; knows nothing of the exporter."""
