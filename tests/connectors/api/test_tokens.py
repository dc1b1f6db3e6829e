"""Tokens: parsed strictly, kept hashed, compared whole."""

from __future__ import annotations

import hashlib

import pytest

from connectors.api.tokens import TokenBook, new_token, parse_token, read_tokens
from infra.errors import ConfigurationError

SECRET = "s" * 24
OTHER = "t" * 24


def test_tokens_of_setting_and_file(tmp_path):
    digest = hashlib.sha256(OTHER.encode()).hexdigest()
    file = tmp_path / "tokens"
    file.write_text(f"# who may do what\n\nbank:label:sha256={digest}\n")
    book = read_tokens(f"shop:score+read:{SECRET}", file)
    assert len(book) == 2
    shop, bank = book.find(SECRET.encode()), book.find(OTHER.encode())
    assert shop.name == "shop"
    assert shop.allows("score")
    assert shop.allows("read")
    assert not shop.allows("label")
    assert bank.allows("label")
    assert book.find(b"s" * 23) is None
    assert SECRET not in repr(book.tokens)


def test_admin_may_do_all():
    assert parse_token(f"root:admin:{SECRET}", "here").allows("score")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"Bearer {SECRET}", True),
        (f"bearer  {SECRET} ", True),
        (f"Basic {SECRET}", False),
        (SECRET, False),
        ("Bearer", False),
        ("Bearer \xff\xfe", False),
    ],
)
def test_header(header, found):
    book = TokenBook([parse_token(f"shop:score:{SECRET}", "here")])
    assert (book.of_header(header.encode("latin-1")) is not None) is found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("shop", "not of the form"),
        (f"shop::{SECRET}", "not of the form"),
        (f":score:{SECRET}", "not of the form"),
        (f"shop:fly:{SECRET}", "has scope 'fly'"),
        ("shop:score:short", "fewer than 20"),
        ("shop:score:sha256=00", "no SHA-256"),
        ("shop:score:sha256=zz", "no SHA-256"),
    ],
)
def test_malformed_tokens_are_named_but_not_shown(line, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_token(line, "PENSTOCK_API_TOKENS")
    assert SECRET not in str(caught.value)


def test_a_name_or_secret_twice_is_refused():
    with pytest.raises(ConfigurationError, match="share a secret"):
        read_tokens(f"a:score:{SECRET},b:score:{SECRET}", None)
    with pytest.raises(ConfigurationError, match="share a name"):
        read_tokens(f"a:score:{SECRET},a:score:{OTHER}", None)


def test_unreadable_file(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_tokens("", tmp_path / "absent")


def test_new_token_is_found_by_its_secret_alone():
    secret, line = new_token("shop", ["score", "read"])
    assert secret not in line
    book = TokenBook([parse_token(line, "file")])
    assert book.find(secret.encode()).scopes == {"score", "read"}
