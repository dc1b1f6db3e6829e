"""A one-certificate bundle for the loopback Prefect API.

Prefect opens a new HTTP client for every task run, and each client parses the whole CA bundle
(about 140 certificates, 36 ms) although the loopback API is plain HTTP. Pointing
``PREFECT_API_SSL_CERT_FILE`` at a bundle with a single self-signed certificate makes a task
several times cheaper. Nothing is ever verified with it, and its private key is not kept.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from infra.files import write_atomically

YEARS = 20


def loopback_certificate(folder: Path) -> Path:
    """Path of the bundle in ``folder``, made on first use."""
    path = folder / "loopback.pem"
    if not path.is_file():
        write_atomically(path, _self_signed(), mode=0o644)
    return path


def _self_signed() -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "penstock loopback")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=365 * YEARS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
