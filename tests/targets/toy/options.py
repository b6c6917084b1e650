"""What a device profile may say of toy files."""

from typing import Literal

from exporter.core.strict import Strict


class ToyOptions(Strict):
    """The mood of the runtime, which it tells in its name."""

    mood: Literal["merry", "sad"] = "merry"
