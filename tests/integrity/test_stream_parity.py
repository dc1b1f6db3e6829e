"""The stream gives what the batch gives: scores, states, and nothing lost or doubled on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from connectors.flink.models import place_model
from connectors.flink.spec import StreamSpec
from tasks.fraud.features import build_features
from tasks.fraud.online.head import FastHead
from tasks.fraud.score import score_transactions
from tests.integrity.stream_banks import (
    cards_bank,
    disordered,
    label_rows,
    read_lines,
    transfers_bank,
    write_lines,
)

pytestmark = pytest.mark.slow
MINUTES = 180  # the longest a job of these sizes may take, seconds
POISON = [b"\xff\xfe", b"{", b"[]", b'{"tx_id": 1}', b'{"tx_id": 2, "t": "soon"}']


@pytest.fixture(scope="module", params=["cards", pytest.param("transfers", marks=pytest.mark.long)])
def bank(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return cards_bank(folder) if request.param == "cards" else transfers_bank(folder)


def run_job(bank, folder: Path, **changes) -> StreamSpec:
    """Run the stream over the files in ``folder`` until it has read them all."""
    models = folder / "models"
    model = place_model(bank.bundle.folder, models)
    spec = StreamSpec(
        name="parity",
        models=str(models),
        model=model.folder.name,
        rules={"version": "r1", "review_at": 0.2, "block_at": 0.6},
        folder=str(folder),
        target="local",
        bounded=True,
        epoch=1,
        **changes,
    )
    spec.save(folder / "spec.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "connectors.flink.submit", str(folder / "spec.json")],
        env={**os.environ, "PENSTOCK_HOME": str(folder / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=MINUTES)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, output.decode()[-4000:]
    return spec


def test_event_time_scores_are_those_of_the_batch(bank, tmp_path):
    """Out of order, repeated and poisoned: every transaction is scored once, as in the batch.

    One bank goes through the streaming runtime, the other through Flink's batch runtime.
    """
    batch = not bank.bundle.needs_graph()
    time_column = bank.config.time
    arriving = disordered(bank.rows, time_column, 1800, seed=1)
    repeated = arriving[:: len(arriving) // 20]
    where = len(arriving) // 2
    rows = [*arriving[:where], *POISON, *arriving[where:]]
    for row in repeated:  # at once after the original, as a producer that tries again
        rows.insert(rows.index(row) + 1, row)
    write_lines(tmp_path / "transactions", rows)
    write_lines(tmp_path / "labels", disordered(label_rows(bank), time_column, 1800, seed=2))
    run_job(bank, tmp_path, mode="event-time", out_of_order_ms=1_800_000, batch=batch)

    expected = score_transactions(bank.bundle, bank.tx)
    wanted = {str(i): score for i, score in zip(bank.tx.event_id, expected, strict=True)}
    scores = read_lines(tmp_path / "scores")
    got = {row["event_id"]: row["score"] for row in scores}
    assert len(scores) == len(got) == len(wanted)
    assert max(abs(got[i] - wanted[i]) for i in wanted) <= 1e-5
    if not bank.bundle.needs_graph():  # the same features and arithmetic: the same bits
        values = build_features(bank.tx, bank.config).values
        exact = FastHead.load(bank.bundle).score(values)
        assert [got[str(i)] for i in bank.tx.event_id] == exact.tolist()
    assert not any(row["late"] for row in scores)
    rules = [row["rule"] for row in read_lines(tmp_path / "dead-letters")]
    assert sorted(set(rules)) == ["duplicate-of", "missing-time", "not-json", "unparsable-time"]
    assert rules.count("duplicate-of") == len(repeated)
    assert len(rules) == len(POISON) + len(repeated)
    blocked = {row["event_id"] for row in scores if row["decision"] != "approve"}
    assert {row["event_id"] for row in read_lines(tmp_path / "alerts")} == blocked
    assert blocked
