"""Jobs that ran, as a table: one row each, times in seconds, memory in GiB."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from kernels.scheduling.jobs import Job, Request

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("kind", pa.string()),
        ("arrival_s", pa.float64()),
        ("devices", pa.int64()),
        ("memory_gib", pa.float64()),
        ("estimate_s", pa.float64()),
        ("duration_s", pa.float64()),
        ("utilization", pa.float64()),
    ]
)


def jobs_to_table(jobs: Sequence[Job]) -> pa.Table:
    """Return jobs as a table with the columns of `SCHEMA`."""
    rows = [
        {
            "number": job.request.number,
            "kind": job.request.kind,
            "arrival_s": job.request.arrival,
            "devices": job.request.devices,
            "memory_gib": job.request.memory,
            "estimate_s": job.request.estimate,
            "duration_s": job.duration,
            "utilization": job.utilization,
        }
        for job in jobs
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def jobs_from_table(table: pa.Table, source: str) -> list[Job]:
    """Return the jobs of a table.

    Args:
        table: Columns of `SCHEMA`; others are passed over.
        source: What messages call it.

    Raises:
        ValueError: A column is missing or of another kind, a value is missing, a job is
            impossible, or there is none; with the row.
    """
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise ValueError(f"{source}: column {', '.join(missing)} missing; see docs of schedule")
    if not table.num_rows:
        raise ValueError(f"{source}: no jobs; give at least one")
    try:
        rows = table.select(SCHEMA.names).cast(SCHEMA).to_pylist()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise ValueError(
            f"{source}: {error}; numbers are needed in all columns but kind"
        ) from error
    jobs = []
    for number, row in enumerate(rows, 1):
        if empty := [name for name, value in row.items() if value is None]:
            raise ValueError(f"{source}, row {number}: {', '.join(empty)} is empty; fill it in")
        try:
            jobs.append(_job(row))
        except ValueError as error:
            raise ValueError(f"{source}, row {number}: {error}") from error
    return jobs


def _job(row: dict[str, object]) -> Job:
    number, devices = row["number"], row["devices"]
    floats = {name: value for name, value in row.items() if isinstance(value, float)}
    if not isinstance(number, int) or not isinstance(devices, int):
        raise TypeError("cast to the schema before")
    return Job(
        request=Request(
            number=number,
            kind=str(row["kind"]),
            arrival=floats["arrival_s"],
            devices=devices,
            memory=floats["memory_gib"],
            estimate=floats["estimate_s"],
        ),
        duration=floats["duration_s"],
        utilization=floats["utilization"],
    )
