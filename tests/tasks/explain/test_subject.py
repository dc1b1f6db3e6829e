"""Reasons by name and value, neighbours by contributions, stability over redraws."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.explain.background import Background
from tasks.explain.catalogue.files import from_toml
from tasks.explain.engine import ExplainOptions, PlayerExplainer
from tasks.explain.errors import CatalogueError
from tasks.explain.languages import number
from tasks.explain.neighbours import nearest
from tasks.explain.player_reasons import PlayerWords, player_reasons
from tasks.explain.players import Players
from tasks.explain.record import ModelName, RowFacts, of_players
from tasks.explain.stability import stability

NAMES = ("amount", "city", "country", "hour")
PLAYERS = Players.grouped(NAMES, {"place": ["city", "country"]})
RNG = np.random.default_rng(0)
BACKGROUND = Background(NAMES, RNG.normal(size=(30, 4)).astype(np.float32))


def score(rows):
    return 2 * rows[:, 0] + rows[:, 1] * rows[:, 2] + 0.01 * rows[:, 3]


def explained(rows, options=None):
    found = PlayerExplainer(score, BACKGROUND, PLAYERS, options).explain(rows)
    keys = tuple(f"r{i}" for i in range(len(rows)))
    return of_players(found, PLAYERS, rows, RowFacts(keys), model=ModelName("m"))


def test_reasons_are_raising_players_with_their_values():
    made = explained(np.array([[3, 2, 2, 0], [-3, 2, 2, 0.0], [-3, 1, -9, -1]], np.float32))
    first, second, third = player_reasons(made)
    assert [r.group for r in first] == ["amount", "place"]
    assert first[0].text == "amount is 3"
    assert first[1].text == "place (city 2, country 2)"
    assert [r.group for r in second] == ["place"]
    assert third == ()
    assert all(r.contribution > 0 for r in (*first, *second))


def test_a_tie_of_the_values_is_a_tie_of_the_reasons():
    made = explained(RNG.normal(size=(20, 4)).astype(np.float32) + 2)
    for row, reasons in enumerate(player_reasons(made)):
        for place, reason in enumerate(reasons):
            assert reason.tie == (place < 2 and bool(made.ties[row, place]))


OWN = """
format = 1
name = "orders"
extends = "house"
max_reasons = 3
[[entry]]
code = "AMT"
groups = ["transaction/amount"]
customer = {en = "Amount of the order", zh = "订单金额"}
analyst = {en = "an order of {value}", zh = "订单金额为{value}"}
[[entry]]
code = "GEO"
groups = ["transaction/place", "transaction/hour"]
customer = {en = "Where and when the order came", zh = "下单时间与地点"}
"""


@pytest.mark.parametrize(
    ("language", "amount", "place"),
    [
        ("en", "an order of 3", "Where and when the order came"),
        ("zh", "订单金额为3", "下单时间与地点"),
    ],
)
def test_a_catalogue_gives_codes_and_words_and_joins_players(language, amount, place):
    made = explained(np.array([[3, 2, 2, 0], [-3, 2, 2, 0.0]], np.float32))
    words = PlayerWords(PLAYERS, from_toml(OWN), language)
    first, second = player_reasons(made, words)
    assert [(r.code, r.text) for r in first] == [("AMT", amount), ("GEO", place)]
    assert first[1].group == "place + hour"
    joined = made.values[0, 1] + made.values[0, 2]
    assert first[1].contribution == pytest.approx(joined, abs=1e-12)
    assert [r.code for r in second] == ["GEO"]
    assert words.bound.customer("AMT", "en") == "Amount of the order"


def test_players_without_an_entry_take_the_fallback():
    made = explained(np.array([[3, 2, 2, 0.0]], np.float32))
    words = PlayerWords(PLAYERS, from_toml('format = 1\nname = "x"\nextends = "house"'))
    (reasons,) = player_reasons(made, words)
    assert [r.code for r in reasons] == ["X-amount", "X-place"]
    assert reasons[1].text == "place (city 2, country 2)"


def test_a_catalogue_that_prohibits_what_the_model_reads_is_an_error():
    text = OWN.replace(
        'groups = ["transaction/amount"]', 'groups = ["transaction/amount"]\nprohibited = true'
    )
    with pytest.raises(CatalogueError, match="prohibits"):
        PlayerWords(PLAYERS, from_toml(text))


def test_numbers_are_short():
    assert [number(v) for v in (0.00012345, 12345678.0, -2.5)] == [
        "0.0001234",
        "12,345,678",
        "-2.5",
    ]


def test_neighbours_are_nearest_by_contribution_and_never_the_case_itself():
    made = explained(RNG.normal(size=(50, 4)).astype(np.float32))
    outcomes = np.arange(50, dtype=np.int8) % 3 - 1
    found = nearest(made.take([7]), made, outcomes, count=5)
    far = np.linalg.norm(made.values - made.values[7], axis=1)
    far[7] = np.inf
    order = np.argsort(far)[:5]
    assert [n.key for n in found] == [f"r{i}" for i in order]
    assert [n.outcome for n in found] == [int(outcomes[i]) for i in order]
    assert [n.distance for n in found] == pytest.approx(far[order].tolist())
    with pytest.raises(ValueError, match="one case"):
        nearest(made, made, outcomes)


def test_stability_is_one_where_the_background_plays_no_part():
    rows = RNG.normal(size=(10, 4))
    found = stability(lambda _: rows, BACKGROUND)
    assert (found.overlap, found.first) == (1.0, 1.0)
    assert (found.spread == 0).all()


def test_stability_counts_what_stays_in_the_top():
    """Against a frozen ranking, redraws that turn it round keep half of the top two of three."""
    frozen = np.array([[3.0, 2, 1]] * 4)
    calls = iter([frozen, *[frozen[:, ::-1]] * 5])
    found = stability(lambda _: next(calls), BACKGROUND, top=2)
    assert found.overlap == pytest.approx(0.5)
    assert found.first == 0


def test_stability_of_a_real_model_grows_with_the_background():
    rows = RNG.normal(size=(40, 4)).astype(np.float32)

    def values(background):
        return PlayerExplainer(score, background, PLAYERS, ExplainOptions()).explain(rows).values

    small = Background(NAMES, BACKGROUND.values[:3].copy())
    assert stability(values, small, top=1).overlap < stability(values, BACKGROUND, top=1).overlap
    with pytest.raises(ValueError, match="at least one draw"):
        stability(values, BACKGROUND, draws=0)
