"""Numbers out of texts, and back as the column writes them."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray


def read_numbers(text: pl.Series) -> NDArray[np.float64]:
    """Return float64 [rows]; NaN where there is no finite number."""
    values = text.str.strip_chars().cast(pl.Float64, strict=False).to_numpy().astype(np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def usual_digits(text: pl.Series) -> int:
    """Return how many digits after the point three quarters of a column's numbers have at most."""
    written = text.drop_nulls().str.extract(r"\.(\d+)$", 1).fill_null("").str.len_chars()
    return int(written.quantile(0.75) or 0)


def write_number(value: float, digits: int) -> str:
    """Write a finite number with so many digits after the point, none of them a last zero.

    >>> write_number(2.5049, 2), write_number(-0.001, 2), write_number(1e6, 0)
    ('2.5', '0', '1000000')
    """
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text
