"""Jobs of the stream's Java module in the test run's own JVM: files in, files out."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

COLUMNS = (
    "event_id BIGINT, event_name STRING, `time` BIGINT, amount BIGINT, late BOOLEAN, model STRING, "
    "rules STRING, review_at DOUBLE, block_at DOUBLE, listed BOOLEAN, `numeric` BYTES, "
    "categorical STRING, keys BYTES, state BYTES, mail BYTES"
)


def table_environment(options: Mapping[str, str]) -> tuple[Any, Any]:
    """Return the environments of one job, of streams and of tables."""
    from pyflink.common import Configuration
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from infra.jars import connector_jars, stream_jar

    config = Configuration()
    chosen = {
        "parallelism.default": "2",
        "rest.port": "0",
        "pipeline.jars": ";".join(path.as_uri() for path in (stream_jar(), *connector_jars())),
        "pipeline.object-reuse": "true",
        "restart-strategy.type": "none",
    }
    for key, value in (chosen | dict(options)).items():
        config.set_string(key, value)
    with pytest.MonkeyPatch.context() as patch:
        # Else PyFlink starts a server for Python functions in this process.
        patch.setenv("_python_worker_execution_mode", "process")
        environment = StreamExecutionEnvironment.get_execution_environment(config)
        return environment, StreamTableEnvironment.create(environment)


def start_job(
    gateway: Any, config: Mapping[str, Any], results: Path, options: Mapping[str, str] | None = None
) -> Any:
    """Start a job whose result rows go to files of JSON in ``results``; return its client."""
    from pyflink.table import Table

    environment, tables = table_environment(options or {})
    build = gateway.jvm.io.penstock.stream.Pipeline.build
    rows = Table(build(tables._j_tenv, json.dumps(config)), tables)
    tables.execute_sql(
        f"CREATE TABLE results ({COLUMNS}) WITH "
        f"('connector' = 'filesystem', 'path' = '{results}', 'format' = 'json', "
        "'sink.rolling-policy.rollover-interval' = '200 ms', "
        "'sink.rolling-policy.check-interval' = '100 ms')"
    )
    statements = tables.create_statement_set()
    statements.add_insert("results", rows)
    statements.attach_as_datastream()
    return environment.execute_async("stream")


@contextmanager
def running_job(
    gateway: Any, config: Mapping[str, Any], results: Path, options: Mapping[str, str]
) -> Iterator[Any]:
    """Start a job without end; it is cancelled afterwards if it still runs."""
    from py4j.protocol import Py4JJavaError

    job = start_job(gateway, config, results, options)
    try:
        yield job
    finally:
        with suppress(Py4JJavaError):  # a job that has stopped took its cluster with it
            job.cancel().result()


def run_job(
    gateway: Any, config: Mapping[str, Any], results: Path, options: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Run a bounded job to its end and return its result rows."""
    start_job(gateway, config, results, options).get_job_execution_result().result()
    return read_results(results)


def stop_with_savepoint(gateway: Any, job: Any, folder: Path) -> str:
    """Stop a job and return where its savepoint lies.

    ``JobClient.stop_with_savepoint`` of PyFlink 2.3 calls a method that Flink no longer has.
    """
    form = gateway.jvm.org.apache.flink.core.execution.SavepointFormatType.CANONICAL
    return str(job._j_job_client.stopWithSavepoint(False, folder.as_uri(), form).get())


def read_results(folder: Path) -> list[dict[str, Any]]:
    """Return the committed result rows, bytes decoded."""
    rows = list(read_lines(folder))
    for row in rows:
        for name in ("numeric", "keys", "state", "mail"):
            row[name] = None if row[name] is None else base64.b64decode(row[name])
    return rows


def read_lines(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of all committed files of JSON lines."""
    for path in committed(folder):
        for line in path.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def committed(folder: Path) -> list[Path]:
    """Return the files a sink has committed."""
    return sorted(p for p in folder.rglob("part-*") if p.is_file() and ".inprogress" not in p.name)


def read_upserts(folder: Path) -> dict[tuple[str, str, int], bytes]:
    """Return the newest value by (kind, id, part)."""
    newest: dict[tuple[str, str, int], bytes] = {}
    for path in committed(folder):
        for key, value in split_upserts(path.read_bytes()):
            old = newest.get(key)
            if old is None or version_of(value) > version_of(old):
                newest[key] = value
    return newest


def split_upserts(raw: bytes) -> Iterator[tuple[tuple[str, str, int], bytes]]:
    """Yield key (kind, id, part) and value of every upsert."""
    at = 0
    while at < len(raw):
        parts = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", raw, at)
            parts.append(raw[at + 4 : at + 4 + length])
            at += 4 + length
        kind, entity = parts[0][:-2].split(b"\0")
        yield (kind.decode(), entity.decode(), parts[0][-1]), parts[1]


def version_of(value: bytes) -> int:
    """Return the version of an upsert."""
    return int(struct.unpack_from("<Q", value, 8)[0])


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write JSON lines and move them in whole, as a monitored folder needs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    draft = path.parent.parent / f"{path.parent.name}-{path.name}"
    draft.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    draft.rename(path)
