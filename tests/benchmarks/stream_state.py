"""The stream's operator chain: two entities x three windows with delayed labels, on the JVM.

A row is a transaction; it visits the operator of each entity column, gets the features it sees and
is entered; when its delay is over its label follows through the same operators. Rows are made up
inside the job and end in a sink that drops them. Flink SQL computes count, sum, minimum and maximum
over the same windows of the same rows as chained OVER aggregates, without labels. CPU seconds are
those of the JVM that holds the whole cluster, compilation included; every figure is of the second
run in a warm JVM.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from typing import Any

from kernels.entity_state import StateSpec
from tests.benchmarks._harness import parser, run_program
from tests.kernels.stream_config import stream_config

WINDOWS = ("1", "7", "30")
COLUMNS = ("event_id", "state")


def environment(parallelism: int) -> Any:
    """Return a table environment of its own, running in this process's JVM."""
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from infra.jars import connector_jars, stream_jar

    config = Configuration()
    options = {
        "parallelism.default": str(parallelism),
        "rest.port": "0",
        "pipeline.jars": ";".join(path.as_uri() for path in (stream_jar(), *connector_jars())),
        "pipeline.object-reuse": "true",
        "restart-strategy.type": "none",
        "taskmanager.memory.network.min": "128mb",
    }
    for key, value in options.items():
        config.set_string(key, value)
    return StreamTableEnvironment.create(
        StreamExecutionEnvironment.get_execution_environment(config)
    )


def chain_config(rows: int, args: Any) -> dict[str, Any]:
    """Return the configuration of the operator chain over made-up rows."""
    from tasks.fraud.dataset import find_config

    entities = [args.entities, max(args.entities // 10, 1)]
    source = {
        "type": "generate",
        "rows": rows,
        "rows_per_day": args.entities * args.per_day,
        "labelled": args.labelled,
        "entities": entities,
    }
    return stream_config(find_config("handbook"), spec=StateSpec(), publish_ms=-1, source=source)


def run_chain(rows: int, parallelism: int, args: Any) -> None:
    """Run the operator chain once."""
    from pyflink.java_gateway import get_gateway
    from pyflink.table import Table

    tables = environment(parallelism)
    config = json.dumps(chain_config(rows, args))
    built = Table(
        get_gateway().jvm.io.penstock.stream.Pipeline.build(tables._j_tenv, config), tables
    )
    tables.execute_sql(
        "CREATE TABLE dropped (event_id BIGINT, state BYTES) WITH ('connector' = 'blackhole')"
    )
    picked = built.select(built.event_id, built.state)
    picked.execute_insert("dropped").wait()


def run_sql(rows: int, args: Any) -> None:
    """Run the same windows as chained OVER aggregates."""
    from pyflink.java_gateway import get_gateway
    from pyflink.table import Table

    tables = environment(1)
    tables.get_config().set("table.local-time-zone", "UTC")
    config = json.dumps(chain_config(rows, args))
    made = Table(
        get_gateway().jvm.io.penstock.stream.Generator.table(tables._j_tenv, config), tables
    )
    tables.create_temporary_view("step0", made)
    names: list[str] = []
    for number, (column, window) in enumerate((c, w) for c in ("c0", "c1") for w in WINDOWS):
        over = f"OVER (PARTITION BY {column} ORDER BY ts RANGE BETWEEN INTERVAL '{window}' DAY({len(window)}) PRECEDING AND CURRENT ROW)"
        fresh = [f"{f}_{column}_{window}" for f in ("n", "s", "lo", "hi")]
        added = ", ".join(
            f"{f} {over} AS {name}"
            for f, name in zip(
                ("COUNT(*)", "SUM(amount)", "MIN(amount)", "MAX(amount)"), fresh, strict=True
            )
        )
        tables.create_temporary_view(
            f"step{number + 1}", tables.sql_query(f"SELECT *, {added} FROM step{number}")
        )
        names += fresh
    columns = ", ".join(f"{name} BIGINT" for name in names)
    tables.execute_sql(
        f"CREATE TABLE dropped (id BIGINT, {columns}) WITH ('connector' = 'blackhole')"
    )
    tables.execute_sql(f"INSERT INTO dropped SELECT id, {', '.join(names)} FROM step6").wait()


def cpu_seconds() -> float:
    """Return user and system seconds of the gateway's JVM and its children so far."""
    from pyflink.java_gateway import get_gateway

    pid = int(get_gateway().jvm.java.lang.ProcessHandle.current().pid())
    with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / os.sysconf("SC_CLK_TCK")


def measured(run: Any, *arguments: Any) -> tuple[float, float]:
    """Return wall and CPU seconds of one run."""
    wall, cpu = time.perf_counter(), cpu_seconds()
    run(*arguments)
    return time.perf_counter() - wall, cpu_seconds() - cpu


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    made = parser("stream-state", __doc__.splitlines()[0])
    made.add_argument("--rows", type=int, default=0, help="transactions (default 5,000,000)")
    made.add_argument("--entities", type=int, default=0, help="cards; a tenth as many terminals")
    made.add_argument("--per-day", type=int, default=2, help="transactions per card and day")
    made.add_argument("--labelled", type=float, default=1.0, help="share of rows that get a label")
    made.add_argument("--sql-rows", type=int, default=0, help="rows of the SQL run")
    args = made.parse_args(argv)
    rows = args.rows or (50_000 if args.smoke else 5_000_000)
    args.entities = args.entities or (1_000 if args.smoke else 100_000)

    os.environ.setdefault("JVM_ARGS", "-Xmx6g")
    from pyflink.util.java_utils import add_jars_to_context_class_loader

    from infra.jars import connector_jars, stream_jar

    environment(1)
    add_jars_to_context_class_loader([p.as_uri() for p in (stream_jar(), *connector_jars())])
    for p in (1, 2):
        for _ in range(2):
            wall, cpu = measured(run_chain, rows, p, args)
            print(
                p,
                rows,
                round(wall, 2),
                round(cpu, 2),
                round(rows / cpu),
                round(rows / wall),
                flush=True,
            )
    if args.sql_rows:
        for _ in range(2):
            wall, cpu = measured(run_sql, args.sql_rows, args)
            print(
                "sql",
                args.sql_rows,
                round(wall, 2),
                round(cpu, 2),
                round(args.sql_rows / cpu),
                flush=True,
            )


if __name__ == "__main__":
    run_program("stream-state", main)
