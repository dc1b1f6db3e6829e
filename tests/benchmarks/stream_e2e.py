"""The whole stream: Kafka -> check, dedup, state with labels, upserts -> score -> Kafka.

Throughput: a preloaded topic is read to its end with the throughput settings, exactly-once sinks
and checkpoints on, by a job inside one process (a MiniCluster) beside a real broker. ``tx_per_s``
is the rate of the rows after the first fifth, up to the commit of the last score: a stream runs for
months, its start takes half a minute. ``tx_per_s_to_exit`` goes on to the exit of the process (two
or three seconds later), ``tx_per_s_last_half`` is the rate of the second half, when nearly all is
compiled, ``tx_per_s_with_start`` counts everything from the start of the process to its exit,
``start_s`` is the time until the first score. CPU is that of the whole process, start of the JVM
included: rows per core-second are of Flink and its Python workers, the broker's seconds apart. The
heap's pages are touched at the start, so that the machine need not find them in between.

Latency: live traffic at a fixed rate with the latency settings; from the moment a transaction is
produced to the moment its score can be read, by a reader of uncommitted and one of committed
messages. Lost and doubled are counted on the committed scores of the throughput run with the
tabular head.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psutil

from connectors.flink.models import place_model
from connectors.flink.presets import PRESETS
from connectors.flink.spec import StreamSpec, new_epoch
from connectors.kafka.topics import StreamTopics, ensure_topics
from infra.services.registry import end_service, start_service
from infra.services.state import load_state
from infra.settings import Settings, get_settings
from tasks.fraud.bundle import Bundle
from tasks.fraud.simulate import CardsConfig
from tests.benchmarks._harness import emit, parser, run_program, table
from tests.benchmarks._kafka import bank_rows, committed_messages, fill
from tests.benchmarks._model import serving_model

ROWS, ROWS_BOTH, SMOKE_ROWS = 10_000_000, 6_000_000, 20_000
WARM_SHARE = 0.2
JVM = "-Xms6g -Xmx6g -Xmn2g -XX:+AlwaysPreTouch"
BANK = CardsConfig(cards=100_000, terminals=10_000, days=90, seed=3)
SMALL_BANK = CardsConfig(cards=1_000, terminals=500, days=30, seed=3)
RULES = {"version": "bench", "review_at": 0.02, "block_at": 0.16}
LATENCY_RATE = 500
WARM_UP_S = 60.0
"""Until then the JVM compiles the job, on the same two cores."""


class Cpu:
    """CPU seconds of a process and its children, those that ended included."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> float:
        """Stop watching; return user and system time since the process began."""
        self._stop.set()
        self._thread.join()
        return sum(self._seen.values())

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self._look()

    def _look(self) -> None:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return
        for process in processes:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._seen[process.pid] = times.user + times.system


