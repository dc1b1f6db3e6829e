"""Duplicates: rows of one person found within a table and between two, without any label.

Three public sets with known truth: febrl 4 (5,000 people in two tables), fake_1000 (250 people) and
50,000 rows of historical figures. Nothing is fitted to the truth or chosen by it; which column is a
name and which a date is told. Comparisons, thresholds and blocking are the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from tasks.cleaning.duplicates.clusters import components
from tasks.cleaning.duplicates.comparison import Comparison
from tasks.cleaning.duplicates.infer import infer_comparisons
from tasks.cleaning.duplicates.linkage import (
    Linkage,
    Pairs,
    duplicates_among,
    find_duplicates,
    find_links,
    score_pairs,
)
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table
from tests.benchmarks._people import PEOPLE, people

Rows = NDArray[np.int64]
ROOT = Path(__file__).resolve().parents[2]
PROMISES = (0.9, 0.95, 0.99, 0.999)
DRAWS = 2_000


def linkage(swapped: tuple[str, str], **kinds: Any) -> Linkage:
    """Return the default linkage of columns by their kinds."""
    return Linkage(tuple(Comparison(name, kind) for name, kind in kinds.items()), swapped=swapped)


FEBRL = linkage(
    ("given_name", "surname"), given_name="name", surname="name", street_number="text",
    address_1="text", address_2="text", suburb="text", postcode="text", state="exact",
    date_of_birth="date", soc_sec_id="text",
)  # fmt: skip
FAKE = linkage(
    ("first_name", "surname"), first_name="name", surname="name", dob="date", city="text",
    email="text",
)  # fmt: skip
HISTORICAL = linkage(
    ("first_name", "surname"), first_name="name", surname="name", dob="date",
    postcode_fake="text", birth_place="text", occupation="exact",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """Rows and who they are: int64 [rows]."""

    frame: pl.DataFrame
    who: Rows
    linkage: Linkage


def codes(column: pl.Series) -> Rows:
    """Return int64 codes of texts."""
    return np.unique(column.to_numpy(), return_inverse=True)[1].astype(np.int64)


def pairs_within(group: Rows) -> int:
    """Return how many pairs of rows are in one group."""
    n = np.bincount(group).astype(np.int64)
    return int((n * (n - 1) // 2).sum())


def joint(a: Rows, b: Rows) -> Rows:
    """Return codes of the rows alike in both."""
    return np.unique(a * (int(b.max()) + 1) + b, return_inverse=True)[1].astype(np.int64)


def figures(hit: float, found: float, true: float) -> dict[str, float]:
    """Return precision, recall and F1 of pairs."""
    return {
        "p": hit / found if found else 1.0,
        "r": hit / true if true else 1.0,
        "f1": 2 * hit / (found + true) if found + true else 1.0,
    }


def of_groups(entity: Rows, who: Rows) -> dict[str, float]:
    """Return precision, recall and F1 of all pairs that are one entity."""
    hit = pairs_within(joint(entity, who))
    return figures(hit, pairs_within(entity), pairs_within(who))


def interval(entity: Rows, who: Rows, seed: int) -> tuple[float, float]:
    """Return the 95 % interval of F1 over draws of true entities.

    A pair counts half for each of its rows.
    """
    person = np.unique(who, return_inverse=True)[1]
    parts = []
    for group in (joint(entity, who), entity, who):
        others = np.bincount(group)[group] - 1
        parts.append(np.bincount(person, others / 2))
    per_person = np.stack(parts)  # [3, people]
    draw = np.random.default_rng(seed)
    n = per_person.shape[1]
    f1 = []
    for _ in range(DRAWS):
        hit, found, true = (per_person * draw.multinomial(n, np.full(n, 1 / n))).sum(1)
        f1.append(figures(hit, found, true)["f1"])
    low, high = np.quantile(f1, (0.025, 0.975))
    return float(low), float(high)


def link(name: str, left: Table, right: Table, seed: int) -> dict[str, Any]:
    """Link two tables and return the keys of the benchmark."""
    with stopwatch() as took:
        found = find_links(left.frame, right.frame, left.linkage)
    rows = left.frame.height
    entity = np.arange(rows + right.frame.height)
    entity[rows + found.right] = found.left
    who = np.concatenate([left.who, right.who])
    low, high = interval(entity, who, seed)
    keys = {
        **of_groups(entity, who), "f1_low": low, "f1_high": high,
        "seconds": took.wall, "cpu_seconds": took.cpu, "expected_p": found.promise.precision,
    }  # fmt: skip
    return {f"{name}_{key}": value for key, value in keys.items()}


def within(name: str, one: Table, seed: int) -> tuple[dict[str, Any], list[list[Any]]]:
    """Find the duplicates of a table; return keys and rows of the table of promises."""
    with stopwatch() as took:
        pairs = score_pairs(one.frame, None, one.linkage)
        found = duplicates_among(pairs, one.frame.height, one.linkage)
    low, high = interval(found.entity, one.who, seed)
    same = one.who[pairs.left] == one.who[pairs.right]
    chosen = pairs.odds >= found.promise.log_odds
    true = pairs_within(one.who)
    simple = components(one.frame.height, pairs.left[chosen], pairs.right[chosen])
    keys = {
        **of_groups(found.entity, one.who), "f1_low": low, "f1_high": high,
        "seconds": took.wall, "cpu_seconds": took.cpu,
        "pairs": len(pairs.odds), "blocking_r": int(same.sum()) / true,
        "unclustered_f1": figures(int((same & chosen).sum()), int(chosen.sum()), true)["f1"],
        "components_f1": of_groups(simple, one.who)["f1"],
    }  # fmt: skip
    rows = [[name, *row] for row in promises(one, pairs, same)]
    return {f"{name}_{key}": value for key, value in keys.items()}, rows


def promises(one: Table, pairs: Pairs, same: NDArray[np.bool_]) -> list[list[Any]]:
    """Return promised, expected and true precision of pairs, and precision and recall of groups."""
    rows: list[list[Any]] = []
    for promised in PROMISES:
        found = duplicates_among(pairs, len(one.who), replace(one.linkage, precision=promised))
        chosen = pairs.odds >= found.promise.log_odds
        right = float(same[chosen].mean()) if chosen.any() else 1.0
        groups = of_groups(found.entity, one.who)
        rows.append([promised, found.promise.precision, right, groups["p"], groups["r"]])
    return rows


def harm(one: Table, seeds: Sequence[int]) -> tuple[float, int]:
    """Return the share of rows merged where nothing is a duplicate: mean and most rows.

    Every seed draws one row of each entity.
    """
    merged, n = [], 0
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(one.frame.height)
        rows = order[np.unique(one.who[order], return_index=True)[1]]
        n = len(rows)
        merged.append(int(find_duplicates(one.frame[rows], one.linkage).merged.sum()))
    return float(np.mean(merged)) / n, max(merged)


def read(folder: Path) -> tuple[Table, Table, Table, Table]:
    """Read febrl 4a and 4b, fake_1000 and the historical figures.

    Raises:
        SystemExit: If a file is missing.
    """
    try:
        febrl = [
            pl.read_csv(folder / f"dataset4{part}.csv", infer_schema=False).rename(str.strip)
            for part in "ab"
        ]
        fake = pl.read_csv(folder / "fake_1000.csv", infer_schema=False)
        old = pl.read_parquet(folder / "historical_figures_with_errors_50k.parquet")
    except FileNotFoundError as error:
        raise SystemExit(f"{error}: name the folder of the splink data sets with --data") from error
    numbers = [its["rec_id"].str.extract(r"(\d+)").cast(pl.Int64).to_numpy() for its in febrl]
    first, second = (Table(a, b, FEBRL) for a, b in zip(febrl, numbers, strict=True))
    return (
        first,
        second,
        Table(fake, codes(fake["cluster"]), FAKE),
        Table(old, codes(old["cluster"]), HISTORICAL),
    )


def made_up(seed: int) -> tuple[Table, Table, Table, Table]:
    """Return small tables of the same shape."""
    one, who = people(200, 1, seed)
    first = np.zeros(len(who), bool)
    first[np.unique(who, return_index=True)[1]] = True
    left = Table(one.filter(pl.Series(first)), who[first], PEOPLE)
    right = Table(one.filter(pl.Series(~first)), who[~first], PEOPLE)
    return left, right, *(Table(*people(120, n, seed + n), PEOPLE) for n in (4, 6))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("dedup", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder of the splink data sets")
    args = made.parse_args(argv)
    default = Path(os.environ.get("PENSTOCK_DATA", ROOT.parent / "shared" / "data"))
    folder = args.data or default / "cleaning" / "splink"
    left, right, fake, old = made_up(args.seed) if args.smoke else read(folder)

    result = link("febrl4", left, right, args.seed)
    promised: list[list[Any]] = []
    for name, one in (("fake1000", fake), ("historical", old)):
        keys, rows = within(name, one, args.seed)
        result |= keys
        promised += rows
    inferred = replace(
        fake.linkage,
        comparisons=infer_comparisons(fake.frame.drop("cluster", strict=False)),
        swapped=None,
    )
    found = find_duplicates(fake.frame, inferred)
    result["fake1000_inferred_f1"] = of_groups(found.entity, fake.who)["f1"]
    result["febrl4_harm"] = harm(left, [args.seed])[0]
    seeds = range(args.seed, args.seed + (2 if args.smoke else 10))
    for name, one in (("fake1000", fake), ("historical", old)):
        result[f"{name}_harm"], result[f"{name}_harm_most"] = harm(one, seeds)
    result["promises"] = promised
    result["peak_gib"] = peak_gib()
    shown = ("p", "r", "f1", "f1_low", "f1_high", "seconds")
    table(
        "dedup: pairs of rows that are one entity",
        ("set", "precision", "recall", "F1", "95 % from", "to", "seconds"),
        [
            [name, *(result[f"{name}_{key}"] for key in shown)]
            for name in ("febrl4", "fake1000", "historical")
        ],
    )
    table(
        "dedup: promised precision",
        ("set", "promised", "expected", "true, pairs", "true, groups", "recall, groups"),
        promised,
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("dedup", main)
