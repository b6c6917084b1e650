"""The verdict on a comparison: every tolerance of the project stands in this file."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.core.types import Precision, Verdict
from exporter.parity.compare import OutputError, ParityReport

FP32_MAX_ABS_ERROR = 1e-4
TOP10_OVERLAP: Mapping[Precision, float] = {"fp32": 1.0, "fp16": 0.98}

# fp16 rounds every result by at most u = 2^-11 of its size. If the roundings that meet in one score are independent and
# centred, n of them leave an error of about sqrt(n) * u of the values' size (Higham and Mary 2019, SIAM J. Sci. Comput.
# 41:A2815), while the certain bound n * u would pass almost anything. Along the longest path of SCN stand eight matrix
# products, over 64 values (Q/K/V, W_o, W_1, W_2 and the score itself: five), 16 (K W0 and Q K^T) and 10 (the step over
# the mini-batch), 362 terms, and some 20 elementwise stages and normalisations: n = 384 counts each term's rounding, as
# if products were summed in fp16. So a score may be off by sqrt(384) * 2^-11 = 0.96 % of the largest score.
# The shipped SCN in torch's fp16 is off by 2.3 u, 0.11 % of the largest score, on its 256 golden cases.
FP16_UNIT_ROUNDOFF = 2.0**-11
FP16_ROUNDINGS = 384


@dataclass(frozen=True)
class Tolerance:
    """What was asked for: the largest absolute error of each output, by name, and the mean top-10 overlap."""

    max_abs_error: Mapping[str, float]
    top10_overlap: float | None


@dataclass(frozen=True)
class Judgement:
    """The verdict, why, and the tolerance it was measured by (None where nothing was measured)."""

    verdict: Verdict
    reason: str
    tolerance: Tolerance | None


def error_limit(precision: Precision, output: OutputError) -> float:
    """The largest absolute error that passes for an output; whole numbers must be exact at every precision."""
    if not output.dtype.startswith("float"):
        return 0.0
    if precision == "fp32":
        return FP32_MAX_ABS_ERROR
    return math.sqrt(FP16_ROUNDINGS) * FP16_UNIT_ROUNDOFF * output.scale


def judge(report: ParityReport, precision: Precision) -> Judgement:
    """Judge a comparison by the tolerance of its precision: `pass`, or `fail` with every bound that was broken."""
    if report.mismatch is not None:
        return Judgement("fail", report.mismatch, None)
    overlap = report.ranking.top10_overlap if report.ranking is not None else None
    tolerance = Tolerance(
        {output.name: error_limit(precision, output) for output in report.outputs},
        None if overlap is None else TOP10_OVERLAP[precision],
    )
    broken = []
    for output in report.outputs:
        limit = tolerance.max_abs_error[output.name]
        if output.max_abs_error > limit:
            broken.append(f"output {output.name!r} is off by {output.max_abs_error:.3g}, allowed is {limit:.3g}")
    if overlap is not None and tolerance.top10_overlap is not None and overlap < tolerance.top10_overlap:
        broken.append(f"the top 10 agree to {overlap:.4f}, at least {tolerance.top10_overlap} is asked for")
    if broken:
        return Judgement("fail", "; ".join(broken), tolerance)
    return Judgement("pass", f"within the {precision} tolerance on all {report.cases} cases", tolerance)


def unverified(reason: str) -> Judgement:
    """The verdict on an artifact that could not be run, with the reason."""
    return Judgement("unverified", reason, None)
