"""Whether an artifact says the same as the model: figures, and a verdict on them. Imports core and numpy only."""
