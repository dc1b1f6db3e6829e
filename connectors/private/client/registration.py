"""Makes a key known to a scorer: its name, its owner, how long it holds, what it signs with.

A symmetric key needs nothing public to encrypt for; what is registered is the key that signs
requests, bound to tenant and parameter set. The key's id is the digest of all that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from connectors.private.client.documents import (
    DIGEST,
    NAME,
    NONCE,
    SIGNATURE_BYTES,
    WORD,
    Document,
    DocumentError,
    sha256,
    sign,
    verify,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

REGISTRATION_TYPE = "application/vnd.penstock.key-registration"
MOST_BYTES = 2_048
_PURPOSE = b"PSKR"


@dataclass(frozen=True, slots=True)
class Registration(Document):
    """What is registered.

    Attributes:
        tenant: Whose key it is.
        parameters: Its parameter set.
        public: Ed25519 key that requests are signed with.
        created: Seconds since 1970.
        expires: Seconds since 1970; from then on requests are refused.
        replaces: Id of the key that this one follows, which ends soon after; zeros: none.
        salt: 16 random bytes.
    """

    patterns: ClassVar[Mapping[str, re.Pattern[str]]] = {
        "tenant": NAME,
        "parameters": WORD,
        "public": DIGEST,
        "replaces": DIGEST,
        "salt": NONCE,
    }
    tenant: str
    parameters: str
    public: str
    created: int
    expires: int
    replaces: str
    salt: str

    @property
    def key_id(self) -> str:
        """The key's id: SHA-256 of the document."""
        return sha256(self.encode())


NOTHING = "0" * 64
"""Id of no key."""


def write_registration(registration: Registration, key: Ed25519PrivateKey) -> bytes:
    """Return a registration with a signature that proves the key is at hand."""
    text = registration.encode()
    return sign(key, _PURPOSE, text) + text


def read_registration(content: bytes) -> Registration:
    """Read a registration and check its signature.

    Raises:
        DocumentError: When it is none, or not signed by its own key.
    """
    if not SIGNATURE_BYTES < len(content) <= MOST_BYTES:
        raise DocumentError(f"a registration has up to {MOST_BYTES} bytes, not {len(content)}")
    text = content[SIGNATURE_BYTES:]
    registration = Registration.decode(text)
    verify(registration.public, _PURPOSE, text, content[:SIGNATURE_BYTES])
    if not registration.created < registration.expires:
        raise DocumentError("the key expires before it was made")
    return registration
