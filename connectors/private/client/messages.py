"""Request and answer on the wire: a signed header, then ciphertexts of the size it says.

4 bytes    kind: PSRQ or PSAN
4 bytes    length of the header, little-endian
header     a document of `documents`
64 bytes   Ed25519 over kind, length and header
body       ciphertexts; the header holds their length and SHA-256
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

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

REQUEST_TYPE = "application/vnd.penstock.encrypted-request"
ANSWER_TYPE = "application/vnd.penstock.encrypted-answer"

MOST_HEADER = 2_048
_START = struct.Struct("<4sI")
OVERHEAD = _START.size + MOST_HEADER + SIGNATURE_BYTES
"""Most bytes around a body."""


class MessageError(DocumentError):
    """Bytes are no message of this kind."""


@dataclass(frozen=True, slots=True)
class RequestHeader(Document):
    """What is asked.

    Attributes:
        tenant: Who asks.
        key: Id of the registered key.
        parameters: Parameter set of key and model.
        model: Digest of the compiled model.
        packing: How rows lie in the ciphertexts.
        rows: How many there are.
        nonce: 16 random bytes, never twice.
        time: Milliseconds since 1970.
        body_bytes: Length of the ciphertexts.
        body: SHA-256 of the ciphertexts.
    """

    patterns: ClassVar[Mapping[str, re.Pattern[str]]] = {
        "tenant": NAME,
        "key": DIGEST,
        "parameters": WORD,
        "model": DIGEST,
        "packing": WORD,
        "nonce": NONCE,
        "body": DIGEST,
    }
    tenant: str
    key: str
    parameters: str
    model: str
    packing: str
    rows: int
    nonce: str
    time: int
    body_bytes: int
    body: str


@dataclass(frozen=True, slots=True)
class AnswerHeader(Document):
    """What is answered.

    Attributes:
        request: SHA-256 of kind, length and header of the request.
        model: Digest of the compiled model that scored.
        key: Id of the key it is for.
        rows: How many rows were scored.
        time: Milliseconds since 1970.
        audit: Digest of the entry in the scorer's log, a receipt.
        body_bytes: Length of the ciphertexts.
        body: SHA-256 of the ciphertexts.
    """

    patterns: ClassVar[Mapping[str, re.Pattern[str]]] = {
        "request": DIGEST,
        "model": DIGEST,
        "key": DIGEST,
        "audit": DIGEST,
        "body": DIGEST,
    }
    request: str
    model: str
    key: str
    rows: int
    time: int
    audit: str
    body_bytes: int
    body: str


H = TypeVar("H", RequestHeader, AnswerHeader)

_KINDS: Mapping[type[Document], bytes] = {RequestHeader: b"PSRQ", AnswerHeader: b"PSAN"}


@dataclass(frozen=True, slots=True)
class Message(Generic[H]):
    """A message that was read; nothing is checked yet but its form.

    Attributes:
        header: What it says.
        signed: Kind, length and header.
        signature: Over them.
        body: Ciphertexts.
    """

    header: H
    signed: bytes
    signature: bytes
    body: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of kind, length and header; through the header's own digest also of the body."""
        return sha256(self.signed)

    def check_signature(self, public: str) -> None:
        """Check that the key signed it.

        Raises:
            DocumentError: It did not.
        """
        verify(public, _KINDS[type(self.header)], self.signed, self.signature)

    def check_body(self) -> None:
        """Check that the body is the one that was signed.

        Raises:
            MessageError: It is not.
        """
        if sha256(self.body) != self.header.body:
            raise MessageError("the body is not the one that was signed: changed on the way")


def write_message(
    header: RequestHeader | AnswerHeader, body: bytes, key: Ed25519PrivateKey
) -> bytes:
    """Return a signed message."""
    text = header.encode()
    kind = _KINDS[type(header)]
    signed = _START.pack(kind, len(text)) + text
    return b"".join((signed, sign(key, kind, signed), body))


def read_message(kind: type[H], content: bytes) -> Message[H]:
    """Take a message apart.

    Args:
        kind: `RequestHeader` or `AnswerHeader`.
        content: All of it.

    Raises:
        MessageError: When it is cut off, too long or of another form.
    """
    if len(content) < _START.size:
        raise MessageError(f"a message has more than {len(content)} bytes")
    found, length = _START.unpack_from(content)
    if found != _KINDS[kind]:
        raise MessageError(f"this is no {kind.__name__} but begins with {found!r}")
    if not 0 < length <= MOST_HEADER:
        raise MessageError(f"a header has 1 to {MOST_HEADER} bytes, not {length}")
    end = _START.size + length
    if len(content) < end + SIGNATURE_BYTES:
        raise MessageError("the message ends before its signature")
    try:
        header = kind.decode(content[_START.size : end])
    except DocumentError as error:
        raise MessageError(f"header: {error}") from None
    body = content[end + SIGNATURE_BYTES :]
    if len(body) != header.body_bytes:
        raise MessageError(f"the body has {len(body)} bytes, its header says {header.body_bytes}")
    return Message(header, content[:end], content[end : end + SIGNATURE_BYTES], body)
