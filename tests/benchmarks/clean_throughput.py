"""Rows a second through a contract: rules alone, with quarantine, cleaned; and 50 million streamed.

Sixteen columns of texts, seventeen rules. *Rules*: verdicts of every rule over a table in memory,
against the same rules written by hand in Polars (three runs each in turn, the best counts) and in
pandera on pandas. *Quarantine*: a Parquet file into clean rows and quarantine, both Parquet on
disk, nothing repaired; by hand: split by Polars' streaming engine with the broken rules' flags.
*Cleaned*: the same with repairs. *Identical*: whether the stream's clean rows, quarantine, changes
and findings are those of the same run over the whole table in memory. *Streamed*: a child process
cleans the long file; its largest resident size counts.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow import parquet

from connectors.cleaning.outputs import published
from connectors.cleaning.run import CHANGES, REVIEW, clean_file
from connectors.cleaning.stream import clean_stream
from tasks.cleaning.clean import CleanConfig
from tasks.cleaning.contract.rules import row_rules
from tasks.cleaning.contract.toml import to_toml
from tasks.cleaning.repair.engine import RepairConfig
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._orders import CONTRACT, by_hand, order_ids, orders, pandera_schema

ROOT = Path(__file__).resolve().parents[2]
TURNS = 3
PANDERA_ROWS = 200_000
MILLION = 1e6
CHILD = """
import atexit, re, runpy, sys
from pathlib import Path
# Not ru_maxrss: that of a child begins with what its parent held when it was started.
told = lambda: print(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
atexit.register(told)
runpy.run_module("flows.cli.main", run_name="__main__", alter_sys=True)
"""
"""Runs a command of Penstock and prints its largest resident size, in KiB, as the last line."""


def best(turns: int, *works: Callable[[], object]) -> list[float]:
    """Return the least seconds of each work, run in turn."""
    least = [float("inf")] * len(works)
    for _ in range(turns):
        for i, work in enumerate(works):
            with stopwatch() as took:
                work()
            least[i] = min(least[i], took.wall)
    return least


def rules_part(frame: pl.DataFrame) -> dict[str, Any]:
    """Return the rates of the rules alone, and whether both ways count the same bad rows."""
    ours = {rule.name: rule.broken for rule in row_rules(CONTRACT)}
    hand = by_hand()

    def counts(rules: dict[str, pl.Expr]) -> pl.DataFrame:
        return frame.lazy().select(e.sum().alias(name) for name, e in rules.items()).collect()

    if not counts(ours).select(sorted(ours)).equals(counts(hand).select(sorted(hand))):
        raise AssertionError("contract and rules by hand find different rows")
    ours_s, hand_s = best(TURNS, lambda: counts(ours), lambda: counts(hand))
    few = frame.head(PANDERA_ROWS).to_pandas()
    schema = pandera_schema()

    def validated() -> None:
        from pandera.errors import SchemaErrors

        try:
            schema.validate(few, lazy=True)
        except SchemaErrors:
            return

    (pandera_s,) = best(1, validated)
    rows = frame.height / MILLION
    return {
        "rules": len(ours),
        "rules_mrows_s": rows / ours_s,
        "polars_mrows_s": rows / hand_s,
        "rules_x_polars": hand_s / ours_s,
        "pandera_pandas_mrows_s": len(few) / MILLION / pandera_s,
    }


def split_by_hand(source: Path, folder: Path) -> None:
    """Split a file by Polars alone; bad rows keep a flag for every rule."""
    hand = by_hand()
    flagged = pl.scan_parquet(source).with_columns(
        e.fill_null(value=False).alias(f"broken:{name}") for name, e in hand.items()
    )
    bad = pl.any_horizontal(f"broken:{name}" for name in hand)
    clean = flagged.filter(~bad).select(list(CONTRACT.columns))
    pl.collect_all(
        [
            flagged.filter(bad).sink_parquet(folder / "bad.parquet", lazy=True),
            clean.sink_parquet(folder / "clean.parquet", lazy=True),
        ],
        engine="streaming",
    )


def quarantine_part(source: Path, rows: int, work: Path, turns: int) -> dict[str, Any]:
    """Return the rates of file to files."""
    check = CleanConfig(repairs=False)
    ours_s, hand_s, cleaned_s = best(
        turns,
        lambda: clean_stream(source, work / "checked", CONTRACT, config=check),
        lambda: split_by_hand(source, work),
        lambda: clean_stream(source, work / "cleaned", CONTRACT),
    )
    found = published(work / "checked")
    assert found is not None
    by_hand_bad = parquet.read_metadata(work / "bad.parquet").num_rows
    if found.rows_quarantined != by_hand_bad:
        raise AssertionError(f"{found.rows_quarantined} rows set aside, {by_hand_bad} by hand")
    return {
        "quarantine_mrows_s": rows / MILLION / ours_s,
        "polars_quarantine_mrows_s": rows / MILLION / hand_s,
        "cleaned_mrows_s": rows / MILLION / cleaned_s,
        "quarantined": found.rows_quarantined,
    }


def identical(source: Path, work: Path) -> bool:
    """Return whether the stream gives what the whole table in memory gives."""
    whole = CleanConfig(repair=RepairConfig(across_rows=False))
    clean_file(source, work / "whole", CONTRACT, config=whole, kind="parquet")
    a, b = published(work / "cleaned", check=True), published(work / "whole", check=True)
    assert a is not None
    assert b is not None
    order = ["row", "column", "rule"]

    def same(one: Path, other: Path, *, sort: bool, without: Sequence[str] = ()) -> bool:
        left, right = (pl.read_parquet(path).drop(without) for path in (one, other))
        return (left.sort(order) if sort else left).equals(right.sort(order) if sort else right)

    return (
        same(a.clean_path, b.clean_path, sort=False)
        and same(a.quarantine_path, b.quarantine_path, sort=False, without=["time"])
        and same(a.attached(CHANGES), b.attached(CHANGES), sort=True, without=["order"])
        and same(a.attached(REVIEW), b.attached(REVIEW), sort=True)
    )


def long_file(path: Path, rows: int, step: int, seed: int) -> None:
    """Write many orders, each with an id of its own, ``step`` at a time."""
    base = orders(step, seed)
    with parquet.ParquetWriter(path, base.to_arrow().schema, compression="zstd") as writer:
        for first in range(0, rows, step):
            part = base.with_columns(order_ids(step, first).alias("order_id"))
            writer.write_table(part.head(rows - first).to_arrow(), row_group_size=1 << 17)


def streamed_part(rows: int, step: int, seed: int, work: Path) -> dict[str, Any]:
    """Return how a process of its own cleans a long file."""
    source, contract = work / "long.parquet", work / "orders.toml"
    long_file(source, rows, step, seed)
    contract.write_text(to_toml(CONTRACT), encoding="utf-8")
    command = [sys.executable, "-c", CHILD, "clean", "run", str(source), "--stream"]
    command += ["--parquet", "--contract", str(contract), "--out", str(work / "long")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with stopwatch() as took:
        child = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = published(work / "long")
    if child.returncode or found is None or found.rows_in != rows:
        raise RuntimeError(f"the stream ended with {child.returncode}: {child.stderr}")
    return {
        "rows_streamed": rows,
        "peak_gib_50m": int(child.stdout.split()[-1]) / 2**20,
        "streamed_mrows_s": rows / MILLION / took.wall,
        "streamed_cpu_seconds": cpu(usage) - cpu(before),
    }


def cpu(usage: resource.struct_rusage) -> float:
    """Return user and system seconds."""
    return usage.ru_utime + usage.ru_stime


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("clean-throughput", __doc__.splitlines()[0])
    made.add_argument("--work", type=Path, help="folder for files of 5 GB [default: temporary]")
    args = made.parse_args(argv)
    rows, long_rows, turns = (20_000, 50_000, 1) if args.smoke else (2_000_000, 50_000_000, TURNS)
    frame = orders(rows, args.seed)
    result = rules_part(frame)
    with tempfile.TemporaryDirectory(dir=args.work) as folder:
        work = Path(folder)
        source = work / "orders.parquet"
        frame.write_parquet(source, row_group_size=1 << 17)
        del frame
        result |= quarantine_part(source, rows, work, turns)
        result |= {"identical": identical(source, work)}
        result |= streamed_part(long_rows, min(rows, long_rows), args.seed, work)
    result |= {"rows": rows, "threads": pl.thread_pool_size()}
    table(
        f"clean-throughput: {rows:,} rows x 16 columns, {result['rules']} rules, M rows/s",
        ("", "contract", "Polars by hand", "pandera on pandas"),
        [
            ("rules", result["rules_mrows_s"], result["polars_mrows_s"],
             result["pandera_pandas_mrows_s"]),
            ("with quarantine", result["quarantine_mrows_s"],
             result["polars_quarantine_mrows_s"], None),
            ("cleaned", result["cleaned_mrows_s"], None, None),
            (f"{long_rows:,} streamed", result["streamed_mrows_s"], None, None),
        ],
        note=f"peak {result['peak_gib_50m']:.2f} GiB; streamed as in memory: {result['identical']}",
    )  # fmt: skip
    emit(result, args)


if __name__ == "__main__":
    run_program("clean-throughput", main)
