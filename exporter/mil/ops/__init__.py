"""Implementations of the MIL operations, one file per family; `exporter.mil.registry` joins their tables."""
