"""The stream's operators on the JVM: two entities x three windows, delayed labels, against SQL.

A row is a transaction; it visits the operator of each entity column, gets the features it sees and
is entered; when its delay is over, its label follows through the same operators. Rows are made up
inside the job and end in a sink that drops them. Flink SQL computes count, sum, minimum and maximum
over the same windows of the same rows (a shorter run of them, which spares it from letting rows go)
as chained OVER aggregates, without labels and without the other features.

CPU seconds are those of the JVM, which holds client and cluster, start of the job included. Every
figure is of the second of two runs in that JVM (the first is shorter). ``rows_per_core_s`` is of
one subtask per operator, ``rows_per_s`` of two.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectors.flink.presets import PRESETS
from connectors.flink.remote import end_client, prepare_client
from infra.jars import stream_jar
from infra.settings import get_settings
from kernels.entity_state.spec import DAY, DEFAULT_WINDOWS
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.kernels.stream_config import stream_config

JVM = "-Xms{heap} -Xmx{heap} -Xmn{young} -XX:+AlwaysPreTouch " + " ".join(
    PRESETS["throughput"].jvm_options
)
AGGREGATES = {"n": "COUNT(*)", "sum": "SUM(amount)", "min": "MIN(amount)", "max": "MAX(amount)"}


@dataclass(frozen=True)
class Measured:
    """What one run cost.

    Attributes:
        rows: Transactions.
        wall: Seconds.
        cpu: CPU seconds of the JVM.
    """

    rows: int
    wall: float
    cpu: float

    @property
    def per_core_s(self) -> float:
        """Rows per CPU second."""
        return self.rows / self.cpu

    @property
    def per_s(self) -> float:
        """Rows per second."""
        return self.rows / self.wall


def table_environment(parallelism: int) -> Any:
    """Return a table environment of its own; its jobs run in this process's JVM."""
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    config = Configuration()
    options = {
        "parallelism.default": str(parallelism),
        "rest.port": "0",
        "pipeline.object-reuse": "true",
        "restart-strategy.type": "none",
        "table.local-time-zone": "UTC",
    }
    for key, value in options.items():
        config.set_string(key, value)
    return StreamTableEnvironment.create(
        StreamExecutionEnvironment.get_execution_environment(config)
    )


