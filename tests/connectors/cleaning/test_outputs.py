"""Clean rows and quarantine become visible together, also when a run is killed in between."""

from __future__ import annotations

import os
import signal
from datetime import UTC, datetime

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from connectors.cleaning.outputs import MANIFEST, OutputBusyError, OutputError, outputs, published
from tasks.cleaning.quarantine import Rule, empty_quarantine, quarantine_rows

TIME = datetime(2026, 1, 1, tzinfo=UTC)


def batch(first, rows=4):
    """Return clean rows and the record of one more."""
    table = pa.table({"id": [str(i) for i in range(first, first + rows + 1)]})
    aside = quarantine_rows(
        table, np.array([rows]), Rule("bad", "better"), source="s", time=TIME, first_row=first
    )
    return pl.DataFrame({"id": table.column("id").to_pylist()[:rows]}), aside, rows + 1


def write_two(folder, one, two, kind="parquet"):
    with outputs(folder, "source", kind) as writer:
        writer.write(*one)
        writer.write(*two)


def run(folder, first=0, kind="parquet"):
    write_two(folder, batch(first), batch(first + 5), kind)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_published(tmp_path, kind):
    assert published(tmp_path) is None
    run(tmp_path, kind=kind)
    found = published(tmp_path, check=True)
    assert (found.rows_in, found.rows_clean, found.rows_quarantined) == (10, 8, 2)
    read = pl.read_parquet if kind == "parquet" else lambda p: pl.read_csv(p, infer_schema=False)
    assert read(found.clean_path)["id"].to_list() == [*"0123", *"5678"]
    assert pl.read_parquet(found.quarantine_path)["row"].to_list() == [4, 9]
    run(tmp_path, kind=kind)
    assert published(tmp_path) == found


def test_failure_leaves_what_was(tmp_path):
    run(tmp_path)
    before = published(tmp_path)
    with pytest.raises(OutputError, match="other columns"):
        write_two(tmp_path, batch(100), (pl.DataFrame({"x": []}), empty_quarantine(), 0))
    with pytest.raises(OutputError, match="exactly one"):
        write_two(tmp_path, batch(100), (batch(0)[0], empty_quarantine(), 5))
    assert published(tmp_path, check=True) == before
    assert len(list(tmp_path.iterdir())) == 3  # the lock, the manifest, one generation


def test_one_writer_at_a_time(tmp_path):
    with outputs(tmp_path, "source") as writer:
        writer.write(*batch(0))
        with pytest.raises(OutputBusyError):
            run(tmp_path)


def test_damage_is_found_and_mended_by_a_rerun(tmp_path):
    run(tmp_path)
    found = published(tmp_path)
    found.clean_path.write_bytes(b"")
    with pytest.raises(OutputError, match="changed"):
        published(tmp_path, check=True)
    run(tmp_path)
    assert published(tmp_path, check=True) == found
    (tmp_path / MANIFEST).write_text("{")
    with pytest.raises(OutputError, match="no valid JSON"):
        published(tmp_path)
    run(tmp_path)
    assert published(tmp_path, check=True) == found


def test_killed_before_any_step(tmp_path):
    """A run is killed (-9) before each of its calls that make something last."""
    run(tmp_path)
    made = batch(100), batch(105)  # beforehand: Polars' threads do not survive a fork
    states = set()
    for step in range(1, 12):
        child = os.fork()
        if not child:
            try:
                _die_before(step)
                write_two(tmp_path, *made)
            finally:
                os._exit(0)
        _, status = os.waitpid(child, 0)
        found = published(tmp_path, check=True)
        ids = pl.read_parquet(found.clean_path)["id"].to_list()
        assert ids in (
            [*"0123", *"5678"],
            [str(i) for i in (100, 101, 102, 103, 105, 106, 107, 108)],
        )
        states.add((os.waitstatus_to_exitcode(status), ids[0]))
        run(tmp_path)
        assert pl.read_parquet(published(tmp_path, check=True).clean_path)["id"][0] == "0"
    assert {(-signal.SIGKILL, "0"), (0, "100")} <= states


def _die_before(step):
    left = step

    def dying(call):
        def wrapped(*args, **kwargs):
            nonlocal left
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **kwargs)

        return wrapped

    os.fsync, os.rename, os.replace = map(dying, (os.fsync, os.rename, os.replace))
