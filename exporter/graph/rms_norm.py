"""The pass `rms_norm`: RMS norms as one operation, however they are written.

x / sqrt(mean(x^2) + eps) * gain, and what equals it, such as x / sqrt(sum(x^2) + D eps) * (gain * sqrt(D)): for ONNX
Runtime, the only runtime here with a kernel for it. Found as in `recognise`, and with the same caution.
"""

from exporter.graph.recognise import recognise_rms
from exporter.graph.rewriting import Pass

PASS = Pass("rms_norm", "RMS norms as one operation", frozenset({"captured"}), recognise_rms)
