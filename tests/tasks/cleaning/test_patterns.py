"""Patterns: one meaning in Rust, Java and Python, or refused."""

from __future__ import annotations

import re

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.cleaning.contract.patterns import CLASS_SIZE, MAX_SIZE, PatternError, portable


def in_polars(pattern: str, text: str) -> bool:
    return bool(pl.Series([text]).str.contains(portable(pattern).text)[0])


@pytest.mark.parametrize(
    ("pattern", "told"),
    [
        ("(?=a)b", "look-around"),
        ("(?i)a", "flags"),
        ("(?P<n>a)", "names"),
        (r"(a)\1", r"\\1 is not known"),
        ("a++", "one repeat only"),
        ("a*+", "one repeat only"),
        (r"\p{L}", r"\\p is not known"),
        (r"\bx", r"\\b is not known"),
        (r"a\z", r"\\z is not known"),
        ("a^b", "within the pattern"),
        ("(a$)b", "within the pattern"),
        ("[[:alpha:]]", "within a class"),
        ("[a&&b]", "write it once"),
        ("[]", "a class is empty"),
        ("[a", "ends too early"),
        ("[z-a]", "goes up"),
        (r"[\d-z]", "goes up"),
        (r"[\D]", "outside of classes"),
        ("a{,3}", r"a repeat is \{2\}"),
        ("a{3,2}", "goes up"),
        ("{", "repeats nothing"),
        ("a{1001}", "to 1,000 at most"),
        ("(a{1000}){1000}", "too large"),
        ("(a*)*", "for ever"),
        ("(a+)+", "for ever"),
        ("(|a)*", "for ever"),
        ("*a", "repeats nothing"),
        ("(a", "a group is not closed"),
        ("a)", "closes nothing"),
        ("\\", "ends too early"),
        ("\ud800", "surrogate"),
        (r"\ud800", r"\\u is not known"),
    ],
)
def test_what_only_one_engine_knows_is_refused(pattern, told):
    with pytest.raises(PatternError, match=told):
        portable(pattern)


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("^a$", ["a"], ["a\n", "\na", "aa"]),
        ("^a|b$", ["a", "b"], ["ac", "cb"]),
        (r"\d+", ["12"], ["١", "１", ""]),
        (r"\w\s\W", ["a -"], ["é -", "a\u00a0-"]),
        (".", ["é", "\r", "\u2028"], ["\n", ""]),
        (r"[\w-]+", ["a-b"], ["a b"]),
        (r"[a\-z]", ["-", "a", "z"], ["b"]),
        (r"\x41\u00e9\v", ["Aé\v"], ["Aé\n"]),
        ("a{2}b{1,}c{0,2}?", ["aabbcc", "aab"], ["ab", "aabccc"]),
    ],
)
def test_the_meaning_is_the_written_one(pattern, yes, no):
    assert [text for text in yes + no if in_polars(pattern, text)] == yes


def test_a_large_pattern_is_one_that_polars_takes():
    assert 1_000 * (3 * CLASS_SIZE + 2) < MAX_SIZE < 1_000 * (4 * CLASS_SIZE + 2)
    pattern = "(?:[^a]{3}éa){1000}"
    assert in_polars(pattern, "bcdéa" * 1_000)
    assert not in_polars(pattern, "bcdéa" * 999)


safe = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@given(safe, safe)
def test_escaped_texts_match_themselves_and_nothing_else(text, other):
    pattern = "".join(f"\\{c}" if c in "\\.+*?()|[]{}^$#&-~" else c for c in text)
    assert in_polars(pattern, text)
    assert in_polars(pattern, other) == (text == other)


pieces = st.sampled_from(
    ["a", "b", "[ab]", "[^a]", ".", r"\d", "(?:a|b)", "a{2}", "b?", r"\-", "é*"]
)


@given(st.lists(pieces, min_size=1, max_size=6).map("".join), st.text("ab1é\n-", max_size=6))
def test_python_takes_the_new_pattern_for_the_same(pattern, text):
    plain = portable(pattern).text.removeprefix(r"\A").removesuffix(r"\z")
    assert (re.fullmatch(plain, text) is not None) == in_polars(pattern, text)
