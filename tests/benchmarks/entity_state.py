"""Entity state: features of two entities x three windows with delayed labels, on one core.

A row is a transaction; its card and its terminal are both computed (two runs of the engine). The
rate counts CPU seconds of one thread after one warm-up run of the same size, which compiles the
code and touches the memory. The plain reference and a pandas baseline run on samples of the same
stream. pandas computes exact sliding windows (it has no tile-aligned ones): the transaction side as
``rolling(w)`` per entity and the delayed label side as two rolling sums over events merged with
due labels, without the last-label fields, so it does less work than the engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kernels.entity_state import StateSpec, entity_features
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table

DAY = 86_400_000
SPEC = StateSpec()
Rows = dict[str, NDArray[Any]]


def card_like(n: int, seed: int) -> tuple[Rows, list[tuple[NDArray[np.int32], int]]]:
    """Return rows of about 9,600 a day and per entity (keys [n, 1], number of entities).

    Cards pay 0 to 4 times a day, terminals are drawn evenly; amounts are rounded normal; 1 % of
    the rows are frauds, all labels are known 7 days later, a tenth of them up to 5 days later.
    """
    rng = np.random.default_rng(seed)
    days = max(n / 9_600, 40.0)
    scale = max(n / days / 9_600, 0.002)
    cards, terminals = max(int(5_000 * scale), 2), max(int(10_000 * scale), 2)
    time = 1_522_540_800_000 + np.sort((rng.random(n) * days * DAY).astype(np.int64))
    rate = rng.random(cards)
    card = rng.choice(cards, n, p=rate / rate.sum()).astype(np.int32)
    terminal = rng.integers(0, terminals, n, dtype=np.int32)
    amount = np.maximum(np.abs(rng.normal(5_300, 3_000, n)), 1).astype(np.int64)
    label = (rng.random(n) < 0.01).astype(np.int8)
    late = np.where(rng.random(n) < 0.1, rng.integers(0, 5 * DAY, n), 0)
    rows = {
        "time": time,
        "event_id": np.arange(n),
        "amount": amount,
        "label": label,
        "label_time": time + SPEC.delay + late,
    }
    return rows, [(card[:, None], cards), (terminal[:, None], terminals)]


def engine(rows: Rows, entities: list[tuple[NDArray[np.int32], int]], backend: Any) -> list[Any]:
    """Return the features of every entity column."""
    return [
        entity_features(**rows, keys=keys, spec=SPEC, n_entities=count, backend=backend)[0]
        for keys, count in entities
    ]


def with_pandas(
    rows: Rows, entities: list[tuple[NDArray[np.int32], int]]
) -> list[dict[str, NDArray[Any]]]:
    """Return the windowed features by ``groupby(entity).rolling(window)``, grouped by entity."""
    time, known = pd.to_datetime(rows["time"], unit="ms"), rows["label_time"]
    results = []
    for keys, _ in entities:
        amount = pd.DataFrame({"key": keys[:, 0], "amount": rows["amount"]}, index=time)
        square = amount.assign(amount=amount.amount.astype(float) ** 2)
        due = pd.DataFrame({"key": keys[:, 0], "known": 1.0, "fraud": rows["label"].astype(float)})
        due.index = pd.to_datetime(known, unit="ms")
        ask = pd.DataFrame({"key": keys[:, 0], "known": 0.0, "fraud": 0.0}, index=time)
        merged = pd.concat([due, ask]).sort_index(kind="stable")
        columns: dict[str, Any] = {}
        for window in SPEC.windows:
            width = pd.Timedelta(window.length, "ms")
            rolling = amount.groupby("key").amount.rolling(width)
            columns[f"n_{window.name}"] = rolling.count().to_numpy()
            columns[f"sum_{window.name}"] = rolling.sum().to_numpy()
            columns[f"min_{window.name}"] = rolling.min().to_numpy()
            columns[f"max_{window.name}"] = rolling.max().to_numpy()
            squares = square.groupby("key").amount.rolling(width)
            columns[f"sumsq_{window.name}"] = squares.sum().to_numpy()
            labels = merged.groupby("key")[["known", "fraud"]].rolling(width).sum().to_numpy()
            columns[f"known_{window.name}"], columns[f"frauds_{window.name}"] = labels.T
        columns["gap"] = amount.index.to_series().groupby(keys[:, 0]).diff().to_numpy()
        results.append(columns)
    return results


def head(
    rows: Rows, entities: list[tuple[NDArray[np.int32], int]], n: int
) -> tuple[Rows, list[tuple[NDArray[np.int32], int]]]:
    """Return the first ``n`` rows."""
    return {k: v[:n] for k, v in rows.items()}, [(k[:n], count) for k, count in entities]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("entity-state", __doc__.splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="transactions (default 1,500,000)")
    args = made.parse_args(argv)
    n = args.rows or (20_000 if args.smoke else 1_500_000)
    sample_n, pandas_n = (400, 4_000) if args.smoke else (4_000, 100_000)

    rows, entities = card_like(n, args.seed)
    engine(rows, entities, "cpu")
    times = []
    for _ in range(3):
        with stopwatch() as took:
            engine(rows, entities, "cpu")
        times.append(took)
    fast = min(times, key=lambda t: t.cpu)

    # Few entities with long histories: the reference meets full windows and many known labels.
    sample = card_like(sample_n, args.seed)
    with stopwatch() as slow:
        wanted = engine(*sample, "reference")
    got = engine(*sample, "cpu")
    worst = max(
        float((np.abs(a - b) / np.maximum(np.abs(b), 1)).max())
        for a, b in zip(got, wanted, strict=True)
    )

    pandas_n = min(pandas_n, n)
    some = head(rows, entities, pandas_n)
    with stopwatch() as frame:
        with_pandas(*some)

    result = {
        "rows": n,
        "rows_per_core_s": n / fast.cpu,
        "reference_rows_per_s": sample_n / slow.cpu,
        "pandas_rows_per_core_s": pandas_n / frame.cpu,
        "max_abs_diff": worst,
        "wall_s": fast.wall,
        "cpu_s": fast.cpu,
        "pandas_rows": pandas_n,
        "reference_rows": sample_n,
    }
    table(
        f"entity state: 2 entities x {len(SPEC.windows)} windows, delayed labels",
        ("way", "rows", "CPU s", "wall s", "rows / core-second"),
        [
            ("compiled engine", n, fast.cpu, fast.wall, n / fast.cpu),
            ("pandas rolling", pandas_n, frame.cpu, frame.wall, pandas_n / frame.cpu),
            ("plain reference", sample_n, slow.cpu, slow.wall, sample_n / slow.cpu),
        ],
        note=f"largest relative difference to the reference: {worst:.1e}",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("entity-state", main)
