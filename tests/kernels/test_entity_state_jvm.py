"""The state of the JVM module: the same bytes as the other implementations, from the same rows."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.entity_state import (
    StateSpec,
    Window,
    apply_event,
    days,
    entity_features,
    new_block,
    parts_of,
    read_state,
    release_label,
    seen,
)
from kernels.entity_state.keys import entity_key
from kernels.entity_state.layout import spec_digest, view
from kernels.entity_state.plan_json import plan_json
from kernels.entity_state.reference import ReferenceSection
from tasks.fraud.dataset import DatasetConfig, EntityColumn
from tasks.fraud.ingest.identifiers import event_key
from tests.kernels.stream_config import framed, stream_config, with_dataset

HOUR, DAY = 3_600_000, 86_400_000
START = 1_522_540_800_000
SPEC = StateSpec(
    windows=(Window("1d", DAY, 6 * HOUR), days(3), days(7)),
    delay=2 * DAY,
    recent_ids=4,
    mail_slots=3,
)
CARDS = DatasetConfig(
    "cards",
    "t",
    "cents",
    (EntityColumn("card"), EntityColumn("shop")),
    label="fraud",
    label_time="known",
    event_id="id",
    time_unit="ms",
    amount_unit="minor",
    label_delay_days=2,
)
TRANSFERS = replace(
    CARDS, entities=(EntityColumn("payer", "account"), EntityColumn("payee", "account"))
)
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "entity_state" / "vectors.json"


class Jvm:
    """The probe of the module; Hypothesis would take the gateway's own object for a mock."""

    def __init__(self, gateway):
        self._probe = gateway.jvm.io.penstock.stream.Probe
        self._probes = {}

    def stream(self, config: dict, rows: list[bytes]) -> bytes:
        text = json.dumps(config, sort_keys=True)
        if text not in self._probes:
            self._probes[text] = self._probe(text)
        return self._probes[text].stream(framed(rows))

    def script(self, plan: dict, program: bytes) -> bytes:
        return self._probe.script(json.dumps(plan), program)

    def entity_key(self, kind: str, text: str) -> int:
        return self._probe.entityKey(kind, text)

    def event_key(self, text: str) -> int:
        return self._probe.eventKey(text)

    def blake2b(self, message: bytes) -> int:
        return self._probe.blake2b(message)

    def reads_heap_ahead(self):
        return self._probe.readsHeapAhead()


@pytest.fixture(scope="session")
def jvm(flink_gateway):
    return Jvm(flink_gateway)


def spec_of(fields: dict) -> StateSpec:
    windows = tuple(Window(**window) for window in fields["windows"])
    return StateSpec(**(fields | {"windows": windows}))


def words(*values: int) -> bytes:
    return np.array(values, np.int64).tobytes()


def test_golden_script(jvm):
    golden = json.loads(GOLDEN.read_text())
    spec, script = spec_of(golden["spec"]), golden["script"]
    program, wanted = b"", []
    for name, *step in script["steps"]:
        if name == "apply":
            role, event_id, time, amount, seen, applied = step
            program += words(0, role, event_id, time, amount)
            wanted += [*seen, float(applied)]
        elif name == "release":
            program += words(1, *step)
        else:
            role, time, amount, counterpart, counterpart_role, vector = step
            padded = np.zeros(4, np.float32)
            padded[:3] = vector
            program += words(2, role, time, amount, counterpart, counterpart_role)
            program += padded.tobytes()
    result = jvm.script(plan_json(spec), program)
    block = bytes.fromhex(script["block"])[32:]  # the header belongs to no part
    read = np.frombuffer(result, np.float64, len(wanted))
    np.testing.assert_allclose(read, wanted, rtol=1e-12)
    assert result[8 * len(wanted) :][: len(block)] == block
    check_mail(result[8 * len(wanted) + len(block) :], script["mail"], spec)


def check_mail(raw: bytes, wanted: dict, spec: StateSpec) -> None:
    slot = np.dtype(
        [("time", "<i8"), ("amount", "<i8"), ("counterpart", "<i8"), ("vector", "<f4", (3,))]
    )
    mail = np.frombuffer(raw, slot).reshape(spec.roles, spec.mail_slots)
    present = np.array(wanted["present"])
    assert (mail["time"] > -(2**63)).tolist() == present.tolist()
    for name in ("time", "amount", "counterpart", "vector"):
        got = np.where(present[..., None] if name == "vector" else present, mail[name], 0)
        other = np.array(wanted[name], got.dtype)
        np.testing.assert_array_equal(got, np.where(other == -1, 0, other))


def test_the_pinned_flink_keeps_its_heap_where_it_is_read_ahead(jvm):
    assert jvm.reads_heap_ahead()


