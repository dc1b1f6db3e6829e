"""How fast simulated transactions reach a Parquet file, in one process on one core."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from connectors.files import write_parquet_stream
from tasks.fraud.simulate import (
    CARDS_SCHEMA,
    TRANSFERS_SCHEMA,
    CardsConfig,
    Drift,
    TransfersConfig,
    simulate_cards,
    simulate_transfers,
)
from tests.benchmarks._harness import emit, parser, peak_gib, run_program, stopwatch, table

TARGET = 300_000


@dataclass(frozen=True, slots=True)
class Case:
    """One stream to write.

    Attributes:
        name: Row of the table.
        schema: Columns of the stream.
        batches: Starts the stream anew.
    """

    name: str
    schema: pa.Schema
    batches: Callable[[], Iterator[pa.RecordBatch]]


def _cases(seed: int, *, smoke: bool) -> list[Case]:
    days = 40 if smoke else 157
    bank = CardsConfig(days=days, seed=seed)
    drifting = CardsConfig(days=days, seed=seed, drift=Drift(start_day=10))
    network = TransfersConfig(days=50 if smoke else 120, seed=seed)
    cases = [
        Case("cards", CARDS_SCHEMA, partial(simulate_cards, bank)),
        Case("cards, drift", CARDS_SCHEMA, partial(simulate_cards, drifting)),
        Case("transfers", TRANSFERS_SCHEMA, partial(simulate_transfers, network)),
    ]
    if not smoke:
        large = CardsConfig(cards=200_000, terminals=100_000, days=40, seed=seed)
        cases.append(Case("200,000 cards", CARDS_SCHEMA, partial(simulate_cards, large)))
    return cases


def _measure(case: Case, path: Path, repeats: int) -> dict[str, Any]:
    runs = []
    for _ in range(repeats):
        with stopwatch() as spent:
            written = write_parquet_stream(path, case.schema, case.batches())
        runs.append(spent)
    wall, cpu = min(run.wall for run in runs), min(run.cpu for run in runs)
    return {
        "tx": written,
        "wall_s": wall,
        "cpu_s": cpu,
        "tx_per_s": written / wall,
        "tx_per_cpu_s": written / cpu,
        "bytes_per_tx": path.stat().st_size / written,
        "peak_gib": peak_gib(),
    }


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark; ``tx_per_s`` is that of the plain card stream, wall clock."""
    arguments = parser("simulate", "Transactions per second, generation and Parquet writing.")
    arguments.add_argument("--repeats", type=int, default=3, help="runs; the fastest counts")
    args = arguments.parse_args(argv)
    repeats = 1 if args.smoke else max(args.repeats, 1)
    pa.set_cpu_count(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tx.parquet"
        rows = {
            case.name: _measure(case, path, repeats) for case in _cases(args.seed, smoke=args.smoke)
        }
    shown = ("tx", "wall_s", "cpu_s", "tx_per_s", "tx_per_cpu_s")
    table(
        "Simulated transactions written to Parquet",
        ["stream", *shown],
        [[name, *(row[column] for column in shown)] for name, row in rows.items()],
        note=f"fastest of {repeats}; target: {TARGET:,} tx/s; peak {peak_gib():.2f} GiB",
    )
    plain = rows["cards"]
    emit(
        {
            "tx_per_s": plain["tx_per_s"],
            "tx_per_cpu_s": plain["tx_per_cpu_s"],
            "target_tx_per_s": TARGET,
            "rows": rows,
        },
        args,
    )
    return 0


if __name__ == "__main__":
    run_program("simulate", main)
