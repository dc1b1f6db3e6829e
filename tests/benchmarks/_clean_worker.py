"""Processes of the benchmark clean-chaos: one is killed while it works, one meets hostile files.

``run SOURCE FOLDER STEP`` reads, quarantines and publishes, and kills itself before the given call
that brings something to the disk (0: never). ``serve`` does the same for every line of standard
input in a forked process, whose id it tells first. ``read FOLDER`` reads every file of a folder in
two ways, and tells of each in one line.
"""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from pyarrow import compute, csv, parquet  # noqa: F401 - before any fork

from connectors.cleaning.outputs import outputs
from connectors.tables import TableReadError, read_batches
from tasks.cleaning.ingest.options import ReadLimits, ReadOptions

TIME = datetime(2026, 1, 1, tzinfo=UTC)
BLOCK = 1 << 15
SMALL = 1 << 10


def run(source: Path, folder: Path, step: int) -> None:
    """Read a file and publish its rows."""
    if step:
        _die_before(step)
    options = ReadOptions(limits=ReadLimits(block_bytes=BLOCK), time=TIME)
    with outputs(folder, source.name) as writer:
        for batch in read_batches(source, options):
            writer.write(batch.frame, batch.quarantine, batch.rows_in)


def _die_before(step: int) -> None:
    """Let the process be killed before the ``step``-th call that makes something last."""
    left = step

    def dying(call: Any) -> Any:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    os.fsync = dying(os.fsync)
    os.rename = dying(os.rename)
    os.replace = dying(os.replace)


def serve() -> None:
    """Run every order ``SOURCE<tab>FOLDER<tab>STEP`` in a forked process; tells how each ended."""
    for line in sys.stdin:
        source, folder, step = line.rstrip("\n").split("\t")
        child = os.fork()
        if not child:
            code = 1
            try:
                run(Path(source), Path(folder), int(step))
                code = 0
            finally:
                os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def read(folder: Path, memory_gib: float) -> None:
    """Read files in large and in small blocks; a line of JSON before and after each."""
    limit = int(memory_gib * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name in sys.stdin:
        path = folder / name.rstrip("\n")
        print(json.dumps({"name": path.name}), flush=True)
        print(json.dumps(_outcome(path)), flush=True)


def _outcome(path: Path) -> dict[str, Any]:
    try:
        frame, numbers, records, rows_in = _read(path, ReadLimits())
    except TableReadError as error:
        return {"name": path.name, "refused": str(error)}
    except Exception as error:  # noqa: BLE001 - the benchmark counts them
        return {"name": path.name, "crash": f"{type(error).__name__}: {error}"[:300]}
    lost = rows_in - len(set(numbers) | set(records))
    doubled = frame.height + len(records) - rows_in
    again = None
    if path.stat().st_size < 1 << 20:
        try:
            small = _read(path, ReadLimits(block_bytes=SMALL))
            again = small[0].equals(frame) and small[1:] == (numbers, records, rows_in)
        except Exception as error:  # noqa: BLE001 - told as a difference
            again = f"{type(error).__name__}: {error}"[:300]
    return {
        "name": path.name,
        "rows": rows_in,
        "aside": len(records),
        "lost": max(lost, 0),
        "doubled": abs(doubled),
        "same_in_small_blocks": again,
        "counted_apart": _counted_apart(path),
    }


def _counted_apart(path: Path) -> int | None:
    """Return a file's rows by its lines alone, where lines are rows; None elsewhere."""
    content = path.read_bytes()
    if path.suffix in {".jsonl", ".ndjson"}:
        if content.startswith((b"\xff\xfe", b"\xfe\xff")):
            return None
        lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
        return sum(bool(line.removesuffix(b"\r").strip(b" \t")) for line in lines)
    layout = next(read_batches(path, ReadOptions(time=TIME))).layout
    plain = path.suffix in {".csv", ".tsv", ".txt"} and layout.encoding in {"utf-8", "cp1252"}
    if not plain or len(layout.columns) < 2 or layout.quote.encode() in content:
        return None
    lines = re.split(rb"\r\n|\r|\n", content.removeprefix(b"\xef\xbb\xbf"))
    return sum(map(bool, lines)) - layout.header


def _read(path: Path, limits: ReadLimits) -> tuple[pl.DataFrame, list[int], list[int], int]:
    batches = list(read_batches(path, ReadOptions(limits=limits, time=TIME)))
    return (
        pl.concat([b.frame for b in batches]),
        [int(n) for b in batches for n in b.rows],
        [n for b in batches for n in b.quarantine.column("row").to_pylist()],
        sum(b.rows_in for b in batches),
    )


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    elif sys.argv[1] == "read":
        read(Path(sys.argv[2]), float(sys.argv[3]))
    else:
        run(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
