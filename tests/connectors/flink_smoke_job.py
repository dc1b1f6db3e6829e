"""Submits a small job: Kafka to pandas UDF to Kafka, exactly once; run as a script by the test.

Usage: flink_smoke_job.py NAME SERVERS SOURCE SINK [--restore URI]
"""

from __future__ import annotations

import argparse
import sys

from connectors.flink.remote import (
    JobOptions,
    end_client,
    prepare_client,
    remote_configuration,
    stream_environment,
)
from infra.settings import get_settings


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("name", "servers", "source", "sink"):
        parser.add_argument(name)
    parser.add_argument("--restore", default=None)
    given = parser.parse_args()
    settings = get_settings()
    prepare_client(settings)
    try:
        sys.stdout.write(submit(settings, given))
    finally:
        end_client(settings)


def submit(settings, given) -> str:
    options = JobOptions(given.name, checkpoint_ms=500, restore=given.restore)
    environment = stream_environment(remote_configuration(settings, options))

    from pyflink.table import DataTypes, StreamTableEnvironment
    from pyflink.table.udf import udf

    tables = StreamTableEnvironment.create(environment)
    kafka = (
        f"'connector'='kafka', 'format'='json', 'properties.bootstrap.servers'='{given.servers}'"
    )
    tables.execute_sql(
        f"CREATE TABLE source (id BIGINT) WITH ({kafka}, 'topic'='{given.source}', "
        "'scan.startup.mode'='earliest-offset', 'properties.group.id'='smoke')"
    )
    tables.execute_sql(
        f"CREATE TABLE sink (id BIGINT, score DOUBLE) WITH ({kafka}, 'topic'='{given.sink}', "
        "'sink.delivery-guarantee'='exactly-once', 'sink.transactional-id-prefix'='smoke', "
        "'properties.transaction.timeout.ms'='60000')"
    )

    def double(ids):
        return ids * 2.0

    tables.create_temporary_function(
        "score", udf(double, result_type=DataTypes.DOUBLE(), func_type="pandas")
    )
    job = tables.execute_sql("INSERT INTO sink SELECT id, score(id) FROM source").get_job_client()
    return str(job.get_job_id())


if __name__ == "__main__":
    sys.exit(main())
