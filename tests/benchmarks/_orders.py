"""Orders as texts: sixteen columns, a few per cent of bad rows, the contract, and rules by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from tasks.cleaning.contract.model import ColumnContract, Contract

COUNTRIES = ("DE", "FR", "IT", "ES", "AT", "CH")
CURRENCIES = ("EUR", "CHF", "USD")
STATES = ("new", "paid", "sent", "done")
EMAIL = "[^@ ]+@[^@ ]+[.][a-z]+"

CONTRACT = Contract(
    name="orders",
    columns={
        "order_id": ColumnContract(nullable=False, pattern="A[0-9]{9}"),
        "customer": ColumnContract(kind="integer", minimum=10_000, maximum=99_998),
        "email": ColumnContract(pattern=EMAIL),
        "country": ColumnContract(domain=COUNTRIES),
        "currency": ColumnContract(domain=CURRENCIES),
        "amount": ColumnContract(kind="decimal", minimum=0.5, maximum=500.0),
        "quantity": ColumnContract(kind="integer", minimum=1),
        "ordered": ColumnContract(kind="date", minimum="2024-01-02"),
        "postcode": ColumnContract(),
        "city": ColumnContract(max_length=30),
        "status": ColumnContract(domain=STATES),
        **{name: ColumnContract() for name in ("sku", "weight", "phone", "note", "channel")},
    },
)


def orders(rows: int, seed: int, first: int = 0) -> pl.DataFrame:
    """Return orders as texts; about one in twenty-five breaks a rule, one in a hundred is ``eur``.

    Args:
        rows: How many.
        seed: Of all values but the ids.
        first: Number of the first id.
    """
    rng = np.random.default_rng(seed)

    def drawn(values: list[str], shares: list[float] | None = None) -> pl.Series:
        return pl.Series(values).gather(rng.choice(len(values), rows, p=shares).astype(np.uint32))

    def number(low: int, high: int) -> pl.Series:
        return pl.Series(rng.integers(low, high, rows)).cast(pl.String)

    days = np.datetime64("2024-01-01") + rng.integers(0, 700, rows).astype("timedelta64[D]")
    return pl.DataFrame(
        {
            "order_id": order_ids(rows, first),
            "customer": number(10_000, 99_999),
            "email": number(0, 300_000) + "@example.org",
            "country": drawn([*COUNTRIES, "XX"], [0.3, 0.2, 0.2, 0.1, 0.1, 0.09, 0.01]),
            "currency": drawn([*CURRENCIES, "eur"], [0.8, 0.1, 0.09, 0.01]),
            "amount": pl.Series(rng.gamma(2, 40, rows).round(2)).cast(pl.String),
            "quantity": number(0, 100),
            "ordered": pl.Series(days).cast(pl.String),
            "postcode": number(1_000, 99_999),
            "city": drawn([f"City number {k}" for k in range(500)]),
            "status": drawn([*STATES, "lost?"], [0.2, 0.3, 0.3, 0.19, 0.01]),
            "sku": number(100, 999) + "-" + number(1_000, 9_999),
            "weight": pl.Series(rng.gamma(2, 2, rows).round(3)).cast(pl.String),
            "phone": "+49" + number(10**8, 10**9),
            "note": drawn(["-", "call first", "leave at door", "gift", "fragile, two hands"]),
            "channel": drawn(["web", "shop", "app"]),
        }
    )


def order_ids(rows: int, first: int) -> pl.Series:
    """Return ids, one for each row."""
    return "A" + pl.Series(np.arange(first, first + rows)).cast(pl.String).str.zfill(9)


def by_hand() -> dict[str, pl.Expr]:
    """Return the contract's rules as somebody who knows Polars writes them; true is broken."""
    col = pl.col

    def number(name: str) -> pl.Expr:
        return col(name).cast(pl.Float64, strict=False)

    def whole(name: str) -> pl.Expr:
        return col(name).cast(pl.Int64, strict=False)

    day = col("ordered").str.to_date("%Y-%m-%d", strict=False)
    return {
        "nullable:order_id": col("order_id").is_null(),
        "pattern:order_id": ~col("order_id").str.contains("^A[0-9]{9}$"),
        "kind:customer": col("customer").is_not_null() & whole("customer").is_null(),
        "minimum:customer": whole("customer") < 10_000,
        "maximum:customer": whole("customer") > 99_998,
        "pattern:email": ~col("email").str.contains(f"^{EMAIL}$"),
        "domain:country": ~col("country").is_in(COUNTRIES),
        "domain:currency": ~col("currency").is_in(CURRENCIES),
        "kind:amount": col("amount").is_not_null() & number("amount").is_null(),
        "minimum:amount": number("amount") < 0.5,
        "maximum:amount": number("amount") > 500,
        "kind:quantity": col("quantity").is_not_null() & whole("quantity").is_null(),
        "minimum:quantity": whole("quantity") < 1,
        "kind:ordered": col("ordered").is_not_null() & day.is_null(),
        "minimum:ordered": day < pl.date(2024, 1, 2),
        "max_length:city": col("city").str.len_chars() > 30,
        "domain:status": ~col("status").is_in(STATES),
    }


def pandera_schema() -> Any:
    """Return the same rules for pandera on pandas."""
    import pandas as pd
    import pandera.pandas as pa

    check, column = pa.Check, pa.Column

    def between(low: float | None, high: float | None) -> Any:
        def good(texts: pd.Series) -> pd.Series:
            number = pd.to_numeric(texts, errors="coerce")
            return number.between(-np.inf if low is None else low, np.inf if high is None else high)

        return check(good, name=f"{low}..{high}")

    whole = check.str_matches("[+-]?[0-9]{1,18}$")
    day = check(
        lambda texts: (
            pd.to_datetime(texts, format="%Y-%m-%d", errors="coerce") >= pd.Timestamp("2024-01-02")
        ),
        name="day",
    )
    return pa.DataFrameSchema(
        {
            "order_id": column(str, check.str_matches("A[0-9]{9}$"), nullable=False),
            "customer": column(str, [whole, between(10_000, 99_998)]),
            "email": column(str, check.str_matches(f"{EMAIL}$")),
            "country": column(str, check.isin(COUNTRIES)),
            "currency": column(str, check.isin(CURRENCIES)),
            "amount": column(str, between(0.5, 500.0)),
            "quantity": column(str, [whole, between(1, None)]),
            "ordered": column(str, day),
            "city": column(str, check.str_length(max_value=30)),
            "status": column(str, check.isin(STATES)),
        }
    )
