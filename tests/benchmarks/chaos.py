"""The stream under kill -9: nothing lost, nothing doubled, the same scores as without.

Real processes: broker, ZooKeeper, JobManager, two TaskManagers, store writer, watchdog, and a job
with Python workers in event-time mode, under steady traffic. In every round one of them is killed
at a random moment; the watchdog alone brings it back. Recovery is the time from the kill until the
age of everything committed is back to normal: the first score committed of a transaction that was
produced after the kill. In the end every transaction must have been scored and committed exactly
once, each score must be that of the batch, and the online store must hold the states of the batch.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil
import pyarrow as pa

from connectors.flink import operate
from connectors.flink.models import place_model
from connectors.flink.spec import StreamSpec, new_epoch
from infra.services.process import group_members
from infra.services.python_services import configure_service
from infra.services.registry import SERVICES, end_service, start_service, stop_order, with_needs
from infra.services.state import load_state
from infra.settings import Settings, get_settings
from tasks.fraud.bundle import Bundle
from tasks.fraud.features import build_features
from tasks.fraud.ingest.checks import check
from tasks.fraud.online.head import FastHead
from tasks.fraud.simulate import CardsConfig
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._kafka import LABEL_DELAY_S, bank_rows, committed_messages
from tests.benchmarks._model import serving_model
from tests.benchmarks.stream_e2e import Reader

ROUNDS, SMOKE_ROUNDS = 12, 1
RATE = 200
WORKER = "worker"
TARGETS = (
    "flink-taskmanager",
    "flink-jobmanager",
    "kafka",
    WORKER,
    "watchdog",
    "store-writer",
)
STARTED = ("kafka", "flink-taskmanager", "flink-standby", "store-writer", "watchdog")
BANK = CardsConfig(cards=300, terminals=150, days=60, seed=11)
PAUSE_S = (6.0, 14.0)
GIVE_UP_S = 120.0
CLOSING_S = 86_400
QUEUE = 50_000
STREAM = "chaos"


class Traffic(threading.Thread):
    """Produces a bank's payments, and its labels when they are known, at a steady rate.

    Attributes:
        rows: What was produced, in order.
        sent: Event id -> moment it was handed to the producer.
    """

    def __init__(self, servers: str, partitions: int) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Producer

        self._producer = Producer(
            {
                "bootstrap.servers": servers,
                "enable.idempotence": True,
                "message.timeout.ms": 300_000,
                "log_level": 0,
            }
        )
        self._partitions = partitions
        self.rows: list[dict[str, Any]] = []
        self.sent: dict[str, float] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        waiting: list[tuple[int, dict[str, Any]]] = []
        first, began = 0, time.monotonic()
        for number, row in enumerate(bank_rows(BANK)):
            while (wait := began + number / RATE - time.monotonic()) > 0 and not self.stop.is_set():
                self._producer.poll(0)
                time.sleep(min(wait, 0.05))
            if self.stop.is_set():
                break
            self.rows.append(dict(row))
            label = {k: v for k, v in row.items() if k != "amount_cents"}
            waiting.append((row["t"] + LABEL_DELAY_S, label))
            del row["fraud"]
            self._send("transactions", row)
            self.sent[str(row["tx_id"])] = time.monotonic()
            while first < len(waiting) and waiting[first][0] <= row["t"]:
                self._send("labels", waiting[first][1])
                first += 1
        # One far later per partition moves the watermark past everything that counts.
        last = self.rows[-1]["t"] + CLOSING_S
        for stream in ("transactions", "labels"):
            for partition in range(self._partitions):
                closing = {
                    "tx_id": -1 - partition,
                    "t": last,
                    "customer": f"closing-{partition}",
                    "terminal": "closing",
                    "amount_cents": 1,
                    "fraud": 0,
                    "label_time": last,
                }
                self._produce(stream, closing, partition)
        self._producer.flush(120)

    def _send(self, stream: str, row: dict[str, Any]) -> None:
        self._produce(stream, row, zlib.crc32(str(row["customer"]).encode()) % self._partitions)

    def _produce(self, stream: str, row: dict[str, Any], partition: int) -> None:
        self._producer.produce(
            f"penstock.{STREAM}.{stream}", orjson.dumps(row), partition=partition
        )
        while len(self._producer) > QUEUE:  # the broker is away: hold the traffic back
            self._producer.poll(0.2)


def victims(settings: Settings, target: str) -> list[psutil.Process]:
    """Return the processes to kill."""
    names = ("flink-taskmanager", "flink-standby") if target == WORKER else (target,)
    found = []
    for name in names:
        state = load_state(settings, name)
        members = group_members(state) if state else []
        if target == WORKER:
            members = [p for p in members if "beam_boot" in " ".join(p.cmdline())]
        found += members
    return found


def kill(settings: Settings, target: str) -> None:
    """Kill -9; the watchdog, which nobody watches here, is started again as a schedule would."""
    for process in victims(settings, target):
        try:
            process.kill()
        except psutil.Error:
            continue
    if target == "watchdog":
        end_service(settings, target)
        start_service(settings, target)


def recover(traffic: Traffic, reader: Reader, killed: float) -> float:
    """Return seconds until a score of a transaction produced after the kill was committed."""
    while time.monotonic() < killed + GIVE_UP_S:
        after = [i for i, t in list(traffic.sent.items())[-RATE * 30 :] if t > killed]
        seen = [reader.seen[i] for i in after if i in reader.seen]
        if seen:
            return time.monotonic() - killed
        time.sleep(0.1)
    return float("inf")


def reference(bundle: Bundle, rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the batch scores of what was produced."""
    tx = check(pa.Table.from_pylist(list(rows)), bundle.config, "chaos").transactions
    scores = FastHead.load(bundle).score(build_features(tx, bundle.config).values)
    return dict(zip(map(str, tx.event_id.tolist()), scores.tolist(), strict=True))


