"""`cocorr-export run`: any Core ML program, computed by the reference interpreter."""

from pathlib import Path


def run_package(package: Path, inputs: Path, outputs: Path, intermediates: bool) -> list[str]:
    """Compute a Core ML program with the reference interpreter; return warnings. See `interpret.run_package`."""
    from exporter.mil import interpret

    return interpret.run_package(package, inputs, outputs, intermediates)
