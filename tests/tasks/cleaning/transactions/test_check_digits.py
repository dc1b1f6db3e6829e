"""Check digits: known good ones hold, any single wrong digit is noticed."""

from __future__ import annotations

import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cleaning.transactions.check_digits import KINDS, holds, likely_kind

# Published examples of the standards, banks and exchanges.
GOOD = {
    "luhn": ("4111111111111111", "5500 0000 0000 0004", "378282246310005", "490154203237518"),
    "iban": (
        "GB82 WEST 1234 5698 7654 32",
        "DE89370400440532013000",
        "FR1420041010050500013M02606",
        "NO9386011117947",
        "MT84MALT011000012345MTLCAST001S",
    ),
    "ean": ("4006381333931", "96385074", "036000291452", "10614141000415", "978-3-16-148410-0"),
    "isin": ("US0378331005", "GB0002634946", "AU0000XVGZA3", "DE000BAY0017"),
    "lei": ("5493006MHB84DD0ZWV18", "213800WSGIIZCXF1P572"),
    "aba": ("021000021", "011401533", "121000248"),
}
CASES = [(kind, text) for kind, texts in GOOD.items() for text in texts]


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_known_good_ones_hold_in_either_case(kind, text):
    assert holds(pl.Series([text, text.lower()]), kind).to_list() == [True, True]


@pytest.mark.parametrize(("kind", "text"), CASES)
def test_any_single_wrong_digit_is_noticed(kind, text):
    wrong = [
        text[:i] + digit + text[i + 1 :]
        for i, old in enumerate(text)
        if old.isdigit()
        for digit in "0123456789"
        if digit != old
    ]
    assert not holds(pl.Series(wrong), kind).any()


@pytest.mark.parametrize(("kind", "text"), [c for c in CASES if c[0] in {"iban", "lei"}])
def test_mod_97_notices_places_that_changed_places(kind, text):
    text = text.replace(" ", "")
    swapped = [
        text[:i] + text[i + 1] + text[i] + text[i + 2 :]
        for i in range(4, len(text) - 1)
        if text[i] != text[i + 1]
    ]
    assert not holds(pl.Series(swapped), kind).any()


def test_what_is_no_number_of_the_kind_is_wrong_and_what_is_missing_is_not():
    odd = [
        "",
        "0",
        "x",
        "é" * 16,
        "4111-1111-1111-111x",
        "DE89",
        "9" * 60,
        "DE8937040044053201300",
        None,
    ]
    for kind in KINDS:
        assert holds(pl.Series(odd, dtype=pl.String), kind).to_list() == [*[False] * 8, None]
    assert holds(pl.Series([], dtype=pl.String), "luhn").len() == 0
    with pytest.raises(ValueError, match="check_digit is 'vat'; give one of luhn, iban"):
        holds(pl.Series(["1"]), "vat")


@settings(deadline=None, max_examples=60)
@given(st.lists(st.text(max_size=40), max_size=8), st.sampled_from(sorted(KINDS)))
def test_no_text_is_too_strange(texts, kind):
    assert holds(pl.Series(texts, dtype=pl.String), kind).dtype == pl.Boolean


@settings(deadline=None, max_examples=60)
@given(st.text("0123456789", min_size=7, max_size=18))
def test_exactly_one_last_digit_bears_out_luhn(start):
    assert holds(pl.Series([f"{start}{last}" for last in range(10)]), "luhn").sum() == 1


def test_a_column_of_one_kind_is_told_from_digits_by_chance():
    draw = random.Random(1)
    starts = ["".join(draw.choices("0123456789", k=15)) for _ in range(200)]
    every = pl.Series([f"{start}{last}" for start in starts for last in range(10)])
    cards = every.filter(holds(every, "luhn"))
    assert likely_kind(cards) == ("luhn", 1.0)
    assert likely_kind(pl.Series([s + "7" for s in starts])) == ("", 0.0)
    assert likely_kind(cards[:50]) == ("", 0.0)