def committed_scores(servers: str) -> dict[str, list[float]]:
    """Return every committed score by event id."""
    found: dict[str, list[float]] = {}
    for message in committed_messages(servers, f"penstock.{STREAM}.scores"):
        found.setdefault(message["event_id"], []).append(message["score"])
    return found


def run(home: Path, models: Path, *, rounds: int, seed: int, smoke: bool) -> dict[str, Any]:
    """Run everything in a home of its own."""
    settings = Settings(home=home, flink_slots=2)  # type: ignore[call-arg]
    rng = random.Random(seed)
    names = with_needs([name for name in STARTED if name in SERVICES])
    configure_service(settings, "store-writer", {"PENSTOCK_STREAM": STREAM})
    bundle = serving_model(models, graph=False, smoke=smoke)
    try:
        for name in names:
            start_service(settings, name)
        state = load_state(settings, "kafka")
        assert state is not None
        servers = f"127.0.0.1:{state.port}"
        placed = place_model(bundle.folder, operate.models_folder(settings))
        spec = StreamSpec(
            name=STREAM,
            models=str(operate.models_folder(settings)),
            model=placed.folder.name,
            rules={"version": "chaos", "review_at": 0.02, "block_at": 0.16},
            kafka=servers,
            mode="event-time",
            parallelism=2,
            start="earliest",
            epoch=new_epoch(time.time()),
            out_of_order_ms=60_000,
            idle_ms=2_000,
            checkpoint_s=1.0,
        )
        operate.start(settings, spec)
        traffic = Traffic(servers, partitions=2)
        reader = Reader(servers, f"penstock.{STREAM}.scores", "read_committed")
        traffic.start()
        reader.start()
        time.sleep(15.0)
        recoveries = []
        for number in range(rounds):
            time.sleep(rng.uniform(*PAUSE_S))
            target = TARGETS[number % len(TARGETS)]
            kill(settings, target)
            recoveries.append((target, recover(traffic, reader, time.monotonic())))
        traffic.stop.set()
        traffic.join()
        wanted = reference(bundle, traffic.rows)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not wanted.keys() <= reader.seen.keys():
            time.sleep(0.5)
        reader.stop.set()
        reader.join()
        got = committed_scores(servers)
    finally:
        for name in stop_order(names):
            end_service(settings, name)
    differences = [
        abs(got[i][0] - score) / max(abs(score), 1e-300) for i, score in wanted.items() if i in got
    ]
    seconds = [each for _, each in recoveries]
    return {
        "rounds": rounds,
        "transactions": len(wanted),
        "lost": sum(i not in got for i in wanted),
        "duplicated": sum(len(scores) - 1 for scores in got.values()),
        "max_rel_diff": max(differences, default=float("nan")),
        "recovery_p50_s": float(np.median(seconds)),
        "recovery_max_s": max(seconds),
        "recoveries": [{"killed": target, "seconds": each} for target, each in recoveries],
    }


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    arguments = parser("chaos", "kill -9 under load: lost, doubled, changed, and time to recover")
    arguments.add_argument("--rounds", type=int, default=0, help=f"kills (default {ROUNDS})")
    args = arguments.parse_args(argv)
    rounds = args.rounds or (SMOKE_ROUNDS if args.smoke else ROUNDS)
    base = get_settings().home / "bench"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="chaos-", dir=base) as folder:
        result = run(Path(folder), base / "models", rounds=rounds, seed=args.seed, smoke=args.smoke)
    table(
        "recovery",
        ("killed", "seconds"),
        [(each["killed"], each["seconds"]) for each in result["recoveries"]],
    )
    emit(result, args)


if __name__ == "__main__":
    run_program("chaos", main)
