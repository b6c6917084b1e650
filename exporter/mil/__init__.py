"""A reference interpreter for Core ML programs: reads a saved .mlpackage and computes it in numpy, on any machine."""

from exporter.mil.describe import ConstantInfo, OperationInfo, ValueInfo
from exporter.mil.executor import NonFinite
from exporter.mil.features import Flexibility
from exporter.mil.function import Classifier, Execution, Function, State
from exporter.mil.kernel import HalfPolicy, Limits
from exporter.mil.program import NonFiniteWarning, Program, ResultWarning, UnsettledWarning, load

__all__ = [
    "Classifier",
    "ConstantInfo",
    "Execution",
    "Flexibility",
    "Function",
    "HalfPolicy",
    "Limits",
    "NonFinite",
    "NonFiniteWarning",
    "OperationInfo",
    "Program",
    "ResultWarning",
    "State",
    "UnsettledWarning",
    "ValueInfo",
    "load",
]