@given(st.text(max_size=12), st.text(max_size=300))
@settings(max_examples=100, deadline=None)
def test_keys_of_entities_and_events(jvm, kind, text):
    assert jvm.entity_key(kind, text) == entity_key(kind, text)
    key = hashlib.blake2b(text.encode(), digest_size=8).digest()
    assert jvm.blake2b(text.encode()) == int.from_bytes(key, "big", signed=True)
    stripped = text.strip(" \t\r\n")
    if stripped:
        assert jvm.event_key(stripped) == event_key(stripped)


@given(st.integers(-(2**70), 2**70) | st.sampled_from([0, 2**63 - 1, 2**63, -(2**63), -1]))
@settings(max_examples=100, deadline=None)
def test_keys_of_event_ids_that_spell_integers(jvm, number):
    for text in (str(number), f"+{number}", f"0{number}", f"{number}.0"):
        assert jvm.event_key(text) == event_key(text)
    assert jvm.event_key("-0") == event_key("-0")


@pytest.mark.parametrize("length", [0, 1, 127, 128, 129, 255, 256, 257, 1000])
def test_blake2b_at_the_ends_of_blocks(jvm, length):
    message = bytes(i % 251 for i in range(length))
    key = hashlib.blake2b(message, digest_size=8).digest()
    assert jvm.blake2b(message) == int.from_bytes(key, "big", signed=True)


@dataclass(frozen=True)
class Row:
    """A transaction and, unless ``label`` is -1, what is known of it and from when."""

    id: int
    time: int
    amount: int
    keys: tuple[int, ...]
    label: int
    known: int

    def transaction(self, dataset: DatasetConfig) -> bytes:
        return b"T" + json.dumps(self._members(dataset) | {"cents": self.amount}).encode()

    def labelled(self, dataset: DatasetConfig) -> bytes:
        members = self._members(dataset) | {"fraud": self.label, "known": self.known}
        return b"L" + json.dumps(members).encode()

    def _members(self, dataset: DatasetConfig) -> dict:
        keys = {e.column: name_of(k) for e, k in zip(dataset.entities, self.keys, strict=True)}
        return {"id": self.id, "t": self.time, **keys}

    def due(self, delay: int) -> int:
        return max(self.time + delay, self.known)


def name_of(key: int) -> str:
    """Return the id of an entity; those beyond 16 bytes are kept another way."""
    return ("0", "café", "an-account-with-a-long-id")[key]


@st.composite
def histories(draw) -> list[Row]:
    """Rows in order of (time, id), with ties, gaps of weeks and labels known early or late."""
    gap = st.sampled_from([0, 0, 1, HOUR, 5 * HOUR, DAY, 3 * DAY, 20 * DAY])
    amounts = st.integers(0, 10**6) | st.sampled_from([0, 10**13])
    rows, time = [], START
    for number in range(draw(st.integers(1, 25))):
        time += draw(gap)
        late = draw(st.sampled_from([-DAY, 0, 2 * DAY, 2 * DAY + 1, 5 * DAY, 30 * DAY]))
        keys = draw(st.tuples(st.integers(0, 2), st.integers(0, 2)))
        rows.append(
            Row(number * 3, time, draw(amounts), keys, draw(st.integers(-1, 1)), time + late)
        )
    return rows


@st.composite
def arrivals(draw) -> list[tuple[str, Row]]:
    """Rows and labels as they come: shuffled, some of them twice."""
    rows = draw(histories())
    messages = [("T", row) for row in rows] + [("L", row) for row in rows if row.label >= 0]
    messages += draw(st.lists(st.sampled_from(messages), max_size=6))
    return draw(st.permutations(messages)) if draw(st.booleans()) else sorted(messages, key=order)


def order(message: tuple[str, Row]) -> tuple:
    """Place of a message in event-time mode."""
    kind, row = message
    time = row.due(SPEC.delay) if kind == "L" else row.time
    return (time, kind != "L", row.time, row.id)


class Block:
    """One role of a block by the compiled functions, with the methods of the reference."""

    def __init__(self, spec: StateSpec, role: int) -> None:
        self.spec, self.role, self.bytes = spec, role, new_block(spec)

    def seen(self, event_id: int) -> bool:
        return seen(self.bytes, self.role, event_id, spec=self.spec)

    def apply(self, event_id: int, time: int, amount: int) -> bool:
        return apply_event(self.bytes, self.role, event_id, time, amount, spec=self.spec)

    def release(self, time: int, label: int) -> None:
        release_label(self.bytes, self.role, time, label, spec=self.spec)

    def read(self, time: int, amount: int) -> list[float]:
        return read_state(self.bytes, self.role, time, amount, spec=self.spec).tolist()


