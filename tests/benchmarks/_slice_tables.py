"""Made-up tables for clean-slices: scores by group, a class with a hard slice, cells to mask."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.contract.model import ColumnContract, Contract

Floats = NDArray[np.float64]
Mechanism = Literal["mcar", "mar", "mnar"]


def words(rng: np.random.Generator, rows: int, shares: list[float], mark: str) -> list[str]:
    """Return words of a column with given shares."""
    return [f"{mark}{v}" for v in rng.choice(len(shares), rows, p=shares)]


def grouped(rows: int, seed: int, columns: int = 4) -> pl.DataFrame:
    """Return columns of six words each, two of them rare, and a column of numbers."""
    rng = np.random.default_rng(seed)
    shares = [0.45, 0.25, 0.15, 0.1, 0.03, 0.02]
    made = {f"c{i}": words(rng, rows, shares, f"c{i}v") for i in range(columns)}
    return pl.DataFrame(made | {"x": [f"{v:.3f}" for v in rng.normal(size=rows)]})


def planted(frame: pl.DataFrame) -> Floats:
    """Return each row's chance of a bad score: one word and one pair of words are worse."""
    alone = (frame["c0"] == "c0v2").to_numpy()
    pair = ((frame["c1"] == "c1v1") & (frame["c2"] == "c2v2")).to_numpy()
    return np.where(pair, 0.4, np.where(alone, 0.25, 0.1))


@dataclass(frozen=True, slots=True)
class Classes:
    """A table of classes with a rare slice in which another rule holds.

    Attributes:
        frame: Texts: ``machine``, ``tool``, ``speed``, ``load``, ``heat``, ``fails``.
        contract: What rows must be.
    """

    frame: pl.DataFrame
    contract: Contract


def machines(rows: int, seed: int, rare: float = 0.03) -> Classes:
    """Return rows of three machines; on the rare one the rule is another and noise the same."""
    rng = np.random.default_rng(seed)
    machine = rng.choice(["A", "B", "C"], rows, p=[0.6 - rare, 0.4, rare])
    tool = rng.choice(["drill", "mill", "saw"], rows)
    speed, load, heat = rng.normal(50, 10, rows), rng.normal(20, 5, rows), rng.normal(300, 20, rows)
    usual = (speed - 50) / 10 + (load - 20) / 5 + 0.8 * (tool == "mill")
    other = -(speed - 50) / 10 + 1.2 * (heat - 300) / 20 - 0.8 * (tool == "saw")
    score = np.where(machine == "C", other, usual) + rng.logistic(0, 0.5, rows)
    frame = pl.DataFrame(
        {
            "machine": machine,
            "tool": tool,
            "speed": [f"{v:.1f}" for v in speed],
            "load": [f"{v:.2f}" for v in load],
            "heat": [f"{v:.0f}" for v in heat],
            "fails": np.where(score > 0.4, "yes", "no"),
        }
    )
    number = ColumnContract(kind="decimal")
    columns = {
        "machine": ColumnContract(domain=("A", "B", "C")),
        "tool": ColumnContract(domain=("drill", "mill", "saw")),
        "speed": number,
        "load": number,
        "heat": ColumnContract(kind="integer"),
        "fails": ColumnContract(domain=("yes", "no")),
    }
    return Classes(frame, Contract(name="machines", columns=columns))


def to_fill(rows: int, seed: int, uneven: bool) -> tuple[pl.DataFrame, Contract]:
    """Return a table whose columns ``income`` and ``kind`` follow from the others, with noise.

    Args:
        rows: Rows.
        seed: Of the draws.
        uneven: Whether noise depends on age, as missing cells may.
    """
    rng = np.random.default_rng(seed)
    group = rng.choice(["a", "b", "c", "d"], rows, p=[0.4, 0.3, 0.2, 0.1])
    age = rng.normal(40, 12, rows)
    noise = rng.normal(0, 1, rows) * np.where(uneven & (age > 45), 900, 250 if not uneven else 80)
    income = 2_000 + 40 * age + np.where(group == "a", 800, 0) + noise * (1 + (group == "d"))
    old = 1 / (1 + np.exp(-(age - 40) / 4))
    old = np.where(uneven & (age > 45), 0.55, old)
    kind = np.where(rng.random(rows) < old, "old", "new")
    third = np.where(uneven, 0.3 * (age > 45), 0.1)
    kind = np.where(rng.random(rows) < third, "mid", kind)
    frame = pl.DataFrame(
        {
            "group": group,
            "age": [f"{v:.0f}" for v in age],
            "income": [f"{v:.1f}" for v in income],
            "kind": kind,
            "noise": [f"{v:.2f}" for v in rng.normal(size=rows)],
        }
    )
    columns = {
        "group": ColumnContract(),
        "age": ColumnContract(kind="integer"),
        "income": ColumnContract(kind="decimal", impute="review"),
        "kind": ColumnContract(impute="review"),
        "noise": ColumnContract(kind="decimal"),
    }
    return frame, Contract(name="fill", columns=columns)


def masked(
    frame: pl.DataFrame, column: str, how: Mechanism, rng: np.random.Generator, on: str = ""
) -> NDArray[np.bool_]:
    """Return which filled cells of a column are taken away, a fifth or so of them.

    Args:
        frame: Texts.
        column: The column.
        how: At random; more where another column is high; more where the value itself is high.
        rng: Draws.
        on: That other column.
    """
    filled = frame[column].is_not_null().to_numpy()
    if how == "mcar":
        chance = np.full(frame.height, 0.2)
    else:
        name = column if how == "mnar" else on
        rank = frame[name].cast(pl.Float64, strict=False)
        rank = rank if rank.null_count() < frame.height else frame[name].rank("dense")
        high = (rank > float(rank.quantile(0.65) or 0)).fill_null(value=False).to_numpy()
        chance = np.where(high, 0.5, 0.05)
    return filled & (rng.random(frame.height) < chance)


def real_tables(folder: Path) -> dict[str, tuple[pl.DataFrame, Contract, dict[str, str]]]:
    """Return public tables with columns to mask, each with the one that its masks may depend on."""
    wanted: dict[str, dict[str, tuple[str, str]]] = {
        "beers": {"abv": ("decimal", "ounces"), "state": ("text", "ounces")},
        "hospital": {"Condition": ("text", "ZipCode"), "State": ("text", "ZipCode")},
    }
    numbers = {"ounces", "abv", "ibu", "ZipCode", "brewery_id"}
    made = {}
    for name, columns in wanted.items():
        path = folder / name / "clean.csv"
        if not path.is_file():
            continue
        frame = pl.read_csv(path, infer_schema=False)
        frame = frame.drop("index", "id", strict=False)
        lines = {
            one: ColumnContract(
                kind="decimal" if one in numbers else "text",
                impute="review" if one in columns else "",
            )
            for one in frame.columns
        }
        on = {one: other for one, (_, other) in columns.items()}
        made[name] = (frame, Contract(name=name, columns=lines), on)
    return made
