"""The certificate of the page where it is served by https: one that the user has, or one made for a run."""

import os
import re
import ssl
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from exporter.connections.browser import addresses
from exporter.connections.bundle import tool
from exporter.connections.response import printable
from exporter.core.errors import BadInputError
from safeio import files, locks

_DAYS = 3
_MAX_PEM_BYTES = 1 << 20
_BLOCK = re.compile("-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
# All that is asked for stands here, so that it does not depend on what the machine's own configuration says.
_CONFIGURATION = """\
[req]
prompt = no
distinguished_name = name
x509_extensions = page
[name]
CN = cocorr-export
[page]
subjectAltName = IP:{address}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True)
class Certificate:
    """The PEM files of a certificate, with those that it rests on after it, and of its key."""

    certificate: Path
    key: Path


def self_signed(folder: Path, address: str) -> Certificate:
    """Make a key and a certificate for an address, good for three days, in a folder of the caller's.

    Raises SetupError where openssl is missing or fails, DeviceError for an address that no page can be opened at.
    """
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    configuration = folder / "openssl.cnf"
    files.write_new(configuration, _CONFIGURATION.format(address=addresses.canonical(address)).encode())
    os.close(os.open(made.key, locks.NEW, 0o600))  # openssl writes into it and leaves its mode
    failure = "https needs a certificate, and openssl made none; install openssl, or name a certificate of your own"
    tool.call(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(made.key)], failure)
    request = ["openssl", "req", "-new", "-x509", "-sha256", "-days", str(_DAYS), "-config", str(configuration)]
    tool.call([*request, "-key", str(made.key), "-out", str(made.certificate)], failure)
    return made


def fingerprint(certificate: Certificate) -> str:
    """Return the SHA-256 of the certificate as browsers show it, AB:CD:...; raises BadInputError."""
    block = _BLOCK.search(_read(certificate.certificate).decode("latin-1"))
    try:
        content = ssl.PEM_cert_to_DER_cert(block[0] if block else "")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=content)  # is it one?
    except (OSError, ValueError) as error:
        raise BadInputError(
            f"https: {certificate.certificate} holds no certificate in PEM; name one that does"
        ) from error
    return sha256(content).digest().hex(":").upper()


def server_context(certificate: Certificate) -> ssl.SSLContext:
    """Return what a server needs to speak TLS 1.2 or newer; raises BadInputError for files that cannot be used."""
    for path in (certificate.certificate, certificate.key):
        _read(path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        context.load_cert_chain(certificate.certificate, certificate.key, _no_password)
    except (OSError, ValueError) as error:
        what = f"{certificate.certificate} and {certificate.key}"
        reason = printable(str(error))
        raise BadInputError(f"https: {what} are no certificate and its key in PEM: {reason}") from error
    return context


def _no_password() -> str:
    # Without this function, OpenSSL would ask the terminal.
    raise ValueError("the key is encrypted; name one that needs no password")


def _read(path: Path) -> bytes:
    try:
        return files.read_file(path, _MAX_PEM_BYTES, follow_link=True)
    except files.UnreadableError as error:
        raise BadInputError(f"https: {path} {error}") from error
