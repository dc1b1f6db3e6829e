"""Clean-repair: cells found and put right, and correct cells harmed, against a table's truth.

``--data`` names a folder with ``dirty.csv`` and ``clean.csv``: the same rows in the same order,
compared as texts, column by column whatever their names. The truth is read after the repair and
used for counting only. Without ``--contract`` the contract is inferred from the dirty table alone.
Without ``--data`` a small made-up register of firms is spoilt and repaired.

An error is a cell whose dirty text is not the true one; precision is over all cells written, recall
over all errors, and harm over the cells that were right. Published end-to-end figures stand in
docs/benchmarks.md; nobody publishes harm.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from tasks.cleaning.contract.infer import infer
from tasks.cleaning.contract.model import Contract
from tasks.cleaning.contract.toml import read_contract
from tasks.cleaning.repair.engine import RepairConfig, Repaired, repair
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table


def read_pair(folder: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the dirty and the true table as texts, with the dirty one's names."""
    dirty, truth = (
        pl.read_csv(folder / f"{name}.csv", infer_schema=False) for name in ("dirty", "clean")
    )
    if dirty.shape != truth.shape:
        raise ValueError(f"{folder}: dirty.csv is {dirty.shape}, clean.csv {truth.shape}")
    truth.columns = dirty.columns
    return dirty, truth


def made_up(rows: int, seed: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return a register of firms with typos, units and codes, and its truth."""
    draw = random.Random(seed)
    towns = ["Aldburgh", "Bexhill", "Carlisle", "Dorchester", "Exminster", "Falmouth", "Guildford"]
    firms = [(f"F{i:03}", f"{draw.choice(towns)}", str(draw.randint(10, 900))) for i in range(40)]
    truth = [
        {"firm": f, "town": t, "staff": s, "weight": f"{draw.uniform(1, 90):.1f}"}
        for f, t, s in (draw.choice(firms) for _ in range(rows))
    ]
    dirty = [dict(row) for row in truth]
    for row in dirty:
        if draw.random() < 0.03:
            at = draw.randrange(len(row["town"]))
            row["town"] = f"{row['town'][:at]}x{row['town'][at + 1 :]}"
        if draw.random() < 0.02:
            row["staff"] = "9" + row["staff"]
        row["weight"] += draw.choice([" kg", "kg", " kilo", ""])
    return pl.DataFrame(dirty), pl.DataFrame(truth)


def figures(dirty: pl.DataFrame, done: Repaired, truth: pl.DataFrame) -> dict[str, float]:
    """Count what was found, put right and harmed."""

    def texts(frame: pl.DataFrame) -> np.ndarray:
        return frame.select(pl.all().fill_null("")).to_numpy()

    before, after, right = texts(dirty), texts(done.frame), texts(truth)
    written, wrong = before != after, before != right
    mended = written & (after == right)
    found = written & wrong

    def f1(p: float, r: float) -> float:
        return 2 * p * r / max(p + r, 1e-12)

    detect_p, detect_r = found.sum() / max(written.sum(), 1), found.sum() / max(wrong.sum(), 1)
    p, r = mended.sum() / max(written.sum(), 1), mended.sum() / max(wrong.sum(), 1)
    harm, clean_cells = int((written & ~wrong).sum()), int((~wrong).sum())
    return {
        "errors": int(wrong.sum()),
        "detect_p": float(detect_p),
        "detect_r": float(detect_r),
        "detect_f1": float(f1(detect_p, detect_r)),
        "repair_p": float(p),
        "repair_r": float(r),
        "repair_f1": float(f1(p, r)),
        "harm_cells": harm,
        "clean_cells": clean_cells,
        "harm_rate": harm / max(clean_cells, 1),
        "promised_harm": done.promised_harm,
        "for_review": done.review.height,
    }


def contract_for(dirty: pl.DataFrame, path: Path | None) -> Contract:
    """Return a declared contract, or the one that the dirty table shows."""
    return infer(dirty, "inferred") if path is None else read_contract(path)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    made = parser("clean-repair", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with dirty.csv and clean.csv")
    made.add_argument("--contract", type=Path, help="declared contract (default: inferred)")
    made.add_argument("--alpha", type=float, default=RepairConfig().alpha, help="bound on harm")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parse(argv)
    if args.data is None:
        dirty, truth = made_up(400 if args.smoke else 20_000, args.seed)
    else:
        dirty, truth = read_pair(args.data)
    with stopwatch() as taken:
        contract = contract_for(dirty, args.contract)
        done = repair(dirty, contract, RepairConfig(alpha=args.alpha))
    result = {**figures(dirty, done, truth), "seconds": taken.wall, "cpu_seconds": taken.cpu}
    table(
        f"repair of {dirty.height:,} rows of {dirty.width} columns",
        ("figure", "value"),
        [(name, f"{value:,.4g}") for name, value in result.items()],
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-repair", main)
