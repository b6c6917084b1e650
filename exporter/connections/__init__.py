"""Ways to a place where an artifact runs; each starts the same agent there."""