class Listed(ReferenceSection):
    """The plain reference, with a block for comparison."""

    def __init__(self, spec: StateSpec, role: int) -> None:
        super().__init__(spec)
        self.role = role

    def seen(self, event_id: int) -> bool:
        return event_id in [known for _, known, _ in self.events[-self.spec.recent_ids :]]

    @property
    def bytes(self) -> np.ndarray:
        block = new_block(self.spec)
        self.write(view(block[None], self.spec)["roles"][:, self.role])
        return block


def run_chain(
    messages: list[tuple[str, Row]], dataset: DatasetConfig, backend: type[Block] | type[Listed]
) -> tuple[list[tuple[int, list[float]]], list[int], dict, dict]:
    """Return features by id as rows come out, ids set aside, sections and waiting labels."""
    dead, sections, waiting = [], {}, {}
    passing = [(kind, row, []) for kind, row in messages]
    for c, entity in enumerate(dataset.entities):
        role = dataset.kinds[entity.kind].index(entity.column)
        spec, came, out = with_dataset(SPEC, dataset, entity.kind), {}, []
        for kind, row, features in passing:
            key = (entity.kind, name_of(row.keys[c]), role)
            section = sections.setdefault(key, backend(spec, role))
            labels = waiting.setdefault(key, [])
            if kind == "L":
                ring = came.setdefault(key, [])
                if row.id not in ring[-64:]:
                    ring.append(row.id)
                    labels.append((row.due(spec.delay), row.time, row.id, row.label))
                    labels.sort()
                elif c == 0:
                    dead.append(row.id)
                    continue
                out.append((kind, row, features))
                continue
            if c == 0 and section.seen(row.id):
                dead.append(row.id)
                continue
            while labels and labels[0][0] <= row.time and labels[0][1:3] < (row.time, row.id):
                section.release(*labels.pop(0)[1::2])
            out.append((kind, row, features + section.read(row.time, row.amount)))
            section.apply(row.id, row.time, row.amount)
        passing = out
    results = [(row.id, features) for kind, row, features in passing if kind == "T"]
    return results, dead, sections, waiting


def decode(raw: bytes, features: int) -> tuple[list, list, dict]:
    """Return results, ids set aside, and upserts by (kind, id, part)."""
    (count,), at = struct.unpack_from("<I", raw), 4
    results = []
    for _ in range(count):
        (event_id,) = struct.unpack_from("<q", raw, at)
        results.append((event_id, np.frombuffer(raw, np.float64, features, at + 8).tolist()))
        at += 8 + 8 * features
    (count,), at = struct.unpack_from("<I", raw, at), at + 4
    texts = []
    for _ in range(2 * count):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    assert set(texts[::2]) <= {"duplicate-of"}
    return results, [int(text) for text in texts[1::2]], dict(upserts(raw[at:]))


def upserts(raw: bytes) -> Iterator[tuple[tuple[str, str, int], bytes]]:
    """Yield key (kind, id, part) and value of every upsert."""
    at = 0
    while at < len(raw):
        parts = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", raw, at)
            parts.append(raw[at + 4 : at + 4 + length])
            at += 4 + length
        kind, entity, part = [*parts[0][:-2].split(b"\0"), parts[0][-1]]
        yield (kind.decode(), entity.decode(), part), parts[1]


def check_chain(jvm, messages: list[tuple[str, Row]], dataset: DatasetConfig, mode: str) -> list:
    """Demand equality of JVM, compiled functions and reference; return the features."""
    config = stream_config(dataset, spec=SPEC, mode=mode)
    raw = jvm.stream(
        config,
        [
            row.transaction(dataset) if kind == "T" else row.labelled(dataset)
            for kind, row in messages
        ],
    )
    ordered = sorted(messages, key=order) if mode == "event-time" else messages
    results, dead, published = decode(raw, 2 * 26)
    for backend in (Listed, Block):
        wanted, wanted_dead, sections, waiting = run_chain(ordered, dataset, backend)
        assert [event_id for event_id, _ in results] == [event_id for event_id, _ in wanted]
        for (_, got), (_, truth) in zip(results, wanted, strict=True):
            np.testing.assert_allclose(got, np.array(truth, float), rtol=1e-12)
        assert dead == wanted_dead
        for (kind, entity, role), section in sections.items():
            value = published[kind, entity, 2 * role]
            check_upsert(value, section, waiting[kind, entity, role])
    return results


