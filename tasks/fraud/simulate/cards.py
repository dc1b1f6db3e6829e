"""Simulated card payments with three kinds of fraud (four under drift).

The model is the one that the Fraud Detection Handbook describes (Le Borgne, Siblini, Lebichot and
Bontempi, 2022, chapter 3), written anew: cards and terminals are strewn over a square, a card pays
at terminals nearby, and three fraud scenarios are laid over the payments:

1. an amount above 220.00;
2. a terminal is compromised: all its payments are frauds for 28 days, at unchanged amounts;
3. a card is compromised: a third of its payments over 14 days are frauds at five times the amount;
4. only under drift: a stolen card is tested, a third of its payments over 7 days are frauds at
   small amounts.

A later scenario overwrites the code of an earlier one. The last day draws no new compromise.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.fraud.simulate.drift import Conditions, Drift, conditions
from tasks.fraud.simulate.scenarios import CompromisedCards, CompromisedTerminals
from tasks.fraud.simulate.stream import (
    BATCH_ROWS,
    DAY,
    Stream,
    check_counts,
    check_seed,
    generator,
    record_batches,
    time_order,
)
from tasks.fraud.simulate.terminals import NearbyTerminals

SIDE = 100.0
RADIUS = 5.0
SECOND_STD = 20_000.0
LIMIT_CENTS = 22_000
BAD_TERMINAL_DAYS = 28
BAD_CARD_DAYS = 14
TESTER_DAYS = 7
TESTER_CENTS = (50, 500)

CARDS_SCHEMA = pa.schema(
    [
        ("tx_id", pa.int64()),
        ("t", pa.int64()),
        ("customer", pa.int32()),
        ("terminal", pa.int32()),
        ("amount_cents", pa.int64()),
        ("fraud", pa.int8()),
        ("scenario", pa.int8()),
    ]
)
"""Columns of the stream: rank, seconds since the origin, entities, cents, label, scenario code."""


@dataclass(frozen=True, slots=True)
class CardsConfig:
    """Size and seed of a simulated bank.

    Attributes:
        cards: Number of cards.
        terminals: Number of terminals.
        days: Number of days.
        seed: Seed; the same config gives the same rows.
        bad_terminals_per_day: Terminals newly compromised each day. None: 2 per 10,000.
        bad_cards_per_day: Cards newly compromised each day. None: 3 per 5,000. Fractions of either
            are drawn by chance, so that a small bank has the same share of frauds as a large one.
        drift: How habits and frauds move over the months; None: not at all.
    """

    cards: int = 5_000
    terminals: int = 10_000
    days: int = 157
    seed: int = 0
    bad_terminals_per_day: float | None = None
    bad_cards_per_day: float | None = None
    drift: Drift | None = None

    def __post_init__(self) -> None:
        """Reject impossible sizes, naming field and fix."""
        check_counts(cards=self.cards, terminals=self.terminals, days=self.days)
        check_seed(self.seed)
        for name in ("bad_terminals_per_day", "bad_cards_per_day"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be 0 or more, got {value}; 0 switches it off")

    @property
    def bad_terminals(self) -> float:
        """Expected number of newly compromised terminals per day."""
        given = self.bad_terminals_per_day
        return 2 * self.terminals / 10_000 if given is None else given

    @property
    def bad_cards(self) -> float:
        """Expected number of newly compromised cards per day."""
        given = self.bad_cards_per_day
        return 3 * self.cards / 5_000 if given is None else given


@dataclass(frozen=True, slots=True)
class CardPopulation:
    """What stays the same about the cards and terminals of a bank.

    Attributes:
        cards: Positions float64 [cards, 2].
        terminals: Positions float64 [terminals, 2].
        mean: Mean amount of each card, float64 [cards], major units; its deviation is half of it.
        rate: Payments per day of each card, float64 [cards]; 0 for a card without a terminal.
        nearby: Draws terminals for cards.
    """

    cards: NDArray[np.float64]
    terminals: NDArray[np.float64]
    mean: NDArray[np.float64]
    rate: NDArray[np.float64]
    nearby: NearbyTerminals

    @classmethod
    def draw(cls, config: CardsConfig) -> CardPopulation:
        """Draw the population of ``config``."""
        random = generator(config.seed, Stream.CARDS)
        cards = random.uniform(0, SIDE, (config.cards, 2))
        mean = random.uniform(5, 100, config.cards)
        rate = random.uniform(0, 4, config.cards)
        terminals = generator(config.seed, Stream.TERMINALS).uniform(0, SIDE, (config.terminals, 2))
        nearby = NearbyTerminals(cards, terminals, RADIUS, SIDE)
        return cls(cards, terminals, mean, rate * nearby.reachable, nearby)


def simulate_cards(
    config: CardsConfig, *, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Simulate card payments, sorted by time.

    Memory holds one day of payments, up to ``batch_rows`` finished rows, and per card 14 days of
    payment counts (the look-ahead of scenario 3), whatever the number of days.

    Args:
        config: Size, seed, fraud rates, drift.
        batch_rows: Rows of each batch but the last; changes no value.

    Yields:
        Batches of ``CARDS_SCHEMA``.

    Raises:
        ValueError: When ``batch_rows`` is below 1.
    """
    return record_batches(_days(config), CARDS_SCHEMA, batch_rows)


