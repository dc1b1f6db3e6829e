"""Signed documents between owner and scorer: strict JSON, Ed25519.

A document has one form only: keys sorted, no spaces, ASCII. What is read must be byte for byte what
writing it again gives, so two programs cannot read two things out of one signed text (double keys,
numbers with an exponent, escapes).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Self

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VERSION = 1
SIGNATURE_BYTES = 64
MOST_NUMBER = 2**53
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Of tenants and models."""
DIGEST = re.compile(r"[0-9a-f]{64}")
NONCE = re.compile(r"[0-9a-f]{32}")
WORD = re.compile(r"[a-z0-9-]{1,32}")


class DocumentError(ValueError):
    """A document is not of its form, or its signature is not of its key."""


@dataclass(frozen=True, slots=True)
class Document:
    """Base of the documents: text and whole-number fields, each with a pattern or range."""

    patterns: ClassVar[Mapping[str, re.Pattern[str]]] = {}
    version: int

    def encode(self) -> bytes:
        """Return the one form of the document."""
        return canonical(asdict(self))

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Read a document.

        Raises:
            DocumentError: When it is not of this kind, or not in its one form.
        """
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DocumentError(f"this is no JSON ({error})"[:200]) from None
        expected = {one.name for one in fields(cls)}
        if not isinstance(data, dict) or set(data) != expected:
            raise DocumentError(f"a {cls.__name__} has exactly the members {sorted(expected)}")
        for name, value in data.items():
            cls._check(name, value)
        made = cls(**data)
        if made.version != VERSION:
            raise DocumentError(f"version {made.version} is not known here; this is {VERSION}")
        if made.encode() != text:
            raise DocumentError("the text is not in its one form: sorted members, no spaces")
        return made

    @classmethod
    def _check(cls, name: str, value: Any) -> None:
        pattern = cls.patterns.get(name)
        if pattern is None:
            right = isinstance(value, int) and not isinstance(value, bool)
            if not right or not 0 <= value <= MOST_NUMBER:
                raise DocumentError(f"{name} is no whole number from 0 to 2**53")
        elif not isinstance(value, str) or not pattern.fullmatch(value):
            raise DocumentError(f"{name} is not of the form {pattern.pattern}")


def canonical(data: Mapping[str, Any]) -> bytes:
    """Return JSON data in its one form."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return text.encode("ascii")


def sha256(*parts: bytes) -> str:
    """Return the digest of parts one after the other, hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def sign(key: Ed25519PrivateKey, purpose: bytes, content: bytes) -> bytes:
    """Return the signature over a purpose and a content: none is taken for another kind."""
    return key.sign(purpose + b"\0" + content)


def verify(public: str, purpose: bytes, content: bytes, signature: bytes) -> None:
    """Check a signature.

    Args:
        public: Ed25519 key, 64 hexadecimal digits.
        purpose: What it was signed for.
        content: What was signed.
        signature: 64 bytes.

    Raises:
        DocumentError: When it is not of this key, purpose and content.
    """
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(signature, purpose + b"\0" + content)
    except (InvalidSignature, ValueError):
        raise DocumentError(
            "the signature is not of this key, or the content was changed"
        ) from None
