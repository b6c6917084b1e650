"""What times and memory are measured under: cores and their governor, temperatures, the resident set."""

from __future__ import annotations

import contextlib
import os
import platform
import re
from pathlib import Path


def pin(threads: int) -> list[int] | None:
    """Keep this process on as many cores as it has threads, the fastest there are; the cores it has then, if known.

    Phones have fast and slow cores, and where a thread lands would decide its time. Linux says how fast a core is, in
    cpu_capacity or as its highest frequency.
    """
    if not hasattr(os, "sched_getaffinity"):
        return None
    allowed = sorted(os.sched_getaffinity(0))

    def speed(core: int) -> int:
        folder = Path(f"/sys/devices/system/cpu/cpu{core}")
        lines = (read_line(folder / name) for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"))
        return next((int(line) for line in lines if line is not None and line.isdigit()), 0)

    fastest = sorted(allowed, key=speed, reverse=True)[:threads]
    with contextlib.suppress(OSError):  # some devices keep that to themselves
        os.sched_setaffinity(0, fastest)
    return sorted(os.sched_getaffinity(0))


def read_line(path: Path) -> str | None:
    """Return the first line of a file of the system's, or None where it does not let itself be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()[:80]
    except (OSError, IndexError):
        return None


def governors(cores: list[int]) -> str | None:
    """Return the names of the governors that set the frequencies of these cores."""
    paths = [Path(f"/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor") for core in cores]
    return ", ".join(sorted({name for name in map(read_line, paths) if name})) or None


def hottest() -> float | None:
    """Return the highest temperature of the thermal zones that can be read, in degrees Celsius."""
    lines = [read_line(zone / "temp") for zone in Path("/sys/class/thermal").glob("thermal_zone*")]
    # Zones that are switched off tell nonsense.
    degrees = [int(line) / 1000 for line in lines if line is not None and re.fullmatch(r"-?\d{1,9}", line)]
    return max((value for value in degrees if 0 < value < 150), default=None)


def conditions(cores: list[int] | None, hottest_before: float | None) -> dict[str, str]:
    """Return what the times were taken under, as far as it is known, in words by name."""
    words: dict[str, str] = {}
    if cores is not None:
        words["cores"] = f"{', '.join(map(str, cores))} of {os.cpu_count()}"
        governor = governors(cores)
        if governor is not None:
            words["governor"] = governor
    hottest_after = hottest()
    if hottest_before is not None and hottest_after is not None:
        words["hottest_c"] = f"{hottest_before:.1f} before, {hottest_after:.1f} after"
    return words


def resident_bytes(field: str) -> int | None:
    """Return VmRSS (now) or VmHWM (peak) of this process in bytes; without /proc the peak by getrusage for both.

    getrusage is second choice because Linux carries the peak of the process that started this one across exec.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.M)
        return int(line.group(1)) * 1024 if line else None
    if platform.system() != "Darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Start the peak of the resident set anew, so that what importing the runtime took for a moment is not in it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