def _days(config: CardsConfig) -> Iterator[dict[str, NDArray[Any]]]:
    population = CardPopulation.draw(config)
    frauds = _Frauds(config)
    ahead: deque[NDArray[np.int32]] = deque()
    drawn = 0
    for day in range(config.days):
        while drawn < min(day + BAD_CARD_DAYS, config.days):
            ahead.append(_counts(config, population, drawn))
            drawn += 1
        now = conditions(config.drift, day)
        if day < config.days - 1:
            frauds.begin(day, list(ahead), now)
        counts = ahead.popleft()
        columns = _payments(config, population, counts, day, now)
        frauds.lay_over(day, counts, columns)
        order = time_order(columns["t"])
        columns = {name: values[order] for name, values in columns.items()}
        columns["t"] += day * DAY
        yield columns


def _counts(config: CardsConfig, population: CardPopulation, day: int) -> NDArray[np.int32]:
    """Return the payments of every card on a day, int32 [cards].

    A payment whose second of the day falls outside the day is dropped. Payments being Poisson,
    those kept are Poisson as well, with the rate times the share kept, and their seconds follow
    the normal distribution cut to the day: so the final numbers can be drawn before the seconds.
    """
    now = conditions(config.drift, day)
    rate = population.rate * (now.rate * _share_kept(now.peak))
    return generator(config.seed, Stream.COUNTS, day).poisson(rate).astype(np.int32)


def _share_kept(peak: float) -> float:
    """Share of normal seconds whose whole part lies in 1..86,399."""

    def below(second: float) -> float:
        return 0.5 * (1 + math.erf((second - peak) / (SECOND_STD * math.sqrt(2))))

    return below(DAY) - below(1)


def _payments(
    config: CardsConfig,
    population: CardPopulation,
    counts: NDArray[np.int32],
    day: int,
    now: Conditions,
) -> dict[str, NDArray[Any]]:
    """Return the honest payments of a day, ordered by card."""
    random = generator(config.seed, Stream.COLUMNS, day)
    card = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    return {
        "t": _seconds(len(card), now.peak, random),
        "customer": card,
        "terminal": population.nearby.draw(card, random),
        "amount_cents": _cents(population.mean[card] * now.amount, random),
    }


def _seconds(rows: int, peak: float, random: np.random.Generator) -> NDArray[np.int64]:
    second = random.normal(peak, SECOND_STD, rows).astype(np.int64)
    while len(outside := np.flatnonzero((second <= 0) | (second >= DAY))):
        second[outside] = random.normal(peak, SECOND_STD, len(outside)).astype(np.int64)
    return second


def _cents(mean: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.int64]:
    amount = random.standard_normal(len(mean))
    amount *= 0.5
    amount += 1.0
    negative = np.flatnonzero(amount < 0)
    amount[negative] = 2 * random.random(len(negative))
    amount *= mean
    cents: NDArray[np.int64] = np.rint(amount * 100).astype(np.int64)
    return cents


class _Frauds:
    """The fraud scenarios of a run, with what they carry from day to day."""

    def __init__(self, config: CardsConfig) -> None:
        self._config = config
        self._terminals = CompromisedTerminals(config.terminals, BAD_TERMINAL_DAYS)
        self._cards = CompromisedCards()
        self._testers = CompromisedCards()

    def begin(self, day: int, counts: list[NDArray[np.int32]], now: Conditions) -> None:
        """Draw the compromises that begin on ``day``; ``counts`` from that day on."""
        config = self._config
        random = generator(config.seed, Stream.FRAUDS, day)
        self._terminals.add(day, config.bad_terminals * now.bad_terminals, random)
        self._cards.add(day, counts, config.bad_cards * now.bad_cards, random)
        if now.testers:
            random = generator(config.seed, Stream.TESTERS, day)
            expected = config.bad_cards * now.testers
            self._testers.add(day, counts[:TESTER_DAYS], expected, random)

    def lay_over(
        self, day: int, counts: NDArray[np.int32], columns: dict[str, NDArray[Any]]
    ) -> None:
        """Turn payments of ``day`` into frauds; adds ``scenario`` and ``fraud``."""
        cents = columns["amount_cents"]
        scenario = (cents > LIMIT_CENTS).astype(np.int8)
        scenario[self._terminals.hit(day, columns["terminal"])] = 2
        rows = self._cards.rows(day, counts)
        np.multiply.at(cents, rows, 5)  # a row named twice is multiplied twice
        scenario[rows] = 3
        rows = self._testers.rows(day, counts)
        if len(rows):
            random = generator(self._config.seed, Stream.TESTERS, day + self._config.days)
            cents[rows] = random.integers(*TESTER_CENTS, len(rows), endpoint=True)
            scenario[rows] = 4
        columns["scenario"] = scenario
        columns["fraud"] = (scenario > 0).astype(np.int8)
