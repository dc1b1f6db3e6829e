"""Check digits of public standards, over whole columns.

Every one of them notices any single wrong digit. A text may hold blanks and hyphens between its
groups, and letters in either case.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

Codes = NDArray[np.int64]  # [rows, longest]: 0..9 digits, 10..35 letters, -1 beyond the end
Bools = NDArray[np.bool_]

LONGEST = 34
BAD = -2
SAMPLE = 1_000
LEAST_TEXTS = 100
SHORTEST = 8
NEARLY_ALL = 0.95
IBAN_LENGTHS: Mapping[str, int] = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22,
    "BR": 29, "BY": 28, "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28,
    "EE": 20, "EG": 29, "ES": 24, "FI": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23,
    "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IQ": 23, "IS": 26,
    "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20, "LU": 20,
    "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30,
    "NL": 18, "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22,
    "SA": 24, "SC": 31, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23,
    "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
"""Length of an IBAN by country (registry of ISO 13616); of others mod 97 alone is asked."""


def luhn(codes: Codes, length: Codes) -> Bools:
    """Payment cards, IMEI (ISO/IEC 7812-1 annex B): 8 to 19 digits."""
    return np.asarray(
        _digits_only(codes) & (length >= 8) & (length <= 19) & (_luhn_sum(codes) % 10 == 0)
    )


def isin(codes: Codes, length: Codes) -> Bools:
    """Securities (ISO 6166): two letters, nine letters or digits, Luhn over letters as numbers."""
    country = ((codes[:, :2] >= 10) & (codes[:, :2] <= 35)).all(1)
    last = (codes[:, 11] >= 0) & (codes[:, 11] <= 9)
    whole = (codes != BAD).all(1) & (length == 12)
    return np.asarray(whole & country & last & (_luhn_sum(codes) % 10 == 0))


def iban(codes: Codes, length: Codes) -> Bools:
    """Bank accounts (ISO 13616): mod 97 after the first four places have moved to the end."""
    shape = ((codes[:, :2] >= 10).all(1)) & ((codes[:, 2:4] >= 0) & (codes[:, 2:4] <= 9)).all(1)
    check = 10 * codes[:, 2] + codes[:, 3]
    country = 36 * codes[:, 0] + codes[:, 1]
    wanted = np.zeros(len(codes), np.int64)
    for name, places in IBAN_LENGTHS.items():
        wanted[country == 36 * _value(name[0]) + _value(name[1])] = places
    fits = np.where(wanted > 0, length == wanted, (length >= 15) & (length <= LONGEST))
    moved = np.concatenate([codes[:, 4:], codes[:, :4]], axis=1)
    right = _mod_97(moved) == 1
    return np.asarray((codes != BAD).all(1) & shape & fits & (check >= 2) & (check <= 98) & right)


def lei(codes: Codes, length: Codes) -> Bools:
    """Legal entities (ISO 17442): 18 letters or digits and two check digits, mod 97."""
    last = ((codes[:, 18:20] >= 0) & (codes[:, 18:20] <= 9)).all(1)
    return np.asarray((codes != BAD).all(1) & (length == 20) & last & (_mod_97(codes) == 1))


def ean(codes: Codes, length: Codes) -> Bools:
    """Goods (GS1 GTIN-8, -12, -13 and -14, ISBN-13): weights 1 and 3 from the right."""
    weights = np.where((length[:, None] - 1 - np.arange(codes.shape[1])) % 2 == 0, 1, 3)
    total = (np.where(codes >= 0, codes, 0) * weights).sum(1)
    return np.asarray(_digits_only(codes) & np.isin(length, (8, 12, 13, 14)) & (total % 10 == 0))


def aba(codes: Codes, length: Codes) -> Bools:
    """Routing numbers of US banks (ABA, ANSI X9.100-160): weights 3, 7, 1."""
    nine = np.where(codes[:, :9] >= 0, codes[:, :9], 0)
    total = (nine * np.tile([3, 7, 1], 3)).sum(1)
    first = 10 * nine[:, 0] + nine[:, 1]
    known = (first <= 12) | ((first >= 21) & (first <= 32)) | ((first >= 61) & (first <= 72))
    return np.asarray(
        _digits_only(codes) & (length == 9) & (known | (first == 80)) & (total % 10 == 0)
    )


KINDS: Mapping[str, Callable[[Codes, Codes], Bools]] = {
    "luhn": luhn,
    "iban": iban,
    "ean": ean,
    "isin": isin,
    "lei": lei,
    "aba": aba,
}
"""Kinds of check digits by the name that a contract gives them."""


def holds(values: pl.Series, kind: str) -> pl.Series:
    """Return whether each text bears out its check digits; null where there is none.

    Args:
        values: Texts.
        kind: One of ``KINDS``.

    Raises:
        ValueError: For another kind.
    """
    if kind not in KINDS:
        raise ValueError(f"check_digit is {kind!r}; give one of {', '.join(KINDS)}")
    text = values.cast(pl.String).str.replace_all(r"[ \-]", "").str.to_uppercase()
    length = text.str.len_chars().fill_null(0)
    codes = _codes(text.fill_null("").str.slice(0, LONGEST))
    counts = length.cast(pl.Int64).to_numpy()
    right = KINDS[kind](codes, counts) & (counts <= LONGEST)
    return pl.Series(values.name, right).set(values.is_null(), None)


def likely_kind(values: pl.Series) -> tuple[str, float]:
    """Return the kind that nearly all texts bear out, with their share; "" where there is none.

    Of digits without any check a tenth bear one out by chance, of a hundred texts never 95.
    """
    text = values.drop_nulls().unique(maintain_order=True).head(SAMPLE)
    if len(text) < LEAST_TEXTS or float(text.str.len_chars().median() or 0) < SHORTEST:  # type: ignore[arg-type]
        return "", 0.0
    shares = {kind: float(holds(text, kind).mean()) for kind in KINDS}  # type: ignore[arg-type]
    best = max(shares, key=lambda kind: shares[kind])
    return (best, shares[best]) if shares[best] >= NEARLY_ALL else ("", 0.0)


def _codes(text: pl.Series) -> Codes:
    """Return letters and digits as numbers [rows, LONGEST]."""
    points = text.to_numpy().astype(f"U{LONGEST}").view(np.uint32).reshape(len(text), LONGEST)
    table = np.full(128, BAD, np.int64)
    table[0] = -1
    table[48:58] = np.arange(10)
    table[65:91] = np.arange(10, 36)
    return np.asarray(table[np.where(points < 128, points, 1)])


def _value(letter: str) -> int:
    return ord(letter) - 55


def _digits_only(codes: Codes) -> Bools:
    return np.asarray(((codes >= -1) & (codes <= 9)).all(1))


def _luhn_sum(codes: Codes) -> Codes:
    """Return the Luhn sum, letters taken as the two digits of their number."""
    total, doubled = np.zeros(len(codes), np.int64), np.zeros(len(codes), bool)
    for place in range(codes.shape[1] - 1, -1, -1):
        code = codes[:, place]
        letter = code >= 10
        for digit, here in ((code % 10, code >= 0), (code // 10, letter)):
            twice = np.where(doubled, 2 * digit, digit)
            total += np.where(here, np.where(twice > 9, twice - 9, twice), 0)
            doubled ^= here
    return total


def _mod_97(codes: Codes) -> Codes:
    """Return the number that the places spell, letters as two digits, modulo 97."""
    rest = np.zeros(len(codes), np.int64)
    for place in range(codes.shape[1]):
        code = codes[:, place]
        longer = (rest * np.where(code >= 10, 100, 10) + code) % 97
        rest = np.where(code >= 0, longer, rest)
    return rest
