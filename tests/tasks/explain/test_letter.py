"""The letter: what it says, and when it is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from tasks.explain.catalogue.binding import bind
from tasks.explain.catalogue.files import catalogue_digest, from_toml, house_catalogue
from tasks.explain.errors import CatalogueError, LetterError
from tasks.explain.groups import FeatureGroups
from tasks.explain.letter import CaseReference, Party, adverse_action_letter
from tasks.explain.reasons import Reason
from tasks.fraud.derive import derived_names, event_names

NAMES = (*event_names(), *derived_names("customer", ("1d", "7d", "30d")), "mcc")
BOUND = bind(house_catalogue(), FeatureGroups.of(NAMES, ["customer"]))
DIGEST = "0123456789abcdef" * 4
REGULATOR = Party("Consumer Financial Protection Bureau", "1700 G Street NW\nWashington, DC 20552")


def reason(code, contribution, rival=""):
    return Reason("words", "group", contribution, 0.1, bool(rival), code, rival)


REASONS = [reason("L-customer", 2.0), reason("V-7d-customer", 1.0), reason("T1", 0.5)]


def letter(reasons=REASONS, bound=BOUND, **changes):
    given = {
        "action": "decline-application", "subject": "of 3 November for a credit card",
        "recipient": Party("A. Customer", "1 Road\nTown"),
        "creditor": Party("The Bank", "2 Square\nCity"), "when": date(2026, 11, 29),
        "case": CaseReference("tx-7", "fraud-demo/4", DIGEST), "regulator": REGULATOR,
    }  # fmt: skip
    return adverse_action_letter(bound, reasons, **(given | changes))


def test_a_letter_says_who_what_why_and_how_to_check_it():
    text = letter()
    for part in (
        "The Bank\n2 Square\nCity", "November 29, 2026", "A. Customer\n1 Road\nTown",
        "We cannot approve your application of 3 November for a credit card.",
        "1. What is known about fraud in the customer's earlier transactions\n",
        "\n2. Number and amounts of the customer's transactions within 7 days\n",
        "\n3. Amount of the transaction\n",
        "The federal Equal Credit Opportunity Act prohibits creditors",
        "is Consumer Financial Protection Bureau, 1700 G Street NW, Washington, DC 20552.",
        "case tx-7", "model fraud-demo/4", DIGEST, catalogue_digest(house_catalogue()),
        "codes L-customer, V-7d-customer, T1",
    ):  # fmt: skip
        assert part in text
    assert "{" not in text
    assert text == letter()


def test_the_same_letter_in_chinese():
    text = letter(language="zh")
    for part in (
        "2026年11月29日", "作出上述决定的主要原因如下：\n\n1. 客户以往交易中与欺诈有关的已知情况\n",
        "\n2. 客户在7天内的交易笔数与金额\n3. 本次交易的金额\n",
        "《平等信贷机会法》", "Consumer Financial Protection Bureau", DIGEST,
    ):  # fmt: skip
        assert part in text
    assert "{" not in text


@pytest.mark.parametrize("action", ["decline-transaction", "hold-transaction"])
def test_a_letter_on_a_transaction_may_go_without_the_notice(action):
    text = letter(action=action, regulator=None)
    assert "Equal Credit" not in text
    assert "transaction of 3 November" in text
    assert "Equal Credit" in letter(action=action)


def test_what_the_letter_is_given_is_never_read_as_a_template():
    text = letter(recipient=Party("{creditor}", "{date}"), subject="{reasons}")
    assert "{creditor}\n{date}" in text
    assert "application {reasons}." in text


def test_reasons_that_share_their_words_are_told_once_and_referred_to_twice():
    own = 'format = 1\nname = "a"\nextends = "house"\n'
    for code, column in (("A", "hour"), ("B", "night")):
        own += f'[[entry]]\ncode = "{code}"\ngroups = ["transaction/{column}"]\n'
        own += '[entry.customer]\nen = "Time"\nzh = "时间"\n'
    bound = bind(from_toml(own), FeatureGroups.of(NAMES, ["customer"]))
    text = letter([reason("A", 2.0), reason("B", 1.0), reason("T1", 0.5)], bound)
    assert "1. Time\n2. Amount" in text
    assert "codes A, B, T1" in text


FIVE = [reason(c, v, r) for c, v, r in (("L-customer", 5.0, ""), ("T1", 4.0, ""), ("T2", 3.0, ""),
                                        ("T3", 2.0, "T4"), ("T4", 1.9, ""))]  # fmt: skip


def test_ties_at_the_cut_are_refused_until_both_are_listed():
    with pytest.raises(LetterError, match="reason T3 ties with T4, which is left out"):
        letter(FIVE[:4])
    with pytest.raises(LetterError, match="5 reasons; list at most 4"):
        letter(FIVE)
    assert "5. Whether the transaction was made at the weekend" in letter(FIVE, list_ties=True)
    with pytest.raises(LetterError, match="ties with T1"):
        letter([*FIVE[:4], replace(FIVE[4], tie=True, rival="T1")], list_ties=True)
    apart = [*FIVE[:3], replace(FIVE[3], tie=False, rival=""), FIVE[4]]
    with pytest.raises(LetterError, match="the reason after T3 does not tie"):
        letter(apart, list_ties=True)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"reasons": []}, "nothing raised this score"),
        ({"reasons": REASONS[::-1]}, "not ordered by contribution"),
        ({"regulator": None}, "names the agency in charge; pass regulator"),
        ({"subject": " "}, "subject is empty"),
        ({"action": "shout"}, "action 'shout' is unknown; choose decline-application"),
        ({"language": "de"}, "language 'de' is unknown; choose en or zh"),
    ],
)
def test_letters_that_would_lack_something_are_refused(changes, match):
    with pytest.raises(LetterError, match=match):
        letter(**changes)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (lambda: CaseReference("", "1", DIGEST), "event_id is missing"),
        (lambda: CaseReference("e", " ", DIGEST), "model_version is missing"),
        (lambda: CaseReference("e", "1", ""), "is no SHA-256; pass the digest"),
        (lambda: CaseReference("e", "1", DIGEST.upper()), "is no SHA-256"),
        (lambda: Party("", "a"), "lacks its name or address"),
        (lambda: Party("a", " "), "lacks its name or address"),
    ],
)
def test_references_nobody_could_follow_are_refused(made, match):
    with pytest.raises(LetterError, match=match):
        made()


@pytest.mark.parametrize(
    ("code", "match"), [("X-mcc", "no words for customers"), ("Q1", "the model scores nothing")]
)
def test_reasons_without_words_or_not_scored_are_refused(code, match):
    with pytest.raises(CatalogueError, match=match):
        letter([reason(code, 1.0)])
