"""What got stricter from one contract to another."""

from __future__ import annotations

import pytest

from tasks.cleaning.contract.difference import differences
from tasks.cleaning.contract.toml import from_toml

BASE = """
[columns.a]
kind = "decimal"
minimum = 1
maximum = 9
domain = ["x", "y"]
pattern = "p"
confidence = { domain = 0.9 }
[columns.b]
"""


def effects(change, base=BASE):
    before, after = from_toml(base), from_toml(change(base))
    return [(one.where, one.line, one.effect) for one in differences(before, after)]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("minimum = 1", "minimum = 2", [("a", "minimum", "stricter")]),
        ("minimum = 1", "minimum = 0", [("a", "minimum", "looser")]),
        ("minimum = 1", "", [("a", "minimum", "looser")]),
        ("maximum = 9", "maximum = 8", [("a", "maximum", "stricter")]),
        ("maximum = 9", "maximum = 10", [("a", "maximum", "looser")]),
        ('domain = ["x", "y"]', 'domain = ["x"]', [("a", "domain", "stricter")]),
        ('domain = ["x", "y"]', 'domain = ["x", "y", "z"]', [("a", "domain", "looser")]),
        ('domain = ["x", "y"]', 'domain = ["x", "z"]', [("a", "domain", "other")]),
        ('pattern = "p"', 'pattern = "q"', [("a", "pattern", "other")]),
        ("confidence = { domain = 0.9 }", "", [("a", "confidence", "stricter")]),
        ("[columns.b]", "[columns.b]\nnullable = false", [("b", "nullable", "stricter")]),
        ("[columns.b]", "[columns.b]\nkind = 'integer'", [("b", "kind", "stricter")]),
        ('kind = "decimal"', 'kind = "integer"', [("a", "kind", "stricter")]),
        ("[columns.b]", "[columns.b]\nunique = true", [("b", "unique", "stricter")]),
        ("[columns.b]", "[columns.b]\nmax_length = 3", [("b", "max_length", "stricter")]),
        ("[columns.b]", "[columns.b]\nmissing = ['-']", [("b", "missing", "other")]),
        ("[columns.b]", "[columns.b]\n[columns.c]", [("c", "column", "stricter")]),
        ("[columns.b]", "", [("b", "column", "other")]),
    ],
)
def test_a_columns_line(old, new, expected):
    assert effects(lambda text: text.replace(old, new)) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("keys = [['a', 'b']]", ("a+b", "key", "stricter")),
        ("min_rows = 3", ("", "min_rows", "stricter")),
        ("max_rows = 3", ("", "max_rows", "stricter")),
        ("max_quarantine_share = 0.1", ("", "max_quarantine_share", "stricter")),
        ("extra_columns = true", ("", "extra_columns", "looser")),
        ("version = 2", ("", "version", "other")),
    ],
)
def test_a_line_of_the_table(line, expected):
    assert effects(lambda text: line + text) == [expected]
    (back,) = differences(from_toml(line + BASE), from_toml(BASE))
    assert back.effect == {"stricter": "looser", "looser": "stricter"}.get(expected[2], "other")


def test_what_binds_columns():
    denial = "\n[[denial]]\nname = 'n'\nforbidden = 'a > 1'\n"
    fixes = "\n[[dependency]]\ndeterminant = ['a']\ndependent = 'b'\n"
    assert effects(lambda text: text + denial) == [("n", "denial", "stricter")]
    assert effects(lambda text: text + fixes) == [("a->b", "dependency", "other")]
    assert effects(lambda t: t.replace("a > 1", "a < 1"), BASE + denial) == [
        ("n", "denial", "other")
    ]
    assert effects(lambda text: text) == []


PAID = """
[columns.t]
[columns.u]
[[transactions]]
time = "t"
arrival = "u"
account = "b"
amount = "a"
latitude = "a"
longitude = "a"
near_seconds = 5
max_speed_kmh = 900
label_time = "u"
"""


@pytest.mark.parametrize(
    ("line", "was", "now"),
    [
        ("account", '"b"', '"u"'),
        ("merchant", "", '"u"'),
        ("longitude", '"a"', '"b"'),
        ("near_km", "", "1"),
        ("ahead_seconds", "", "5"),
        ("label_delay_seconds", "", "5"),
        ("near_seconds", "5", "6"),
        ("zone", "", '"Europe/Berlin"'),
    ],
)
def test_every_line_of_transactions_is_told(line, was, now):
    def change(text):
        gone = text.replace(f"{line} = {was}\n", "") if was else text
        return f"{gone}{line} = {now}\n"

    found = effects(change, BASE + PAID)
    assert ("transactions 1", line, "other") in found
    assert all(one[1] == "transactions" for one in found if one[1] != line)


def test_checks_and_doubts_of_transactions():
    came = effects(lambda text: text + 'currency = "b"\n', BASE + PAID)
    assert ("currency:b", "transactions", "stricter") in came
    sure = "confidence = { near_seconds = 0.9 }\n"
    assert effects(lambda text: text + sure, BASE + PAID) == [
        ("transactions 1", "confidence", "looser")
    ]
    gone = effects(lambda text: text.partition("[[transactions]]")[0], BASE + PAID)
    assert ("near-copy:t", "transactions", "looser") in gone


def test_what_a_denial_expects():
    denial = "\n[[denial]]\nname = 'n'\nforbidden = 'a > 1'\nexpected = 'few'\n"
    assert effects(lambda text: text.replace("few", "less"), BASE + denial) == [
        ("n", "expected", "other")
    ]


LABEL = "\n[label]\ncolumn = 'b'\nmax_noise = 0.1\n"
REFERENCE = "\n[[reference]]\ncolumns = ['b']\ntable = 't'\nto = ['b']\n"
FRESH = "newest = 'd'\nmax_age_days = 2\n"
DAY = "\n[columns.d]\nkind = 'date'\n"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (BASE, BASE + LABEL, [("", "label", "stricter")]),
        (BASE + LABEL, BASE, [("", "label", "looser")]),
        (BASE + LABEL, BASE + LABEL.replace("0.1", "0.2"), [("label", "max_noise", "looser")]),
        (BASE, BASE + REFERENCE, [("b->t:b", "reference", "stricter")]),
        (BASE + REFERENCE, BASE, [("b->t:b", "reference", "looser")]),
        (
            BASE + DAY,
            FRESH + BASE + DAY,
            [("", "newest", "stricter"), ("", "max_age_days", "stricter")],
        ),
        (
            FRESH + BASE + DAY,
            FRESH.replace("2", "1") + BASE + DAY,
            [("", "max_age_days", "stricter")],
        ),
    ],
)
def test_lines_on_whole_tables(before, after, expected):
    found = differences(from_toml(before), from_toml(after))
    assert [(one.where, one.line, one.effect) for one in found] == expected