def chain_config(rows: int, args: Any) -> str:
    """Return the configuration of the operator chain over made-up rows, as JSON."""
    from tasks.fraud.dataset import find_config

    source = {
        "type": "generate",
        "rows": rows,
        "rows_per_day": args.entities * args.per_day,
        "labelled": args.labelled,
        "entities": [args.entities, max(args.entities // 10, 1)],
    }
    return json.dumps(
        stream_config(
            find_config("handbook"),
            publish_ms=-1,
            batch_rows=PRESETS["throughput"].batch_rows,
            source=source,
        )
    )


def run_chain(rows: int, parallelism: int, args: Any) -> None:
    """Run the operator chain once."""
    from pyflink.java_gateway import get_gateway
    from pyflink.table import Table

    tables = table_environment(parallelism)
    build = get_gateway().jvm.io.penstock.stream.Pipeline.build
    made = Table(build(tables._j_tenv, chain_config(rows, args)), tables)
    tables.execute_sql(
        "CREATE TABLE dropped (event_id BIGINT, state BYTES) WITH ('connector' = 'blackhole')"
    )
    made.select(made.event_id, made.state).execute_insert("dropped").wait()


def run_sql(rows: int, parallelism: int, args: Any) -> None:
    """Run the same windows as chained OVER aggregates, one step per column and window."""
    from pyflink.java_gateway import get_gateway
    from pyflink.table import Table

    tables = table_environment(parallelism)
    build = get_gateway().jvm.io.penstock.stream.Generator.table
    made = Table(build(tables._j_tenv, chain_config(rows, args)), tables)
    names: list[str] = []
    for column in ("c0", "c1"):
        for window in DEFAULT_WINDOWS:
            days = str(window.length // DAY)
            over = (
                f"OVER (PARTITION BY {column} ORDER BY ts RANGE BETWEEN "
                f"INTERVAL '{days}' DAY({len(days)}) PRECEDING AND CURRENT ROW)"
            )
            fresh = {f"{name}_{column}_{window.name}": f for name, f in AGGREGATES.items()}
            added = ", ".join(f"{f} {over} AS {name}" for name, f in fresh.items())
            tables.create_temporary_view(f"step{len(names)}", made)
            made = tables.sql_query(f"SELECT *, {added} FROM step{len(names)}")
            names += fresh
    columns = ", ".join(f"{name} BIGINT" for name in names)
    tables.execute_sql(
        f"CREATE TABLE dropped (id BIGINT, {columns}) WITH ('connector' = 'blackhole')"
    )
    tables.create_temporary_view("last", made)
    chosen = tables.sql_query(f"SELECT id, {', '.join(names)} FROM `last`")
    chosen.execute_insert("dropped").wait()


def jvm_process() -> int:
    """Return the process id of the JVM."""
    from pyflink.java_gateway import get_gateway

    return int(get_gateway().jvm.java.lang.ProcessHandle.current().pid())


def cpu_seconds() -> float:
    """Return user and system seconds of the JVM and of what it started, so far."""
    stat = Path(f"/proc/{jvm_process()}/stat").read_text(encoding="ascii")
    fields = stat.rsplit(")", 1)[1].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def second_run(
    run: Callable[[int, int, Any], None], rows: int, parallelism: int, args: Any
) -> Measured:
    """Run twice, the first time a tenth, and return what the second run cost."""
    if not args.smoke:
        run(max(rows // 10, 1), parallelism, args)
    wall, cpu = time.perf_counter(), cpu_seconds()
    run(rows, parallelism, args)
    return Measured(rows, time.perf_counter() - wall, cpu_seconds() - cpu)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("stream-state", (__doc__ or "").splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="transactions (default 10,000,000)")
    made.add_argument("--sql-rows", type=int, default=0, help="rows of the SQL run (300,000)")
    made.add_argument("--entities", type=int, default=0, help="cards (100,000); terminals: a tenth")
    made.add_argument("--per-day", type=int, default=2, help="transactions of a card in a day")
    made.add_argument("--labelled", type=float, default=1.0, help="share of rows with a label")
    args = made.parse_args(argv)
    rows = args.rows or (20_000 if args.smoke else 10_000_000)
    sql_rows = args.sql_rows or (2_000 if args.smoke else 300_000)
    args.entities = args.entities or (500 if args.smoke else 100_000)
    heap, young = ("1g", "256m") if args.smoke else ("6g", "2g")
    os.environ["JVM_ARGS"] = JVM.format(heap=heap, young=young)
    # On the class path of the JVM, the operators are compiled once for all runs.
    settings = get_settings()
    prepare_client(settings, (stream_jar(),))
    from py4j.protocol import Py4JError

    try:
        one = second_run(run_chain, rows, 1, args)
        two = second_run(run_chain, rows, 2, args)
        sql = second_run(run_sql, sql_rows, 1, args)
    except Py4JError as error:  # its text lies in the JVM, which is about to end
        raise RuntimeError(str(error)) from None
    finally:
        end_client(settings)
    result = {
        "rows": rows,
        "labels": round(max(rows - 7 * args.entities * args.per_day, 0) * args.labelled),
        "rows_per_core_s": one.per_core_s,
        "rows_per_s": two.per_s,
        "sql_over_rows_per_core_s": sql.per_core_s,
        "ratio": one.per_core_s / sql.per_core_s,
        "rows_per_core_s_two_subtasks": two.per_core_s,
        "sql_rows": sql_rows,
    }
    ways = (("operators, 1 subtask", one), ("operators, 2 subtasks", two), ("SQL OVER", sql))
    table(
        "stream state: 2 entities x 3 windows, delayed labels",
        ("way", "rows", "wall s", "CPU s", "rows / s", "rows / core-second"),
        [(name, m.rows, m.wall, m.cpu, m.per_s, m.per_core_s) for name, m in ways],
        note=f"{result['labels']:,} labels came due and went through the same operators",
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("stream-state", main)
