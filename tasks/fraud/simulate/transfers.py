"""Simulated account-to-account transfers with laundering rings: fraud that only a graph shows.

Each account has a mean amount, a rate and twelve partners drawn by popularity. Nine in ten of its
transfers go to a partner, one in ten to anyone by popularity. Rings of 14 accounts (see
``rings.py``) lay chains, cycles and gatherings over this traffic, at amounts that look ordinary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tasks.fraud.simulate.drift import Drift, conditions
from tasks.fraud.simulate.rings import LAST_START_BEFORE_END, MEMBERS, draw_rings
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

PARTNERS = 12
NEW_PARTNER_SHARE = 0.1

TRANSFERS_SCHEMA = pa.schema(
    [
        ("tx_id", pa.int64()),
        ("t", pa.int64()),
        ("sender", pa.int32()),
        ("receiver", pa.int32()),
        ("amount_cents", pa.int64()),
        ("fraud", pa.int8()),
        ("ring", pa.int32()),
    ]
)
"""Columns of the stream: rank, seconds since the origin, accounts, cents, label, ring or -1."""


@dataclass(frozen=True, slots=True)
class TransfersConfig:
    """Size and seed of a simulated transfer network; the defaults are the reference network.

    Attributes:
        accounts: Number of accounts.
        days: Number of days; at least 46, the time a ring needs.
        rings: Number of laundering rings of 14 accounts.
        seed: Seed; the same config gives the same rows.
        drift: How habits and ring operations move over the months; None: not at all.
    """

    accounts: int = 10_000
    days: int = 120
    rings: int = 60
    seed: int = 0
    drift: Drift | None = None

    def __post_init__(self) -> None:
        """Reject impossible sizes, naming field and fix."""
        check_counts(accounts=self.accounts, days=self.days)
        check_seed(self.seed)
        if self.rings < 0:
            raise ValueError(f"rings must be 0 or more, got {self.rings}")
        if self.accounts < max(2, MEMBERS * (self.rings > 0)):
            raise ValueError(
                f"accounts = {self.accounts} is too few for a ring of {MEMBERS} accounts; "
                f"use at least {MEMBERS} (2 with rings = 0)"
            )
        if self.rings and self.days <= LAST_START_BEFORE_END:
            raise ValueError(
                f"days = {self.days} is too short for a ring; use at least "
                f"{LAST_START_BEFORE_END + 1}, or rings = 0"
            )


@dataclass(frozen=True, slots=True)
class AccountPopulation:
    """What stays the same about the accounts.

    Attributes:
        mean: Mean amount of each account, float64 [accounts], major units.
        rate: Transfers sent per day, float64 [accounts].
        popularity: Running sum of the chance to be chosen as a receiver, float64 [accounts].
        partners: Usual receivers, int32 [accounts, 12].
    """

    mean: NDArray[np.float64]
    rate: NDArray[np.float64]
    popularity: NDArray[np.float64]
    partners: NDArray[np.int32]

    @classmethod
    def draw(cls, config: TransfersConfig) -> AccountPopulation:
        """Draw the population of ``config``."""
        random = generator(config.seed, Stream.ACCOUNTS)
        mean = random.lognormal(4.0, 0.7, config.accounts)
        rate = random.gamma(1.2, 0.8, config.accounts)
        popularity = np.cumsum(1 + random.pareto(1.5, config.accounts))
        popularity /= popularity[-1]
        partners = _by_popularity(popularity, config.accounts * PARTNERS, random)
        return cls(mean, rate, popularity, partners.reshape(config.accounts, PARTNERS))


def simulate_transfers(
    config: TransfersConfig, *, batch_rows: int = BATCH_ROWS
) -> Iterator[pa.RecordBatch]:
    """Simulate transfers, sorted by time.

    Memory holds one day of transfers, up to ``batch_rows`` finished rows and the transfers of the
    rings (about 35 a ring), whatever the number of days.

    Args:
        config: Size, seed, rings, drift.
        batch_rows: Rows of each batch but the last; changes no value.

    Yields:
        Batches of ``TRANSFERS_SCHEMA``.

    Raises:
        ValueError: When ``batch_rows`` is below 1.
    """
    return record_batches(_days(config), TRANSFERS_SCHEMA, batch_rows)


def _days(config: TransfersConfig) -> Iterator[dict[str, NDArray[Any]]]:
    population = AccountPopulation.draw(config)
    rings = _ring_columns(config, population)
    edges = np.searchsorted(rings["t"], np.arange(config.days + 1) * DAY)
    for day in range(config.days):
        honest = _honest(config, population, day)
        today = slice(edges[day], edges[day + 1])
        columns = {
            name: np.concatenate([values, rings[name][today]]) for name, values in honest.items()
        }
        order = time_order(columns["t"] - day * DAY)
        columns = {name: values[order] for name, values in columns.items()}
        columns["fraud"] = (columns["ring"] >= 0).astype(np.int8)
        yield columns


def _honest(
    config: TransfersConfig, population: AccountPopulation, day: int
) -> dict[str, NDArray[Any]]:
    """Return the ordinary transfers of a day.

    A Poisson number for each day at uniform times is the same process as one Poisson number for
    the whole run, and needs one day of memory.
    """
    now = conditions(config.drift, day)
    random = generator(config.seed, Stream.TRANSFERS, day)
    counts = random.poisson(population.rate * now.rate)
    sender = np.repeat(np.arange(config.accounts, dtype=np.int32), counts)
    receiver = population.partners[sender, random.integers(0, PARTNERS, len(sender))]
    other = np.flatnonzero(random.random(len(sender)) < NEW_PARTNER_SHARE)
    receiver[other] = _by_popularity(population.popularity, len(other), random)
    t = random.integers(0, DAY, len(sender)) + day * DAY
    amount = population.mean[sender] * now.amount * random.lognormal(0.0, 0.6, len(sender))
    kept = np.flatnonzero(sender != receiver)
    return {
        "t": t[kept],
        "sender": sender[kept],
        "receiver": receiver[kept],
        "amount_cents": _cents(amount[kept]),
        "ring": np.full(len(kept), -1, np.int32),
    }


def _ring_columns(
    config: TransfersConfig, population: AccountPopulation
) -> dict[str, NDArray[Any]]:
    random = generator(config.seed, Stream.RINGS)
    made = draw_rings(population.mean, config.days, config.rings, config.drift, random)
    t = np.array(made.t, np.int64)
    order = np.argsort(t, kind="stable")
    return {
        "t": t[order],
        "sender": np.array(made.sender, np.int32)[order],
        "receiver": np.array(made.receiver, np.int32)[order],
        "amount_cents": _cents(np.array(made.amount, np.float64)[order]),
        "ring": np.array(made.ring, np.int32)[order],
    }


def _by_popularity(
    popularity: NDArray[np.float64], number: int, random: np.random.Generator
) -> NDArray[np.int32]:
    return np.searchsorted(popularity, random.random(number), side="right").astype(np.int32)


def _cents(amount: NDArray[np.float64]) -> NDArray[np.int64]:
    cents: NDArray[np.int64] = np.rint(amount * 100).astype(np.int64)
    return cents
