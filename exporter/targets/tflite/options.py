"""What a device profile may say of TFLite."""

from exporter.core.strict import Strict


class TFLiteOptions(Strict):
    """TFLite has no options yet."""
