"""The worker's Arrow columns: the bytes that were received, seen by the scoring function."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyflink.fn_execution import coder_impl_fast
from pyflink.fn_execution.ResettableIO import ResettableIO
from pyflink.table.types import DataTypes

from connectors.flink.scoring import Score, joined_bytes
from connectors.flink.worker import keep_arrow_columns


@pytest.fixture
def arrow_columns(monkeypatch):
    """PyFlink as in a scoring worker; afterwards as it was."""
    monkeypatch.setattr(coder_impl_fast, "arrow_to_pandas", coder_impl_fast.arrow_to_pandas)
    monkeypatch.setattr(ResettableIO, "read_buffer", None, raising=False)
    assert keep_arrow_columns()


def batch(n: int, first: int) -> pa.RecordBatch:
    rng = np.random.default_rng(first)
    columns = {
        "model": pa.array(["fraud-1"] * n),
        "time": pa.array(np.arange(first, first + n)),
        "state": pa.array([rng.bytes(48) for _ in range(n)], pa.binary()),
    }
    return pa.RecordBatch.from_pydict(columns)


def message(rows: pa.RecordBatch) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_batch(rows)
    return sink.getvalue()


def test_pyflink_hands_over_the_received_batches_as_they_are(arrow_columns):
    """Three batches of different sizes through PyFlink's own decoder, one after the other."""
    sent = [batch(n, first) for n, first in ((5, 0), (1, 7), (300, 20))]
    row_type = DataTypes.ROW(
        [
            DataTypes.FIELD("model", DataTypes.STRING()),
            DataTypes.FIELD("time", DataTypes.BIGINT()),
            DataTypes.FIELD("state", DataTypes.BYTES()),
        ]
    )
    decoder = coder_impl_fast.ArrowCoderImpl(sent[0].schema, row_type, "UTC")
    got = [decoder.decode(message(rows)) for rows in sent]
    assert [[c.to_pylist() for c in columns] for columns in got] == [
        [c.to_pylist() for c in rows.columns] for rows in sent
    ]
    assert all(isinstance(c, pa.Array) for columns in got for c in columns)


def test_nothing_is_copied_on_the_way_to_numpy(arrow_columns):
    stream = ResettableIO()
    content = message(batch(100, 0))
    stream.set_input_bytes(content)
    rows = pa.ipc.open_stream(stream).read_next_batch()
    (state,) = coder_impl_fast.arrow_to_pandas("UTC", [], [rows.select(["state"])])
    numbers = np.frombuffer(joined_bytes(state), "<f8")
    begin = np.frombuffer(content, np.uint8).ctypes.data
    assert begin < numbers.ctypes.data < begin + len(content)


@pytest.mark.parametrize("part", [slice(None), slice(3, 7), slice(0, 0)])
def test_bytes_of_a_column_or_of_a_part_of_it_are_joined(part):
    values = [bytes([i]) * 8 for i in range(10)][part]
    start, stop, _ = part.indices(10)
    column = pa.array([bytes([i]) * 8 for i in range(10)]).slice(start, stop - start)
    assert bytes(joined_bytes(column)) == b"".join(values)
    assert bytes(joined_bytes(column.cast(pa.large_binary()))) == b"".join(values)


def test_a_missing_value_is_said():
    with pytest.raises(ValueError, match="1 of 2 values"):
        joined_bytes(pa.array([b"a", None]))


@pytest.mark.parametrize("kind", [pa.array, pd.Series])
def test_rows_of_each_model_are_scored_by_it(tmp_path, kind, monkeypatch, caplog):
    """A model that is not there gives NaN for its rows only, in whatever form columns come."""
    score = Score(str(tmp_path), ())
    whole = score._scores

    def known(stamp, columns):
        if stamp == "missing":
            return whole(stamp, columns)
        return columns[0].to_numpy() + np.frombuffer(joined_bytes(columns[2]), "<f8")

    monkeypatch.setattr(score, "_scores", known)
    stamps = ["a", "missing", "b", "a"]
    state = [np.float64(10 * i).tobytes() for i in range(4)]
    given = [kind(stamps), kind([1, 2, 3, 4]), kind([9, 9, 9, 9]), kind(state)]
    made = score.eval(*given)
    assert made.to_list()[::2] == [1.0, 23.0]
    assert np.isnan(made[1])
    assert made[3] == 34.0
    assert "model missing cannot score" in caplog.text
