"""What a device is called, by what its browser tells of itself; everything in it is a stranger's word."""

import re
from collections.abc import Mapping
from typing import Any

from exporter.connections.response import printable

_LONGEST = 120
# In this order: those that come first also name those that come later.
_BROWSERS = (
    ("Edge", r"Edg(?:A|iOS)?/([\d.]+)"),
    ("Opera", r"(?:OPR|OPT)/([\d.]+)"),
    ("Samsung Internet", r"SamsungBrowser/([\d.]+)"),
    ("Firefox", r"(?:Firefox|FxiOS)/([\d.]+)"),
    ("Chrome", r"CriOS/([\d.]+)"),
    ("headless Chrome", r"HeadlessChrome/([\d.]+)"),
    ("Chrome", r"Chrome/([\d.]+)"),
    ("Safari", r"Mac OS X.*Version/([\d.]+).*Safari/"),  # elsewhere that is what others with WebKit say
    ("WebKit", r"AppleWebKit/([\d.]+)"),
)
_SYSTEMS = (
    ("iOS", r"(?:iPhone|iPod).* OS ([\d_]+)"),
    ("iPadOS", r"iPad.* OS ([\d_]+)"),
    ("Android", r"Android ([\d.]+)"),
    ("Windows", r"Windows NT ([\d.]+)"),
    ("ChromeOS", r"CrOS \S+ ([\d.]+)"),
    ("macOS", r"Mac OS X ([\d_.]+)"),
    ("Linux", r"Linux ()"),
)


def device_name(told: Mapping[str, Any]) -> str:
    """Return browser, system and model: `Chrome 156.0 on Android 16, Pixel 8 Pro`.

    The user agent's own string says little of newer Android phones, whose browsers tell model and version apart.
    """
    agent = _text(told, "agent")
    browser, version = _first(_BROWSERS, agent, ("a browser", ""))
    system, release = _first(_SYSTEMS, agent, (_text(told, "platform") or "an unknown system", ""))
    if _text(told, "platform") == system and _text(told, "platform_version"):
        release = _text(told, "platform_version")
    words = f"{browser} {_short(version)}".strip() + f" on {system} {_short(release)}".rstrip()
    model = _text(told, "model") or ("iPhone" if "iPhone" in agent else "")
    return printable(f"{words}, {model}" if model else words)[:_LONGEST]


def _text(told: Mapping[str, Any], name: str) -> str:
    value = told.get(name)
    return printable(value).strip() if isinstance(value, str) else ""


def _first(patterns: tuple[tuple[str, str], ...], agent: str, otherwise: tuple[str, str]) -> tuple[str, str]:
    for name, pattern in patterns:
        found = re.search(pattern, agent)
        if found:
            return name, found.group(1)
    return otherwise


def _short(version: str) -> str:
    """Return the first two parts of a version, one where the second is 0: what follows says nothing of speed."""
    parts = version.replace("_", ".").split(".")[:2]
    return parts[0] if parts[1:] == ["0"] else ".".join(parts)
