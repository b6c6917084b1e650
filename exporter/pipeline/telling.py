"""What the person who holds a device is told of a run there, in a few words."""

from typing import TYPE_CHECKING

from exporter.report.units import microseconds

if TYPE_CHECKING:
    from exporter.core.protocols import Connection
    from exporter.core.sections import Latency, Parity


def tell_device(connection: "Connection", parity: "Parity", latency: "Latency") -> None:
    """Have the device show the verdict of its run, why, and its figures."""
    said = {"pass": "Pass: this device gives what torch gives.", "unverified": "Not verified"}.get(
        parity.verdict, "Fail"
    )
    words = said if parity.verdict == "pass" else f"{said}: {parity.reason}"
    facts = {
        "Cases": None if parity.cases is None else str(parity.cases),
        "Largest error": None if parity.max_abs_error is None else f"{parity.max_abs_error:.2e}",
        "A call, median": None if latency.p50_us is None else microseconds(latency.p50_us),
        "Loading": None if latency.load_ms is None else f"{latency.load_ms:.1f} ms",
    }
    connection.show(parity.verdict, words, {name: fact for name, fact in facts.items() if fact is not None})