def check_upsert(value: bytes, section: Block | Listed, waiting: list) -> None:
    """Compare head, part and waiting labels of an upsert with a section."""
    digest, version, _, size, count = struct.unpack_from("<QQqII", value)
    part = parts_of(section.spec)[2 * section.role]
    assert (digest, size) == (spec_digest(section.spec), part.size)
    assert version > 0
    block = new_block(section.spec)
    block[part.offset : part.offset + size] = np.frombuffer(value, np.uint8, size, 32)
    got = view(block[None], section.spec)["roles"][:, section.role]
    wanted = view(section.bytes[None], section.spec)["roles"][:, section.role]
    for name in got.dtype.names:
        if not name.startswith("tiles"):
            assert got[name].tobytes() == wanted[name].tobytes(), name
            continue
        for field in got[name].dtype.names:
            np.testing.assert_allclose(
                got[name][field], wanted[name][field], rtol=1e-12 if field == "sumsq" else 0
            )
    labels = np.frombuffer(value, np.int64, 4 * count, 32 + size).reshape(count, 4)
    assert labels.tolist() == [list(label) for label in waiting]


@given(arrivals(), st.sampled_from(["latency", "event-time"]))
@settings(max_examples=150, deadline=None)
def test_streams_of_cards(jvm, messages, mode):
    check_chain(jvm, messages, CARDS, mode)


@given(arrivals(), st.sampled_from(["latency", "event-time"]))
@settings(max_examples=150, deadline=None)
def test_streams_of_transfers(jvm, messages, mode):
    check_chain(jvm, messages, TRANSFERS, mode)


@given(histories(), st.sampled_from([CARDS, TRANSFERS]), st.randoms())
@settings(max_examples=100, deadline=None)
def test_event_time_mode_equals_batch(jvm, rows, dataset, random):
    messages = [("T", row) for row in rows] + [("L", row) for row in rows if row.label >= 0]
    random.shuffle(messages)
    results = check_chain(jvm, messages, dataset, "event-time")
    keys = np.array([row.keys for row in rows], np.int32)
    if dataset is TRANSFERS:
        features = batch_features(rows, keys, dataset, "account")
    else:
        parts = [
            batch_features(rows, keys[:, [c]], dataset, k) for c, k in enumerate(("card", "shop"))
        ]
        features = np.concatenate(parts, axis=1)
    assert [event_id for event_id, _ in results] == [row.id for row in rows]
    got = np.array([values for _, values in results])
    np.testing.assert_allclose(got, features.reshape(len(rows), -1), rtol=1e-9)


def batch_features(
    rows: list[Row], keys: np.ndarray, dataset: DatasetConfig, kind: str
) -> np.ndarray:
    spec = with_dataset(SPEC, dataset, kind)
    columns = {
        "time": [row.time for row in rows],
        "event_id": [row.id for row in rows],
        "amount": [row.amount for row in rows],
        "label": [row.label for row in rows],
        "label_time": [row.due(spec.delay) for row in rows],
    }
    return entity_features(**columns, keys=keys, spec=spec, n_entities=3)[0]


@given(histories(), st.randoms())
@settings(max_examples=50, deadline=None)
def test_latency_mode_ends_with_the_tiles_of_event_time_mode(jvm, rows, random):
    """Whatever the order of arrival: counts, sums, minima and maxima of all tiles."""
    messages = [("T", row) for row in rows] + [("L", row) for row in rows if row.label >= 0]
    random.shuffle(messages)
    lines = [r.transaction(CARDS) if k == "T" else r.labelled(CARDS) for k, r in messages]
    ends = []
    for mode in ("latency", "event-time"):
        raw = jvm.stream(stream_config(CARDS, spec=SPEC, mode=mode), lines)
        ends.append(decode(raw, 2 * 26)[2])
    assert ends[0].keys() == ends[1].keys()
    for key, value in ends[0].items():
        sections = []
        for end in (value, ends[1][key]):
            block = new_block(SPEC)
            part = parts_of(SPEC)[0]
            block[part.offset : part.offset + part.size] = np.frombuffer(
                end, np.uint8, part.size, 32
            )
            sections.append(view(block[None], SPEC)["roles"][0, 0])
        for name in sections[0].dtype.names:
            if name.startswith("tiles"):
                for field in sections[0][name].dtype.names:
                    one, other = sections[0][name][field], sections[1][name][field]
                    np.testing.assert_allclose(one, other, rtol=1e-12)


def test_many_labels_wait_for_one_entity(jvm):
    """More labels than there is room for at first, in any order, and some long after their ring."""
    rng = np.random.default_rng(3)
    rows = [
        Row(i, START + i * HOUR, 100 + i, (0, 0), i % 2, START + int(rng.integers(0, 400)) * HOUR)
        for i in range(300)
    ]
    labels = [("L", row) for row in rows]
    shuffled = [labels[i] for i in rng.permutation(300)]
    repeated = [*shuffled[:70], *shuffled[60:70], *shuffled[70:200], *shuffled[0:5]]
    late = [("T", row) for row in rows] + shuffled[200:] + [("T", replace(rows[-1], id=999))]
    for mode in ("latency", "event-time"):
        check_chain(jvm, repeated + late, CARDS, mode)
