"""The API with a certificate, made by the test."""

from __future__ import annotations

import datetime as dt
import http.client
import ipaddress
import json
import ssl
import time
import urllib.error
import urllib.request

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.connectors.api.conftest import SECRETS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Files of a self-signed certificate for loopback and of its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return folder / "cert.pem", folder / "key.pem"


def test_everything_over_tls(start, bundle, events, certificate):
    cert, key = certificate
    api = start(
        {"model": bundle.folder, "tls_certificate": cert, "tls_key": key, "ui": "true"}, ready=False
    )
    trust = ssl.create_default_context(cafile=cert)

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trust), Stay)

    def call(path, data=None, content="application/json"):
        headers = {"Authorization": f"Bearer {SECRETS['scorer']}", "Content-Type": content}
        request = urllib.request.Request(f"https://127.0.0.1:{api.port}{path}", data, headers)
        try:
            return opener.open(request, timeout=10)
        except urllib.error.HTTPError as error:
            return error

    deadline = time.monotonic() + 60
    while True:
        try:
            with call("/health/ready") as answer:
                assert answer.status == 200
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline, api.tail()
            time.sleep(0.1)
    for padding in (b"", b" " * 10_000):
        with call("/v1/score", json.dumps(events()).encode() + padding) as answer:
            assert answer.status == 200
            assert answer.headers["strict-transport-security"]
    form = f"token={SECRETS['reader']}".encode()
    with call("/ui/login", form, "application/x-www-form-urlencoded") as answer:
        assert "Secure" in answer.headers["set-cookie"]
    with pytest.raises((ConnectionError, http.client.HTTPException)):  # nothing plain here
        api.call("GET", "/health/live", timeout=5)
    assert api.stop() == 0
