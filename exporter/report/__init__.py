"""Renderings of documents: they compute nothing, and show what could not be measured as such."""
