"""The two commands as the installed package has them; `python -m cocorr` is cocorr-export."""

from exporter.__main__ import main
from models.training.__main__ import main as train

__all__ = ["main", "train"]

if __name__ == "__main__":
    main()