@contextmanager
def submitted(home: Path, spec: StreamSpec, jvm: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run a local job in a process group of its own; yields once it is submitted."""
    options = " ".join((jvm, *PRESETS[spec.preset].jvm_options))
    spec.save(home / f"{spec.name}.json")
    log = home / f"{spec.name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors.flink.submit", str(home / f"{spec.name}.json")],
            env={**os.environ, "PENSTOCK_HOME": str(home), "JVM_ARGS": options},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while b"submitted as" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the job did not start: {log.read_text()[-3000:]}")
            time.sleep(0.05)
        yield process
    finally:
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()


class Progress(threading.Thread):
    """Notes how many messages lie in a topic, committed or not, and when the last was committed.

    Attributes:
        seen: Times, and how many messages there were.
        last_commit: When the last of them was committed.
        is_complete: Whether at the end all were.
    """

    def __init__(self, servers: str, topic: str) -> None:
        super().__init__(daemon=True)
        self._servers, self._topic = servers, topic
        self.seen: list[tuple[float, int]] = [(time.perf_counter(), 0)]
        self.last_commit = time.perf_counter()
        self.is_complete = False
        self.stop = threading.Event()

    def run(self) -> None:
        from confluent_kafka import Consumer, TopicPartition

        readers = [
            Consumer(
                {
                    "bootstrap.servers": self._servers,
                    "group.id": "progress",
                    "isolation.level": f"read_{kind}",
                }
            )
            for kind in ("uncommitted", "committed")
        ]
        found = readers[0].list_topics(self._topic, timeout=10).topics[self._topic].partitions
        places = [TopicPartition(self._topic, p) for p in found]
        committed = 0
        stopped = False
        while not stopped:
            stopped = self.stop.wait(0.1)  # and then looks for the last time
            # For a reader of committed messages a topic ends at its last stable offset.
            written, stable = (
                sum(reader.get_watermark_offsets(place)[1] for place in places)
                for reader in readers
            )
            now = time.perf_counter()
            self.seen.append((now, written))
            if stable > committed:
                committed, self.last_commit = stable, now
        self.is_complete = committed == written
        for reader in readers:
            reader.close()

    def first(self, count: int) -> tuple[float, int]:
        """Return when at least ``count`` scores were there first, and how many."""
        return next((seen for seen in self.seen if seen[1] >= count), self.seen[0])


def throughput(
    home: Path, servers: str, spec: StreamSpec, broker: int, rows: int
) -> dict[str, float]:
    """Read the preloaded topics to their end; return rates and CPU."""
    kafka = psutil.Process(broker).cpu_times()
    progress = Progress(servers, f"{spec.prefix}.scores")
    began = time.perf_counter()
    with submitted(home, spec, JVM) as process:
        cpu = Cpu(process.pid)
        progress.start()
        process.wait()
        ended = time.perf_counter()
        used = cpu.close()
        progress.stop.set()
        progress.join()
        if process.returncode != 0:
            raise RuntimeError((home / f"{spec.name}.log").read_text()[-3000:])
    if not progress.is_complete or progress.seen[-1][1] < rows:
        raise RuntimeError(f"not all scores were committed: {progress.seen[-1][1]} of {rows}")
    after = psutil.Process(broker).cpu_times()
    warm, scored = progress.first(int(WARM_SHARE * rows))
    half, scored_half = progress.first(rows // 2)
    return {
        "tx_per_s": (rows - scored) / (progress.last_commit - warm),
        "tx_per_s_to_exit": (rows - scored) / (ended - warm),
        "tx_per_s_last_half": (rows - scored_half) / (progress.last_commit - half),
        "tx_per_s_with_start": rows / (ended - began),
        "start_s": progress.first(1)[0] - began,
        "rows_per_core_s": rows / used,
        "wall_s": ended - began,
        "flink_cpu_s": used,
        "broker_cpu_s": after.user + after.system - kafka.user - kafka.system,
    }


class Reader(threading.Thread):
    """Notes when each score can be read."""

    def __init__(self, servers: str, topic: str, isolation: str) -> None:
        super().__init__(daemon=True)
        from confluent_kafka import Consumer, TopicPartition

        self._consumer = Consumer(
            {
                "bootstrap.servers": servers,
                "group.id": isolation,
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 5,
                "log_level": 0,
            }
        )
        found = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        ends = [
            TopicPartition(
                topic, p, self._consumer.get_watermark_offsets(TopicPartition(topic, p))[1]
            )
            for p in found
        ]
        self._consumer.assign(ends)
        self.seen: dict[str, float] = {}
        self.stop = threading.Event()

    def run(self) -> None:
        while not self.stop.is_set():
            # One at a time: ``consume`` would wait for more, and that wait would count.
            message = self._consumer.poll(0.05)
            if message is not None and message.error() is None:
                event_id = orjson.loads(message.value())["event_id"]
                self.seen.setdefault(event_id, time.perf_counter())
        self._consumer.close()


def latency(
    home: Path, servers: str, spec: StreamSpec, bank: CardsConfig, seconds: float
) -> dict[str, float]:
    """Produce at a fixed rate; return quantiles of the way of a transaction in milliseconds."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "linger.ms": 0})
    scores = f"{spec.prefix}.scores"
    with submitted(home, spec):
        readers = [Reader(servers, scores, f"read_{kind}") for kind in ("uncommitted", "committed")]
        for reader in readers:
            reader.start()
        sent: dict[str, float] = {}
        began = time.perf_counter()
        for number, row in enumerate(bank_rows(bank)):
            due = began + number / LATENCY_RATE
            if due > began + WARM_UP_S + seconds:
                break
            while (wait := due - time.perf_counter()) > 0:
                time.sleep(wait)
                producer.poll(0)
            row.pop("fraud")
            producer.produce(
                f"{spec.prefix}.transactions", orjson.dumps(row), key=str(row["customer"])
            )
            if due > began + WARM_UP_S:
                sent[str(row["tx_id"])] = due
        producer.flush()
        time.sleep(PRESETS[spec.preset].checkpoint_ms / 1_000 + 3)  # the last ones are committed
        for reader in readers:
            reader.stop.set()
            reader.join()
    found: dict[str, float] = {"latency_sent": float(len(sent))}
    for reader, ending in zip(readers, ("", "_committed"), strict=True):
        ways = np.array([reader.seen[i] - t for i, t in sent.items() if i in reader.seen]) * 1e3
        found[f"latency_seen{ending}"] = float(len(ways))
        for share in (50, 99):
            found[f"p{share}_ms{ending}"] = float(np.percentile(ways, share))
    return found


def specs(home: Path, servers: str, bundle: Bundle, name: str, **changes: Any) -> StreamSpec:
    """Return the description of a job over the topics of stream ``name``."""
    model = place_model(bundle.folder, home / "models")
    return StreamSpec(
        name=name,
        models=str(home / "models"),
        model=model.folder.name,
        rules=RULES,
        kafka=servers,
        target="local",
        epoch=new_epoch(time.time()),
        start="earliest",
        **changes,
    )


def run(
    home: Path, models: Path, *, rows: int, parallelism: int, seconds: float, smoke: bool
) -> Any:
    """Measure everything with a broker of its own in ``home``."""
    settings = Settings(home=home)  # type: ignore[call-arg]  # the others have defaults
    bank = SMALL_BANK if smoke else BANK
    servers = start_service(settings, "kafka").url
    result: dict[str, Any] = {}
    try:
        state = load_state(settings, "kafka")
        assert state is not None
        for name, graph in (("tabular", False), ("both", True)):
            bundle = serving_model(models, graph=graph, smoke=smoke)
            ensure_topics(servers, StreamTopics(name, partitions=parallelism).all)
            count = min(rows, ROWS_BOTH) if graph else rows
            filled = fill(servers, f"penstock.{name}", bank, count, parallelism)
            spec = specs(
                home,
                servers,
                bundle,
                name,
                preset="throughput",
                bounded=True,
                parallelism=parallelism,
            )
            found = throughput(home, servers, spec, state.pid, filled.transactions)
            if name == "tabular":
                messages = committed_messages(servers, f"penstock.{name}.scores")
                ids = np.fromiter((int(m["event_id"]) for m in messages), np.int64)
                different = len(np.unique(ids))
                result |= found | {
                    "rows": filled.transactions,
                    "labels": filled.labels,
                    "lost": filled.transactions - different,
                    "duplicated": len(ids) - different,
                }
                os.sync()  # the gigabytes of the run before are not live traffic's to write
                live = specs(home, servers, bundle, "live", preset="latency")
                ensure_topics(servers, StreamTopics("live", partitions=1).all)
                result |= latency(home, servers, live, bank, seconds)
            else:
                result |= {f"{key}_both": value for key, value in found.items()}
    finally:
        end_service(settings, "kafka")
    return result


def main(argv: list[str] | None = None) -> None:
    """Command line of the benchmark."""
    arguments = parser("stream-e2e", "Kafka to Kafka with scores, exactly once")
    arguments.add_argument(
        "--rows", type=int, default=0, help=f"(default {ROWS:,}, both: {ROWS_BOTH:,})"
    )
    arguments.add_argument("--parallelism", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=60.0, help="of live traffic")
    args = arguments.parse_args(argv)
    rows = args.rows or (SMOKE_ROWS if args.smoke else ROWS)
    base = get_settings().home / "bench"
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="stream-e2e-", dir=base) as folder:
        result = run(
            Path(folder),
            base / "models",
            rows=rows,
            parallelism=args.parallelism,
            seconds=3.0 if args.smoke else args.seconds,
            smoke=args.smoke,
        )
    table("stream, end to end", ("key", "value"), list(result.items()))
    emit(result, args)


if __name__ == "__main__":
    run_program("stream-e2e", main)
