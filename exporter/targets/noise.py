"""What packages say that several converters import, and that is nothing to the user."""

SHARED = (
    r"Failed to load _ML\w+: No module named 'coremltools\.libcoremlpython'",
    r"Torch version .* has not been tested with coremltools",
    r"scikit-learn version .* is not supported",
    r"Saving value type of int64 into a builtin type of int32",  # ids and shapes: they fit
    r"gather\) layer does not support any inputs besides the weights and indices",  # padding_idx is for training
    r"torchao/_C\w*\..*\.so: Could not load this library",
    r"KernelPreference.* is an Enum subclass",
)
