"""The addresses of this machine at which the page can be had."""

import contextlib
import errno
import ipaddress
import socket

from exporter.connections.response import printable
from exporter.core.errors import DeviceError

_BACKLOG = 128
# Addresses that documentation uses: nothing is there, and a datagram socket that is connected to one sends nothing.
_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))


def network_address() -> str:
    """Return the address by which this machine reaches its network; raises DeviceError where it has none.

    No packet is sent: the system is asked which of its addresses it would send from.
    """
    for family, elsewhere in _ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as asking:
            asking.connect((elsewhere, 9))
            found = ipaddress.ip_address(asking.getsockname()[0].partition("%")[0])
            if not (found.is_loopback or found.is_unspecified or found.is_link_local):
                return str(found)
    raise DeviceError("this machine has no address in a network; connect it to the phone's, or give `bind: ADDRESS`")


def canonical(address: str) -> str:
    """Return an address as a browser writes it in Host; raises DeviceError for what no page can be opened at."""
    given = printable(repr(address))
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        raise DeviceError(f"`bind: ADDRESS`: {given} is no IP address; give one of this machine's") from None
    if found.is_unspecified or found.is_multicast or "%" in address:
        raise DeviceError(f"`bind: ADDRESS`: no browser can open {given}; give an address that reaches this machine")
    return found.compressed


def listen(address: str) -> socket.socket:
    """Return a socket that listens at a canonical address, on a port that the system chooses; raises DeviceError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        listener = socket.socket(family, socket.SOCK_STREAM)
        try:
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((address, 0))
            listener.listen(_BACKLOG)
            listener.setblocking(False)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise DeviceError(f"{address} is not an address of this machine; give `bind: ADDRESS` with one") from error
        reason = error.strerror or "the system gave no reason"
        raise DeviceError(f"cannot listen at {address}: {reason}; give `bind: ADDRESS` with another one") from error
    return listener
