"""The two commands as the installed package has them; `python -m cocorr` is cocorr-export."""

from typing import NoReturn

from exporter.__main__ import main as export
from models.training.__main__ import main as training
from safeio.process import alone


def main() -> NoReturn:
    """Run cocorr-export and end the process."""
    alone(export)


def train() -> NoReturn:
    """Run cocorr-train and end the process."""
    alone(training)


if __name__ == "__main__":
    main()
