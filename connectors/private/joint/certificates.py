"""Parties know each other by pinned certificates: self-signed, exchanged by hand, TLS 1.3 only."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from connectors.private.joint.errors import TrustError
from connectors.private.owner_only import check_owner_only, write_owner_only

VALID_DAYS = 90
_PEM = serialization.Encoding.PEM


def make_certificate(folder: Path, name: str, days: int = VALID_DAYS) -> tuple[Path, Path]:
    """Write a party's certificate, to be given to the other party, and its key, to be kept.

    Args:
        folder: Where ``certificate.pem`` and ``key.pem`` are written; must not hold any yet.
        name: Of the party, for people.
        days: How long it is valid.

    Returns:
        The paths of certificate and key.

    Raises:
        FileExistsError: When there are some; delete them first if they are to be replaced.
    """
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .sign(key, None)
    )
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "certificate.pem", folder / "key.pem"
    write_owner_only(paths[1], private_pem(key))
    write_owner_only(paths[0], certificate.public_bytes(_PEM))
    return paths


def private_pem(key: Ed25519PrivateKey) -> bytes:
    """Return a private key as PEM, unencrypted: its file is for its owner alone."""
    kind, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return key.private_bytes(_PEM, kind, plain)


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Return a dealer's public key.

    Raises:
        TrustError: When the file holds none.
    """
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError as error:
        raise TrustError(f"{path} holds no public key ({error})") from error
    if not isinstance(key, Ed25519PublicKey):
        raise TrustError(f"{path} holds no Ed25519 key; it is not a dealer's")
    return key


def context(certificate: Path, key: Path, peer: Path, *, server: bool) -> ssl.SSLContext:
    """Return the TLS settings of one side: both sides show a certificate, only one is accepted.

    Raises:
        TrustError: When a file is missing or no certificate.
        ConfigurationError: When others can read the key.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    # The certificate itself is pinned; the address that it is met at proves nothing more.
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    if server:
        made.num_tickets = 0  # sessions are not resumed
    try:
        check_owner_only(key)
        made.load_cert_chain(certificate, key)
        made.load_verify_locations(peer)
    except (OSError, ssl.SSLError) as error:
        raise TrustError(f"certificates cannot be read ({error})") from error
    return made


def check_pinned(socket: ssl.SSLSocket, peer: Path) -> None:
    """Check that the other side showed the very certificate that is pinned.

    Raises:
        TrustError: When it did not.
    """
    shown = hashlib.sha256(socket.getpeercert(binary_form=True) or b"").digest()
    pinned = x509.load_pem_x509_certificate(peer.read_bytes()).public_bytes(
        serialization.Encoding.DER
    )
    if not hmac.compare_digest(shown, hashlib.sha256(pinned).digest()):
        raise TrustError(f"the other side's certificate is not that of {peer}")
