"""Training of the models: data, sampling, loop, metrics and the cocorr-train command."""
