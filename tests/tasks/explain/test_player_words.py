"""A catalogue for models of one's own: whose words are taken, names told apart, ties listed."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from tasks.explain.catalogue.files import catalogue_digest, from_toml, house_catalogue
from tasks.explain.errors import CatalogueError, LetterError
from tasks.explain.letter import CaseReference, Party, adverse_action_letter
from tasks.explain.player_explanation import PlayerExplanation
from tasks.explain.player_reasons import SHARE, PlayerWords, player_reasons
from tasks.explain.players import Players
from tasks.explain.record import ModelName, RowFacts, of_players

HOUSE = 'format = 1\nname = "x"\nextends = "house"\n'


def entry(code, *columns, more=""):
    groups = ", ".join(f'"transaction/{column}"' for column in columns)
    return f"[[entry]]\ncode = '{code}'\ngroups = [{groups}]\n" + (
        more or f'customer = {{en = "{code} en", zh = "{code} zh"}}\n'
    )


def explained(players, values, row=None, errors=0.0):
    """Return a record of one row by values that are given."""
    values = np.array([values], dtype=np.float64)
    scores = values.sum(axis=1)
    made = PlayerExplanation(
        players.names, values, np.broadcast_to(np.float64(errors), values.shape), 0.0, scores, 0.0,
        "exact", np.ones(1, np.int64), "0" * 64, None, values,
    )  # fmt: skip
    rows = np.array([row if row is not None else [1.0] * len(players.features)])
    return of_players(made, players, rows, RowFacts(("r",)), model=ModelName("m"))


PROHIBITED = HOUSE + entry("P", "city", more="prohibited = true\n")


@pytest.mark.parametrize("feature", ["city", "city=a", "city_missing"])
def test_a_prohibited_feature_cannot_hide_in_a_player(feature):
    players = Players.grouped([feature, "b"], {"place": [feature, "b"]})
    with pytest.raises(CatalogueError, match=r"player 'place' holds the feature 'city.*entry 'P'"):
        PlayerWords(players, from_toml(PROHIBITED))
    with pytest.raises(CatalogueError, match=rf"{feature}.*entry 'P' prohibits"):
        PlayerWords(Players.single([feature, "b"]), from_toml(PROHIBITED))


def test_a_player_named_like_what_is_prohibited_is_refused_too():
    with pytest.raises(CatalogueError, match=r"scores a, b .*entry 'P' prohibits"):
        PlayerWords(Players.grouped(["a", "b"], {"city": ["a", "b"]}), from_toml(PROHIBITED))


@pytest.mark.parametrize("catalogue", [from_toml(HOUSE), house_catalogue()], ids=["own", "house"])
@pytest.mark.parametrize(("language", "form"), [("en", "{} is {}"), ("zh", "“{}”为{}")])
def test_columns_named_like_fields_of_the_house_are_a_strangers(catalogue, language, form):
    """A normal-distributed ``hour`` is no hour, and no letter takes words that nobody wrote."""
    row = {"amount": -1.2, "hour": -1.2, "night": 0.3, "card": 2.0}
    players = Players.single(list(row))
    words = PlayerWords(players, catalogue, language)
    (reasons,) = player_reasons(explained(players, [4, 3, 2, 1], list(row.values())), words)
    expected = [(f"X-{name}", form.format(name, f"{value:g}")) for name, value in row.items()]
    assert [(r.code, r.text) for r in reasons] == expected
    with pytest.raises(CatalogueError, match="no words for customers"):
        words.bound.customer("X-amount", language)


@pytest.mark.parametrize(
    ("language", "text"),
    [("en", "place (a 1, b 2, c 3, ...)"), ("zh", "place（a 1、b 2、c 3等）")],
)
def test_a_player_of_several_columns_without_an_entry_is_said_by_some_of_its_values(language, text):
    players = Players.grouped(list("abcd"), {"place": list("abcd")})
    words = PlayerWords(players, from_toml(HOUSE), language)
    ((reason,),) = player_reasons(explained(players, [1.0], [1, 2, 3, 4]), words)
    assert (reason.code, reason.text) == ("X-place", text)


def test_an_entry_of_the_house_that_the_file_writes_itself_is_its_own():
    own = HOUSE + entry("T1", "amount") + '[columns.zh]\ncard = "卡号"\n'
    players = Players.single(["amount", "card"])
    words = PlayerWords(players, from_toml(own), "zh")
    assert words.bound.codes == ("T1", "X-card")
    assert words.bound.customer("T1", "en") == "T1 en"
    assert words.bound.digest == catalogue_digest(from_toml(own))
    (reasons,) = player_reasons(explained(players, [1.0, 2.0]), words)
    assert [r.text for r in reasons] == ["“卡号”为1", "“amount”为1"]


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "channel is web"), (0.0, "channel is not web"), (2.5, "web is 2.5")]
)
def test_columns_of_one_value_are_said_by_it(value, text):
    players = Players.single(["channel=web"])
    words = PlayerWords(players, from_toml(HOUSE))
    assert text in player_reasons(explained(players, [1.0], [value]), words)[0][0].text
    missing = Players.single(["shots_missing"])  # may well be a number of shots
    found = explained(missing, [1.0], [value])
    said = player_reasons(found, PlayerWords(missing, from_toml(HOUSE)))[0][0].text
    assert said == f"shots missing is {value:g}"


NAMES = ["income", "income_missing", "channel=web", "channel=shop"]


def test_players_are_matched_and_told_apart_by_their_very_names():
    players = Players.single(NAMES)
    own = from_toml(HOUSE + entry("A", "income_missing") + entry("B", "channel=web"))
    words = PlayerWords(players, own)
    assert words.bound.codes == ("X-income", "A", "B", "X-channel=shop")
    assert words.bound.unused == ()
    (reasons,) = player_reasons(explained(players, [4, 3, 2, 1]), words)
    assert [r.group for r in reasons] == NAMES


def test_what_an_encoding_made_of_a_column_is_one_reason_where_an_entry_names_the_column():
    own = from_toml(HOUSE + entry("C", "channel") + entry("B", "channel=web"))
    assert PlayerWords(Players.single(NAMES), own).bound.codes == (
        "X-income", "X-income_missing", "B", "C",
    )  # fmt: skip
    both = PlayerWords(Players.single(NAMES), from_toml(HOUSE + entry("C", "channel")))
    assert both.of_code == ((0,), (1,), (2, 3))


FIVE = Players.single(list("abcde"))
WORDS = PlayerWords(FIVE, from_toml(HOUSE + "".join(entry(c.upper(), c) for c in "abcde")))


def letter(reasons, **given):
    return adverse_action_letter(
        WORDS.bound, reasons, action="decline-transaction", subject="4711",
        recipient=Party("A", "B"), creditor=Party("C", "D"), when=date(2026, 11, 29),
        case=CaseReference("e", "1", "0" * 64), **given,
    )  # fmt: skip


def test_a_tie_at_the_cut_can_be_listed_and_written():
    found = explained(FIVE, [5.0, 4.0, 3.0, 2.01, 2.0], errors=0.01)
    (four,) = player_reasons(found, WORDS)
    assert [(r.code, r.tie, r.rival) for r in four[2:]] == [("C", False, ""), ("D", True, "E")]
    with pytest.raises(LetterError, match="rank with list_ties=True"):
        letter(four)
    (five,) = player_reasons(found, WORDS, list_ties=True)
    assert [r.code for r in five] == ["A", "B", "C", "D", "E"]
    assert "\n5. E en\n" in letter(five, list_ties=True)


def test_ties_are_listed_only_as_far_as_they_go():
    found = explained(FIVE, [5.0, 4.99, 3.0, 2.99, 2.0], errors=0.01)
    for limit, codes in ((1, "AB"), (2, "AB"), (3, "ABCD"), (4, "ABCD")):
        (reasons,) = player_reasons(found, WORDS, limit=limit, list_ties=True)
        assert "".join(r.code for r in reasons) == codes
        assert not reasons[-1].tie


@pytest.mark.parametrize("last", [-0.02, 0.0, SHARE - 0.01])
def test_what_is_no_reason_itself_ties_with_none(last):
    """Else a letter would ask for a reason that lowered the score."""
    found = explained(FIVE, [1.0, SHARE + 0.01, last, last, last], errors=0.05)
    for list_ties in (False, True):
        (reasons,) = player_reasons(found, WORDS, list_ties=list_ties)
        assert [(r.code, r.tie) for r in reasons] == [("A", False), ("B", False)]
        assert "2. B en" in letter(reasons)


def test_a_row_that_nothing_raised_has_no_reasons():
    (none,) = player_reasons(explained(FIVE, [0.0, -1, -1, -1, -1]), WORDS, list_ties=True)
    assert none == ()
