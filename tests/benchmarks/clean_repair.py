"""Clean-repair: cells found and put right, and correct cells harmed, against a table's truth.

``--data`` names a folder with ``dirty.csv`` and ``clean.csv``: the same rows in the same order,
compared as texts, column by column whatever their names. The truth is read after the repair and
used for counting only. Without ``--contract`` the contract is inferred from the dirty table alone.
Without ``--data`` a small made-up register of firms is spoilt and repaired.

``--labels N`` asks for labelled rows as well: which one next is chosen by what is uncertain, and
the truth is read of the rows asked for and no others. Errors found and put right are counted over
all cells (``detect_f1_K``) and over rows that were never asked for (``detect_f1_rest_K``). Half of
the rows, drawn by the seed, may be asked for, so that seeds differ; rows drawn by chance from the
same half are the baseline (``random_``). Without labels the figures are those of the repair alone.

An error is a cell whose dirty text is not the true one; precision is over all cells written, recall
over all errors, and harm over the cells that were right. Published end-to-end figures stand in
docs/benchmarks.md; nobody publishes harm.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import polars as pl

from tasks.cleaning.active.learner import Cells, LabelledRows, cells_of, next_row, probabilities
from tasks.cleaning.active.repair import repair_by_labels
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

    before, after, right = (
        frame.select(pl.all().fill_null("")).to_numpy() for frame in (dirty, done.frame, truth)
    )
    return counts(before, after, right, before != after) | {
        "promised_harm": done.promised_harm,
        "for_review": done.review.height,
    }


def counts(
    before: np.ndarray, after: np.ndarray, right: np.ndarray, flagged: np.ndarray
) -> dict[str, float]:
    """Count errors found, put right and harm, given texts [rows, columns] and the cells flagged."""
    written, wrong = before != after, before != right
    mended = written & (after == right)

    def f1(p: float, r: float) -> float:
        return 2 * p * r / max(p + r, 1e-12)

    found = flagged & wrong
    detect_p, detect_r = found.sum() / max(flagged.sum(), 1), found.sum() / max(wrong.sum(), 1)
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
    }


STEPS = (0, 5, 10, 20, 40)
SHOWN = ("detect_f1_", "repair_f1_", "harm_cells_", "promise_kept_", "random_detect_f1_rest_")
"""Figures of the curve that stand beside the others; all of them are in ``curve``."""


@dataclass(frozen=True, slots=True)
class Curve:
    """What labels are measured on.

    Attributes:
        dirty: The table as it came, empty cells missing.
        truth: The right texts, likewise; read of labelled rows only, else to count.
        contract: What the repair works by.
        done: The repair without labels.
        cells: What the learner knows of it.
        config: How far repairs go.
    """

    dirty: pl.DataFrame
    truth: pl.DataFrame
    contract: Contract
    done: Repaired
    cells: Cells
    config: RepairConfig

    def told(self, rows: Sequence[int]) -> LabelledRows:
        """Return the truth of the rows that were asked for."""
        return LabelledRows(np.array(rows, np.int64), self.truth[list(rows)])

    def run(self, seed: int, steps: Sequence[int], *, chosen: bool) -> dict[int, dict[str, float]]:
        """Ask for rows one by one; return the figures at every step.

        Args:
            seed: Of the half of the rows that may be asked for, and of rows drawn by chance.
            steps: Numbers of labelled rows that are measured, rising.
            chosen: Whether the next row is chosen, or drawn by chance.
        """
        order = np.random.default_rng(seed).permutation(self.dirty.height)
        among, rows, found = order[: (self.dirty.height + 1) // 2], list[int](), {}
        for number in range(min(steps[-1], len(among)) + 1):
            if number in steps:
                found[number] = self.figures(rows)
            if number < len(among):
                labelled = np.array(rows, np.int64)
                rows.append(
                    next_row(probabilities(self.cells, self.told(rows)), labelled, among)
                    if chosen
                    else int(among[number])
                )
        return found

    def figures(self, rows: Sequence[int]) -> dict[str, float]:
        """Return the figures with labels of some rows, over all cells and over the other rows."""
        told = self.told(rows)
        done = repair_by_labels(self.dirty, self.done, self.contract, told, self.config, self.cells)
        before, after, right = (
            f.select(pl.all().fill_null("")).to_numpy()
            for f in (self.dirty, done.frame, self.truth)
        )
        flagged = before != after
        if rows:
            flagged = probabilities(self.cells, told) > 0.5
        others = ~np.isin(np.arange(len(before)), rows)
        result = {"promised_harm": done.promised_harm}
        for suffix, kept in (("", np.ones(len(before), bool)), ("_rest", others)):
            counted = counts(before[kept], after[kept], right[kept], flagged[kept])
            names = ("detect_p", "detect_r", "detect_f1", "repair_p", "repair_r", "repair_f1",
                     "harm_cells", "harm_rate")  # fmt: skip
            result |= {f"{name}{suffix}": counted[name] for name in names}
        return result


def curve(task: Curve, labels: int, seeds: int) -> dict[str, float]:
    """Return mean and standard deviation over seeds of every figure at every number of labels."""
    steps = [k for k in STEPS if k < labels] + [labels]
    result: dict[str, float] = {}
    for way, chosen in (("", True), ("random_", False)):
        runs = [task.run(seed, steps, chosen=chosen) for seed in range(seeds)]
        for k in steps:
            for name in runs[0][k]:
                values = [run[k][name] for run in runs]
                result[f"{way}{name}_{k}"] = mean(values)
                result[f"{way}{name}_{k}_sd"] = stdev(values) if seeds > 1 else 0.0
            kept = [run[k]["harm_rate"] <= run[k]["promised_harm"] for run in runs]
            result[f"{way}promise_kept_{k}"] = mean(kept)
    return result


def show_curve(result: Mapping[str, float], labels: int, seeds: int) -> None:
    """Print the curve as a table."""
    names = ("detect_f1_rest", "repair_f1_rest", "detect_f1", "repair_f1", "harm_cells")
    steps = [k for k in STEPS if k < labels] + [labels]
    table(
        f"with labelled rows, mean (standard deviation) of {seeds} seeds",
        ("figure", *(str(k) for k in steps)),
        [
            (f"{way}{name}", *(
                f"{result[f'{way}{name}_{k}']:.4f} ({result[f'{way}{name}_{k}_sd']:.4f})"
                for k in steps
            ))
            for way in ("", "random_")
            for name in names
        ],
    )  # fmt: skip


def contract_for(dirty: pl.DataFrame, path: Path | None) -> Contract:
    """Return a declared contract, or the one that the dirty table shows."""
    return infer(dirty, "inferred") if path is None else read_contract(path)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    made = parser("clean-repair", __doc__.splitlines()[0])
    made.add_argument("--data", type=Path, help="folder with dirty.csv and clean.csv")
    made.add_argument("--contract", type=Path, help="declared contract (default: inferred)")
    made.add_argument("--alpha", type=float, default=RepairConfig().alpha, help="bound on harm")
    made.add_argument("--labels", type=int, default=0, help="labelled rows asked for at most")
    made.add_argument("--seeds", type=int, default=10, help="runs of the curve (default 10)")
    return made.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    args = parse(argv)
    if args.data is None:
        dirty, truth = made_up(400 if args.smoke else 20_000, args.seed)
    else:
        dirty, truth = read_pair(args.data)
    config = RepairConfig(alpha=args.alpha)
    with stopwatch() as taken:
        contract = contract_for(dirty, args.contract)
        done = repair(dirty, contract, config)
    result: dict[str, Any] = {
        **figures(dirty, done, truth),
        "seconds": taken.wall,
        "cpu_seconds": taken.cpu,
    }
    table(
        f"repair of {dirty.height:,} rows of {dirty.width} columns",
        ("figure", "value"),
        [(name, f"{value:,.4g}") for name, value in result.items()],
    )
    if args.labels:
        labels, seeds = (6, 2) if args.smoke else (args.labels, args.seeds)
        with stopwatch() as taken:
            task = Curve(dirty, truth, contract, done, cells_of(dirty, done, contract), config)
            found = curve(task, labels, seeds)
        result |= {"seeds": seeds, "curve_cpu_seconds": taken.cpu, "curve": found}
        result |= {name: value for name, value in found.items() if name.startswith(SHOWN)}
        show_curve(found, labels, seeds)
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-repair", main)
