"""Real jobs of the stream's Java module on a small cluster, two subtasks per operator."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kernels.entity_state import entity_features, join_parts
from kernels.entity_state.layout import view
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.features import build_features, state_specs
from tasks.fraud.ingest.checks import check
from tests.kernels.stream_config import DAY, control_message, stream_config
from tests.kernels.stream_job import (
    read_lines,
    read_results,
    read_upserts,
    run_job,
    running_job,
    start_job,
    stop_with_savepoint,
    write_lines,
)

START = 1_522_540_800_000
TRANSFERS = DatasetConfig(
    "transfers",
    "t",
    "cents",
    (EntityColumn("payer", "account"), EntityColumn("payee", "account")),
    label="fraud",
    label_time="known",
    event_id="id",
    numeric=("lat",),
    categorical=("channel",),
    time_unit="ms",
    amount_unit="minor",
    max_quarantine_share=1.0,
)
CARDS = replace(TRANSFERS, entities=(EntityColumn("card"), EntityColumn("shop")))


def history(n: int, dataset: DatasetConfig, seed: int = 5) -> list[dict]:
    """Rows of 90 days in order of time, ties and payments to oneself among them."""
    rng = np.random.default_rng(seed)
    times = START + np.sort(rng.integers(0, 90 * 24 * 4, n)) * 900_000
    columns = [entity.column for entity in dataset.entities]
    rows = []
    for i in range(n):
        row = {"id": f"tx-{i}", "t": int(times[i]), "cents": int(rng.integers(0, 90_000))}
        row |= {column: f"A{rng.integers(0, 9)}" for column in columns}
        row |= {"lat": float(rng.normal()), "channel": str(rng.choice(["web", "shop"]))}
        row["fraud"] = int(rng.random() < 0.2) if rng.random() < 0.8 else None
        row["known"] = int(times[i] + rng.choice([0, 8, 20]) * DAY)
        rows.append(row)
    return rows


def without_label(row: dict) -> dict:
    return {name: value for name, value in row.items() if name not in ("fraud", "known")}


def label_of(row: dict) -> dict:
    return {name: row[name] for name in row if name not in ("cents", "lat", "channel")}


def write_history(folder, rows: list[dict], *, seed: int = 1) -> None:
    """Write transactions and labels in several files each, shuffled."""
    rng = np.random.default_rng(seed)
    labels = [label_of(row) for row in rows if row["fraud"] is not None]
    for name, content in (("transactions", list(map(without_label, rows))), ("labels", labels)):
        shuffled = [content[i] for i in rng.permutation(len(content))]
        for part in range(3):
            write_lines(folder / name / f"{part}.jsonl", shuffled[part::3])


def job_config(folder, dataset: DatasetConfig, *, bounded: bool = True, **changes) -> dict:
    source = {
        "type": "files",
        "transactions": str(folder / "transactions"),
        "labels": str(folder / "labels"),
        "bounded": bounded,
        "monitor_ms": 100,
    }
    names = {"dead_letters": "dead", "late": "late", "state": "state"}
    sinks = {"type": "files"} | {name: str(folder / place) for name, place in names.items()}
    changes = {"mode": "event-time", "out_of_order_ms": 400 * DAY} | changes
    return stream_config(dataset, mail=True, source=source, sinks=sinks, **changes)


def checked(rows: list[dict], dataset: DatasetConfig):
    names = dataset.columns
    return check(pa.table({n: [row[n] for row in rows] for n in names}), dataset, "x").transactions


def by_name(results: list[dict]) -> dict[str, dict]:
    found = {row["event_name"]: row for row in results}
    assert len(found) == len(results)
    return found


@pytest.fixture(scope="module")
def replayed(flink_gateway, tmp_path_factory):
    """A history of transfers run in event-time mode, with faults among the rows."""
    folder = tmp_path_factory.mktemp("replayed")
    rows = history(600, TRANSFERS)
    write_history(folder, rows)
    faults = ["no json", json.dumps(without_label(rows[7])), json.dumps({"t": START})]
    write_lines(folder / "transactions" / "faults.jsonl", faults)
    write_lines(folder / "labels" / "faults.jsonl", [label_of(rows[0]) | {"fraud": 7}, ""])
    results = run_job(flink_gateway, job_config(folder, TRANSFERS), folder / "out")
    return folder, rows, results


def test_event_time_mode_gives_the_features_of_training(replayed):
    _, rows, results = replayed
    tx = checked(rows, TRANSFERS)
    wanted, _ = entity_features(
        tx.time,
        tx.event_id,
        tx.amount,
        tx.label,
        tx.label_time,
        np.stack([tx.entities[c] for c in ("payer", "payee")], axis=1),
        spec=state_specs(TRANSFERS)["account"],
        n_entities=len(tx.index["account"]),
    )
    found = by_name(results)
    assert len(found) == len(rows)
    for i, name in enumerate(tx.event_names):
        row = found[name]
        np.testing.assert_allclose(np.frombuffer(row["state"]), wanted[i].ravel(), rtol=1e-9)
        assert (row["event_id"], row["time"], row["amount"]) == (
            tx.event_id[i],
            tx.time[i],
            tx.amount[i],
        )
        assert (row["late"], row["model"], row["rules"]) == (False, "model-1", "rules-1")
        assert np.frombuffer(row["numeric"]).tolist() == [tx.numeric["lat"][i]]
        assert row["categorical"] == tx.categories["channel"][tx.categorical["channel"][i]]


def test_mail_is_that_of_training(replayed):
    from kernels.entity_state.keys import entity_key
    from tasks.fraud.graph.mail import Mailboxes, mail_layout

    _, rows, results = replayed
    tx, layout = checked(rows, TRANSFERS), mail_layout(TRANSFERS)
    boxes = Mailboxes(tx, build_features(tx, TRANSFERS), layout)
    index = boxes.index(np.arange(len(tx)))
    slot = np.dtype(
        [("time", "<i8"), ("amount", "<i8"), ("counterpart", "<i8"), ("vector", "<f4", (8,))]
    )
    found = by_name(results)
    accounts = [tx.index["account"][tx.entities[c]] for c in layout.columns]
    for i, name in enumerate(tx.event_names):
        keys = np.frombuffer(found[name]["keys"], "<i8").tolist()
        assert keys == [entity_key("account", str(ids[i])) for ids in accounts]
        mail = np.frombuffer(found[name]["mail"], slot).reshape(layout.groups, layout.slots)
        assert ((mail["time"] == -(2**63)) == (index[i] < 0)).all()
        for group, place in np.argwhere(index[i] >= 0):
            j, message = index[i, group, place], mail[group, place]
            other = (layout.section[group] + 1) % 2
            key = entity_key("account", str(accounts[other][j]))
            assert (message["time"], message["amount"], message["counterpart"]) == (
                tx.time[j],
                tx.amount[j],
                key,
            )
            np.testing.assert_allclose(message["vector"], boxes.messages.vector[j], rtol=3e-7)


def test_upserts_join_to_the_blocks_of_batch(replayed):
    folder, rows, _ = replayed
    tx, spec = checked(rows, TRANSFERS), state_specs(TRANSFERS)["account"]
    _, state = entity_features(
        tx.time,
        tx.event_id,
        tx.amount,
        tx.label,
        tx.label_time,
        np.stack([tx.entities[c] for c in ("payer", "payee")], axis=1),
        spec=spec,
        n_entities=len(tx.index["account"]),
        keep_state=True,
    )
    newest = read_upserts(folder / "state")
    for code, name in enumerate(tx.index["account"]):
        parts, waiting = {}, []
        for number in range(4):
            value = newest["account", str(name), number]
            size, count = struct.unpack_from("<II", value, 24)
            parts[number] = value[32 : 32 + size]
            waiting += np.frombuffer(value, np.int64, 4 * count, 32 + size).reshape(-1, 4).tolist()
        block = view(join_parts(parts, spec)[None], spec)["roles"][0]
        truth = state.records["roles"][code]
        # Batch releases at its end what the stream releases with the next row.
        for field in ("last_time", "events", "recent_ids"):
            assert (block[field] == truth[field]).all()
        for ring in [field for field in block.dtype.names if field.startswith("tiles")]:
            for field in block[ring].dtype.names:
                np.testing.assert_allclose(block[ring][field], truth[ring][field], rtol=1e-12)
        known = int((tx.label >= 0)[tx.entities["payer"] == code].sum()) + int(
            (tx.label >= 0)[tx.entities["payee"] == code].sum()
        )
        released = int(block["labels"]["known"].sum())
        assert released <= known
        assert len(waiting) <= known


def test_faults_are_set_aside_with_their_place(replayed):
    folder, rows, _ = replayed
    records = {record["rule"]: record for record in read_lines(folder / "dead")}
    assert sorted(records) == ["duplicate-of", "invalid-label", "missing-amount", "not-json"]
    assert len(list(read_lines(folder / "dead"))) == 4
    assert list(read_lines(folder / "late")) == []
    payload = base64.b64decode(records["not-json"]["payload"])
    assert payload == b"no json"
    assert records["not-json"]["sha256"] == hashlib.sha256(payload).hexdigest()
    assert records["not-json"]["source"] == str(folder / "transactions" / "faults.jsonl")
    assert (records["not-json"]["row"], records["duplicate-of"]["row"]) in [
        (0, 8),
        (0, records["duplicate-of"]["row"]),
    ]
    assert records["duplicate-of"]["observed"] == rows[7]["id"]
    assert records["duplicate-of"]["severity"] == "warning"
    assert records["invalid-label"]["observed"] == "7"
    assert records["invalid-label"]["expected"] == "0, 1, true, false or null"


def test_a_replay_gives_the_same_bytes(replayed, flink_gateway):
    folder, rows, results = replayed
    again = folder / "again"
    write_history(again, rows, seed=2)
    options = {"parallelism.default": "1"}
    repeated = by_name(run_job(flink_gateway, job_config(again, TRANSFERS), again / "out", options))
    for name, row in by_name(results).items():
        assert (repeated[name]["state"], repeated[name]["mail"]) == (row["state"], row["mail"])


def wait_for(count: int, folder, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while len(read_results(folder)) < count:
        assert time.monotonic() < end, (
            f"{len(read_results(folder))} of {count} rows after {seconds} s"
        )
        time.sleep(0.2)


def due(row: dict) -> int:
    return max(row["t"] + CARDS.delay_ms, row["known"])


def write_in_order(folder, name: str, rows: list[dict], labels: list[dict]) -> None:
    write_lines(
        folder / "transactions" / name, map(without_label, sorted(rows, key=lambda r: r["t"]))
    )
    write_lines(folder / "labels" / name, map(label_of, sorted(labels, key=due)))


@pytest.fixture(scope="module")
def whole(flink_gateway, tmp_path_factory):
    """A history of cards run in one go."""
    folder, rows = tmp_path_factory.mktemp("whole"), history(300, CARDS, seed=9)
    write_history(folder, rows)
    return rows, by_name(run_job(flink_gateway, job_config(folder, CARDS), folder / "out"))


@pytest.mark.parametrize("backend", ["hashmap", pytest.param("rocksdb", marks=pytest.mark.long)])
def test_a_savepoint_goes_on_as_if_nothing_had_happened(flink_gateway, tmp_path, whole, backend):
    """Half of the rows, a savepoint, the other half in a new job: the bytes of one single run."""
    rows, wanted = whole
    folder = tmp_path / "halves"
    control = {"type": "files", "control": str(folder / "control"), "monitor_ms": 100}
    config = job_config(
        folder,
        CARDS,
        bounded=False,
        out_of_order_ms=0,
        dedup_ms=DAY,
        control={"initial": control_message(), "source": control},
    )
    config["source"]["parallelism"] = 1
    options = {
        "execution.checkpointing.interval": "300ms",
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
        "state.backend.type": backend,
    }
    write_lines(folder / "control" / "1.json", [control_message("model-2", "rules-2")])
    labelled = [row for row in rows if row["fraud"] is not None]
    middle = rows[150]["t"]
    first = [row for row in rows if row["t"] < middle]
    early = [row for row in labelled if due(row) < middle]
    write_in_order(folder, "1.jsonl", first, early)
    passed = min(first[-1]["t"], max(map(due, early)))
    with running_job(flink_gateway, config, folder / "out", options) as job:
        wait_for(sum(row["t"] < passed for row in first), folder / "out")
        savepoint = stop_with_savepoint(flink_gateway, job, folder / "savepoints")
    end = {"id": "end", "t": rows[-1]["t"] + 50 * DAY, "cents": 1, "card": "end", "shop": "end"}
    end |= {"fraud": 0, "known": end["t"], "lat": 0.0, "channel": "web"}
    rest = [row for row in rows if row["t"] >= middle]
    late = [row for row in labelled if due(row) >= middle]
    write_in_order(folder, "2.jsonl", [*rest, end], [*late, end])
    options["execution.state-recovery.path"] = savepoint
    behind = without_label(rows[0]) | {"id": "late", "card": "late", "shop": "late"}
    with running_job(flink_gateway, config, folder / "out", options):
        wait_for(len(rows), folder / "out")
        write_lines(folder / "transactions" / "3.jsonl", [behind])
        wait_for(len(rows) + 1, folder / "out")
    found = by_name(read_results(folder / "out"))
    assert {row["model"] for row in found.values()} == {"model-2"}
    assert [name for name, row in found.items() if row["late"]] == ["late"]
    assert found.keys() == {*wanted, "late"}
    for name, row in wanted.items():
        assert (found[name]["state"], found[name]["mail"]) == (row["state"], row["mail"])
    assert list(read_lines(folder / "dead")) == []
    (record,) = read_lines(folder / "late")
    assert json.loads(base64.b64decode(record["payload"])) == behind
    assert (record["rule"], record["column"], record["severity"]) == ("late", "t", "warning")


@pytest.mark.parametrize(("batch_rows", "ttl_ms"), [(1, DAY), (7, DAY), (7, 0)])
def test_latency_mode_ends_with_the_same_tiles_and_drops_old_duplicates(
    flink_gateway, tmp_path, replayed, batch_rows, ttl_ms
):
    """In two subtasks; state that is never forgotten is read ahead, see HeapIndex."""
    folder, rows, _ = replayed
    write_history(tmp_path, rows, seed=3)
    write_lines(tmp_path / "transactions" / "twice.jsonl", map(without_label, rows[::40]))
    changes = {"dedup_ms": DAY, "out_of_order_ms": 0, "ttl_ms": ttl_ms, "batch_rows": batch_rows}
    config = job_config(tmp_path, TRANSFERS, mode="latency", **changes)
    results = by_name(run_job(flink_gateway, config, tmp_path / "out"))
    assert results.keys() == {row["id"] for row in rows}
    records = list(read_lines(tmp_path / "dead"))
    assert len(records) == len(rows[::40])
    assert {record["rule"] for record in records} == {"duplicate-of"}
    spec, one, other = (
        state_specs(TRANSFERS)["account"],
        read_upserts(folder / "state"),
        read_upserts(tmp_path / "state"),
    )
    assert one.keys() == other.keys()
    for key, value in one.items():
        (size,) = struct.unpack_from("<I", value, 24)
        blocks = [
            view(join_parts({key[2]: part[32 : 32 + size]}, spec)[None], spec)["roles"][0]
            for part in (value, other[key])
        ]
        for ring in [field for field in blocks[0].dtype.names if field.startswith("tiles")]:
            for field in blocks[0][ring].dtype.names:
                np.testing.assert_allclose(
                    blocks[0][ring][field], blocks[1][ring][field], rtol=1e-12
                )


@pytest.fixture(scope="module")
def one_by_one(flink_gateway, tmp_path_factory):
    """Results, upserts and dead letters of cards without labels, each row handled at once."""
    return latency_run(flink_gateway, tmp_path_factory.mktemp("one"), batch_rows=1)


def latency_config(folder, batch_rows: int, *, bounded: bool) -> dict:
    write_lines(folder / "control" / "1.json", [control_message("model-2", "rules-2")])
    control = {"type": "files", "control": str(folder / "control")}
    control |= {"bounded": True} if bounded else {"monitor_ms": 100}
    config = job_config(
        folder,
        CARDS,
        mode="latency",
        bounded=bounded,
        out_of_order_ms=0,
        batch_rows=batch_rows,
        control={"initial": control_message(), "source": control},
    )
    del config["source"]["labels"]
    return config


def seen(folder) -> dict:
    """What each row read, by its name."""
    found = by_name(read_results(folder / "out"))
    return {name: (row["state"], row["mail"]) for name, row in found.items()}


def latency_run(flink_gateway, folder, *, batch_rows: int, backend: str = "hashmap"):
    rows = [without_label(row) for row in history(500, CARDS, seed=11)]
    write_lines(folder / "transactions" / "1.jsonl", [*rows, *rows[-40:]])
    options = {"parallelism.default": "1", "state.backend.type": backend}
    run_job(
        flink_gateway, latency_config(folder, batch_rows, bounded=True), folder / "out", options
    )
    dead = [record["payload"] for record in read_lines(folder / "dead")]
    states = {key: value[24:] for key, value in read_upserts(folder / "state").items()}
    return seen(folder), states, dead


@pytest.mark.parametrize(("backend", "batch_rows"), [("hashmap", 16), ("rocksdb", 16)])
def test_rows_in_batches_see_what_rows_one_by_one_see(
    flink_gateway, tmp_path, one_by_one, backend, batch_rows
):
    """Nine entities per column: each stands in nearly every batch twice."""
    found = latency_run(flink_gateway, tmp_path, batch_rows=batch_rows, backend=backend)
    assert len(found[0]) == 500
    assert len(found[2]) == 40
    assert found == one_by_one


@pytest.mark.long
def test_a_savepoint_amid_batches_of_rows_goes_on_as_if_nothing_had_happened(
    flink_gateway, tmp_path
):
    """The states of shops and their mail are chained, and both hold rows when it is taken."""
    rows = [without_label(row) for row in history(20_000, CARDS, seed=12)]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = {
        "parallelism.default": "1",
        "execution.checkpointing.interval": "50ms",
        "execution.checkpointing.dir": (tmp_path / "checkpoints").as_uri(),
    }
    for folder in (whole, parts):
        write_lines(folder / "transactions" / "1.jsonl", rows)
    config = latency_config(parts, 16, bounded=False)
    with running_job(flink_gateway, config, parts / "out", options) as job:
        wait_for(1, parts / "out")
        savepoint = stop_with_savepoint(flink_gateway, job, parts / "savepoints")
    before = len(read_results(parts / "out"))
    options["execution.state-recovery.path"] = savepoint
    with running_job(flink_gateway, config, parts / "out", options):
        wait_for(len(rows), parts / "out")
    del options["execution.state-recovery.path"]
    config = latency_config(whole, 1, bounded=True)
    run_job(flink_gateway, config, whole / "out", options)
    assert 0 < before < len(rows) == len(read_results(parts / "out"))
    assert seen(parts) == seen(whole)


def test_a_wrong_configuration_names_its_fault(flink_gateway, tmp_path):
    from py4j.protocol import Py4JJavaError

    for changes, fault in (({"mode": "fast"}, "choose 'latency' or 'event-time'"),):
        with pytest.raises(Py4JJavaError, match=fault):
            start_job(flink_gateway, job_config(tmp_path, CARDS, **changes), tmp_path / "out")
