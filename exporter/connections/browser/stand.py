"""Where phones come to: one URL for all runs of a command, however many connections they are made over."""

import sys
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from exporter.connections.browser.addresses import canonical, listen, network_address
from exporter.connections.browser.certificate import Certificate, fingerprint, self_signed, server_context
from exporter.connections.browser.qr import qr_code
from exporter.connections.browser.server import Server
from exporter.connections.browser.session import Session
from safeio.progress import tell
from safeio.staging import scratch

LOOPBACK = "127.0.0.1"
Https = bool | Mapping[str, str]

_stands: dict[tuple[str, str], "Stand"] = {}


def address_of(bind: str) -> str:
    """Return the address that `loopback`, `network` or an address of this machine's stands for; raises DeviceError."""
    if bind == "loopback":
        return LOOPBACK
    return network_address() if bind == "network" else bind


def check_stand(bind: str, https: Https) -> None:
    """Raise DeviceError for an address at which nothing can be served, BadInputError for files of no certificate."""
    listen(canonical(address_of(bind))).close()
    if isinstance(https, Mapping):
        server_context(_named(https))


def _named(https: Mapping[str, str]) -> Certificate:
    return Certificate(Path(https["certificate"]), Path(https["key"]))


def stand_at(bind: str, https: Https) -> "Stand":
    """Return the command's stand at that address, which opens with the first call."""
    stand = opened_stand(bind, https)
    if stand is None:
        stand = _stands[bind, repr(https)] = Stand(bind, https)
    return stand


def opened_stand(bind: str, https: Https) -> "Stand | None":
    """Return the command's stand at that address, None where it is not open yet."""
    return _stands.get((bind, repr(https)))


class Stand:
    """A server that stays until the command ends, and the session of whoever comes to it."""

    def __init__(self, bind: str, https: Https) -> None:
        address = address_of(bind)
        self.jobs = 0
        self.has_invited = False
        self.session = Session()
        with ExitStack() as stack:
            certificate = None
            if isinstance(https, Mapping):
                certificate = _named(https)
            elif https:
                certificate = self_signed(stack.enter_context(scratch("certificate")), address)
            self._print = None if certificate is None else fingerprint(certificate)
            self.url = stack.enter_context(Server(self.session, address, certificate)).url
            weakref.finalize(self, _close, self.session, stack.pop_all())

    def invite(self) -> None:
        """Tell the person at the terminal what to open, unless the device of the run before is to go on."""
        if self.has_invited:
            return
        self.has_invited = True
        tell(
            f"open this page with {'the next' if self.jobs > 1 else 'the'} device's browser, and press Run: {self.url}"
        )
        code = qr_code(self.url)
        if code is not None:
            sys.stderr.write(code)
            sys.stderr.flush()
        if self._print is not None:
            tell(f"its browser will warn of a certificate that nobody signed; its SHA-256 is {self._print}")


def _close(session: Session, stack: ExitStack) -> None:
    """Say goodbye to a device that is still there, and take the server down."""
    session.dismiss()
    session.close()
    stack.close()
