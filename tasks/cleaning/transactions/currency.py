"""Currencies: codes of ISO 4217 in use, and how many decimals an amount may have."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

_TWO = (
    "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD "
    "CAD CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL "
    "GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR "
    "LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD "
    "PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC "
    "SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW "
    "ZWG"
)
_NONE = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
_THREE = "BHD IQD JOD KWD LYD OMR TND"
_FOUR = "CLF UYW"
MINOR_UNITS: Mapping[str, int] = {
    code: digits
    for digits, codes in ((2, _TWO), (0, _NONE), (3, _THREE), (4, _FOUR))
    for code in codes.split()
}
"""Decimals of every currency of ISO 4217 (list one); metals and test codes are no currencies."""

_AMOUNT = r"\A[+-]?([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?\z"


def is_unknown(currency: pl.Expr) -> pl.Expr:
    """Return whether a text is no code of a currency; false where it is missing."""
    return ~currency.str.strip_chars().is_in(list(MINOR_UNITS)) & currency.is_not_null()


def has_too_many_decimals(amount: pl.Expr, currency: pl.Expr) -> pl.Expr:
    """Return whether an amount is finer than its currency; zeros at the end do not count.

    An exponent moves the point: ``1.234e2`` has one decimal. What is no number has none.
    """
    parts = amount.str.strip_chars().str.extract_groups(_AMOUNT).struct
    whole, fraction, exponent = (parts.field(name) for name in ("1", "2", "3"))
    fraction = fraction.fill_null("").str.strip_chars_end("0")
    digits = pl.concat_str(whole, fraction)
    # Zeros before a point count as decimals once an exponent moves it: 120e-2 has one.
    zeros = digits.str.len_chars() - digits.str.strip_chars_end("0").str.len_chars()
    places = fraction.str.len_chars().cast(pl.Int64) - exponent.cast(
        pl.Int64, strict=False
    ).fill_null(0)
    is_zero = digits.str.strip_chars("0") == ""
    decimals = pl.when(~is_zero).then(places - zeros.cast(pl.Int64))
    allowed = currency.str.strip_chars().replace_strict(
        list(MINOR_UNITS), list(MINOR_UNITS.values()), default=None, return_dtype=pl.UInt32
    )
    return (decimals > allowed).fill_null(value=False)
