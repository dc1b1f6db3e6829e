"""Signed documents and messages: one form, one meaning, nothing else passes."""

from __future__ import annotations

import json
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.private.client.documents import DocumentError, canonical, sha256, sign, verify
from connectors.private.client.messages import (
    AnswerHeader,
    MessageError,
    RequestHeader,
    read_message,
    write_message,
)
from connectors.private.client.registration import (
    NOTHING,
    Registration,
    read_registration,
    write_registration,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
BODY = b"ciphertexts"


def header(**changes) -> RequestHeader:
    facts = {
        "version": 1,
        "tenant": "bank-a",
        "key": "a" * 64,
        "parameters": "n4096-54",
        "model": "b" * 64,
        "packing": "rows",
        "rows": 3,
        "nonce": "c" * 32,
        "time": 1_700_000_000_000,
        "body_bytes": len(BODY),
        "body": sha256(BODY),
    }
    return RequestHeader(**(facts | changes))


def message(**changes) -> bytes:
    return write_message(header(**changes), BODY, KEY)


def checked(content: bytes) -> None:
    """Check a message as its receiver does."""
    found = read_message(RequestHeader, content)
    found.check_signature(PUBLIC)
    found.check_body()


class TestDocuments:
    def test_come_back(self):
        assert RequestHeader.decode(header().encode()) == header()

    @pytest.mark.parametrize(
        "changed",
        [
            lambda text: text.replace(b":3,", b": 3,"),
            lambda text: text.replace(b":3,", b":3.0,"),
            lambda text: text.replace(b":3,", b":true,"),
            lambda text: text.replace(b":3,", b":-3,"),
            lambda text: text.replace(b":3,", b":9007199254740993,"),
            lambda text: text.replace(b":3,", b':"3",'),
            lambda text: text.replace(b'"rows":3', b'"rows":3,"rows":4'),
            lambda text: text.replace(b'"rows":3,', b""),
            lambda text: text.replace(b'"rows":3', b'"more":1,"rows":3'),
            lambda text: text.replace(b"bank-a", b"bank/a"),
            lambda text: text.replace(b"bank-a", b"bank\\u002da"),
            lambda text: text.replace(b"bank-a", b"a" * 65),
            lambda text: text.replace(b"a" * 64, b"A" * 64),
            lambda text: text.replace(b'"version":1', b'"version":2'),
            lambda text: text[:-1],
            lambda text: b"[" * 100_000,
            lambda text: b"[]",
            lambda text: b"\xff",
        ],
    )
    def test_any_other_form_is_refused(self, changed):
        text = header().encode()
        assert changed(text) != text
        with pytest.raises(DocumentError):
            RequestHeader.decode(changed(text))

    def test_a_signature_holds_for_its_purpose_alone(self):
        signature = sign(KEY, b"PSRQ", b"content")
        verify(PUBLIC, b"PSRQ", b"content", signature)
        for wrong in ((b"PSAN", b"content"), (b"PSRQ", b"other"), (b"PSRQ\0content", b"")):
            with pytest.raises(DocumentError, match="not of this key"):
                verify(PUBLIC, *wrong, signature)
        for public in ("", "00" * 31, "zz" * 32, "00" * 32):
            with pytest.raises(DocumentError):
                verify(public, b"PSRQ", b"content", signature)

    def test_numbers_that_json_has_not_are_not_written(self):
        with pytest.raises(ValueError, match="JSON"):
            canonical({"a": float("nan")})


class TestMessages:
    def test_come_back(self):
        found = read_message(RequestHeader, message())
        assert (found.header, found.body) == (header(), BODY)
        found.check_signature(PUBLIC)
        found.check_body()
        assert found.digest == sha256(found.signed)

    def test_a_request_is_no_answer(self):
        with pytest.raises(MessageError, match="no AnswerHeader"):
            read_message(AnswerHeader, message())

    @settings(max_examples=300, deadline=None)
    @given(st.data())
    def test_no_bit_can_be_changed(self, data):
        """Anyone between the two ends: every changed bit is found by form, signature or digest."""
        content = bytearray(message())
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        with pytest.raises(DocumentError):
            checked(bytes(content))

    def test_cut_off_anywhere_is_refused(self):
        for length in range(len(message())):
            with pytest.raises(MessageError):
                read_message(RequestHeader, message()[:length])

    def test_lengths_that_lie_are_refused_before_anything_is_read(self):
        content = message()
        for length in (0, 2_049, 2**32 - 1):
            with pytest.raises(MessageError, match="1 to 2048 bytes"):
                read_message(RequestHeader, content[:4] + struct.pack("<I", length) + content[8:])
        with pytest.raises(MessageError, match="its header says"):
            read_message(RequestHeader, content + b"x")


class TestRegistration:
    def registered(self, **changes) -> Registration:
        facts = {
            "version": 1,
            "tenant": "bank-a",
            "parameters": "n4096-54",
            "public": PUBLIC,
            "created": 100,
            "expires": 200,
            "replaces": NOTHING,
            "salt": "d" * 32,
        }
        return Registration(**(facts | changes))

    def test_comes_back_and_its_id_is_all_of_it(self):
        made = self.registered()
        assert read_registration(write_registration(made, KEY)) == made
        assert made.key_id != self.registered(expires=201).key_id

    def test_must_be_signed_by_its_own_key(self):
        content = write_registration(self.registered(), Ed25519PrivateKey.generate())
        with pytest.raises(DocumentError, match="not of this key"):
            read_registration(content)

    def test_must_hold_for_some_time(self):
        with pytest.raises(DocumentError, match="expires before"):
            read_registration(write_registration(self.registered(expires=100), KEY))

    def test_is_short(self):
        with pytest.raises(DocumentError, match="up to 2048 bytes"):
            read_registration(b"0" * 2_049)
        with pytest.raises(DocumentError):
            read_registration(b"0" * 64)

    def test_the_secret_is_no_part_of_it(self):
        assert set(json.loads(self.registered().encode())) == {
            *("version", "tenant", "parameters", "public"),
            *("created", "expires", "replaces", "salt"),
        }
