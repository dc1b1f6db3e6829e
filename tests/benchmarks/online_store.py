"""Online store: reads of one transaction's state while another process writes, and writes.

The store holds cards and terminals with blocks of the default spec and their waiting labels. A
process of its own writes newer versions at a steady rate, cards and terminals drawn by Zipf's law;
this process times every read. LMDB: the 4 parts of one transaction (``lmdb_*``), and the same with
decoding, joining and the release of due labels (``lmdb_view_*``). Redis: 20 parts in one command
(``redis_*``), the server on loopback on the same cores. Then the other process is stopped and this
one writes as fast as it can: LMDB with its data flushed at every commit of 2,000 records, Redis
without persistence.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.online_store import OnlineStore, Record, open_store, read_views
from connectors.online_store.record import VERSION_AT
from connectors.online_store.seed import state_records
from connectors.online_store.view import part_keys
from kernels.entity_state import EntityState, StateSpec, entity_features
from tests.benchmarks._harness import emit, parser, run_program, stopwatch, table
from tests.benchmarks._redis import MISSING, redis_server

DAY = 86_400_000
NOW = 1_700_000_000_000
SPECS = {"card": StateSpec(), "terminal": StateSpec()}
ZIPF = 1.1
REDIS_KEYS = 20


def histories(cards: int, seed: int) -> dict[str, EntityState]:
    """Return the state after ten days of payments, six a card; a tenth as many terminals."""
    rng = np.random.default_rng(seed)
    n = 6 * cards
    moment = NOW - np.sort(rng.integers(0, 10 * DAY, n))[::-1]
    rows = (moment, np.arange(n), rng.integers(100, 20_000, n), (rng.random(n) < 0.01).astype("i1"))
    found = {}
    for kind, count in sizes(cards).items():
        keys = rng.integers(0, count, (n, 1), dtype=np.int32)
        spec = SPECS[kind]
        _, state = entity_features(
            *rows, moment + spec.delay, keys, spec=spec, n_entities=count, keep_state=True
        )
        assert state is not None
        found[kind] = state
    return found


def sizes(cards: int) -> dict[str, int]:
    """Return the number of entities by kind."""
    return {"card": cards, "terminal": max(cards // 10, 1)}


def draws(count: int, n: int, rng: np.random.Generator) -> list[str]:
    """Return ids drawn by Zipf's law; which ids are popular is left to chance."""
    weight = 1 / np.arange(1, count + 1) ** ZIPF
    chosen = rng.choice(count, n, p=weight / weight.sum())
    return [str(entity) for entity in rng.permutation(count)[chosen]]


def transactions(cards: int, n: int, seed: int) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Return the entities of n transactions."""
    rng = np.random.default_rng(seed)
    columns = [[(kind, e) for e in draws(c, n, rng)] for kind, c in sizes(cards).items()]
    return list(zip(*columns, strict=True))


def newer(records: Sequence[Record | None], version: int) -> list[Record]:
    """Return records with another version, their bytes otherwise the same."""
    head, tail = VERSION_AT, VERSION_AT + 8
    raw = version.to_bytes(8, "little")
    return [Record(r.key, r.value[:head] + raw + r.value[tail:]) for r in records if r is not None]


def write_steadily(url: str, cards: int, rate: int, seed: int) -> None:
    """Write ``rate`` records a second in batches of 50 ms until the process is ended."""
    pairs = transactions(cards, 10_000, seed)
    keys = [key for pair in pairs for e in pair for key in part_keys(*e, SPECS[e[0]])]
    version, at, batch = 2**62, 0, max(rate // 20, 1)
    with open_store(url) as store:
        known = dict(zip(keys, store.read(keys), strict=True))
        sys.stdout.write("writing\n")
        sys.stdout.flush()
        due = time.perf_counter()
        while True:
            version += 1
            store.write(newer([known[key] for key in keys[at : at + batch]], version))
            at = (at + batch) % len(keys)
            due += 0.05
            time.sleep(max(due - time.perf_counter(), 0))


@contextmanager
def writer_beside(url: str, cards: int, rate: int, seed: int) -> Iterator[None]:
    """Run `write_steadily` in a process of its own while the block lasts."""
    given = [url, str(cards), str(rate), str(seed)]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.online_store", "--write", *given],
        cwd=Path(__file__).resolve().parents[2],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != b"writing\n":
            raise RuntimeError("the writing process did not start")
        yield
    finally:
        process.kill()
        process.communicate()


def latencies(calls: Sequence[Callable[[], Any]]) -> NDArray[np.float64]:
    """Return what each call took, microseconds; the first tenth warms caches and is left out."""
    clock, took = time.perf_counter_ns, []
    for call in calls:
        begun = clock()
        call()
        took.append(clock() - begun)
    return np.array(took[len(took) // 10 :]) / 1000


def percentiles(name: str, took: NDArray[np.float64]) -> dict[str, float]:
    """Return the keys of one kind of read."""
    return {
        f"{name}_p50_us": float(np.percentile(took, 50)),
        f"{name}_p99_us": float(np.percentile(took, 99)),
        f"{name}_p999_us": float(np.percentile(took, 99.9)),
    }


def write_rate(store: OnlineStore, cards: int, n: int, seed: int) -> dict[str, float]:
    """Return records and core-seconds of writing n newer records, keys by Zipf's law."""
    pairs = transactions(cards, n // 4, seed + 1)
    keys = [key for pair in pairs for e in pair for key in part_keys(*e, SPECS[e[0]])]
    found = store.read(list(dict.fromkeys(keys)))
    known = {r.key: r for r in found if r is not None}
    records = [newer([known[key]], 2**63 + i)[0] for i, key in enumerate(keys)]
    with stopwatch() as spent:
        store.write(records)
        store.flush()
    return {"per_s": len(records) / spent.wall, "per_core_s": len(records) / spent.cpu}


def fill(store: OnlineStore, states: dict[str, EntityState]) -> float:
    """Write all states; returns entities per second."""
    with stopwatch() as spent:
        for kind, state in states.items():
            ids = np.arange(len(state.blocks)).astype(str)
            store.write(state_records(state, kind, ids, 1, mail=True))
        store.flush()
    return sum(len(state.blocks) for state in states.values()) / spent.wall


def measure_lmdb(folder: Path, states: dict[str, EntityState], args: Any) -> dict[str, float]:
    """Return the figures of LMDB."""
    url, cards = f"lmdb://{folder}/store?map_mib=4096", args.entities
    with open_store(url) as store:
        seeded = fill(store, states)
    with (
        writer_beside(url, cards, args.write_rate, args.seed),
        open_store(url, read_only=True) as store,
    ):
        pairs = transactions(cards, args.reads, args.seed + 2)
        keys = [[k for e in pair for k in part_keys(*e, SPECS[e[0]])] for pair in pairs]
        read = latencies([lambda k=k: store.read(k) for k in keys])
        views = latencies([lambda p=p: look(store, p) for p in pairs])
    with open_store(url) as store:
        writes = write_rate(store, cards, args.writes, args.seed)
    return {
        **percentiles("lmdb", read),
        **percentiles("lmdb_view", views),
        "writes_per_s": writes["per_s"],
        "writes_per_core_s": writes["per_core_s"],
        "seed_entities_per_s": seeded,
        "lmdb_mib": (folder / "store" / "data.mdb").stat().st_size / 2**20,
    }


def look(store: OnlineStore, pair: Sequence[tuple[str, str]]) -> None:
    """Read the state of a transaction's entities as a scorer does."""
    for view in read_views(store, pair, SPECS):
        view.release(NOW + DAY, 2**40)


def measure_redis(states: dict[str, EntityState], args: Any) -> dict[str, float]:
    """Return the figures of Redis, or none where it is not installed."""
    if shutil.which("redis-server") is None:
        print(MISSING, file=sys.stderr)
        return {}
    cards = args.entities
    with redis_server() as server, open_store(server.url) as store:
        fill(store, states)
        pairs = transactions(cards, args.reads * REDIS_KEYS // 4, args.seed + 2)
        keys = [key for pair in pairs for e in pair for key in part_keys(*e, SPECS[e[0]])]
        asked = [keys[i : i + REDIS_KEYS] for i in range(0, len(keys), REDIS_KEYS)]
        with writer_beside(server.url, cards, args.write_rate, args.seed):
            read = latencies([lambda k=k: store.read(k) for k in asked])
            four = latencies([lambda k=k: store.read(k[:4]) for k in asked[: args.reads // 2]])
        writes = write_rate(store, cards, args.writes, args.seed)
    return {
        **percentiles("redis", read),
        **percentiles("redis_4_keys", four),
        "redis_writes_per_s": writes["per_s"],
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Run the benchmark, or the process that writes beside it."""
    made = parser("online-store", __doc__.splitlines()[0])
    made.add_argument("--entities", type=int, default=0, help="cards (default 100,000)")
    made.add_argument("--reads", type=int, default=0, help="timed reads (default 40,000)")
    made.add_argument("--writes", type=int, default=0, help="timed writes (default 200,000)")
    made.add_argument("--write-rate", type=int, default=5_000, help="records/s beside the reads")
    made.add_argument("--folder", default="", help="where LMDB's file goes (default: temporary)")
    made.add_argument("--write", nargs=4, help="only write: URL, cards, records/s, seed")
    args = made.parse_args(argv)
    if args.write:
        url, *numbers = args.write
        write_steadily(url, *map(int, numbers))
    args.entities = args.entities or (2_000 if args.smoke else 100_000)
    args.reads = args.reads or (1_000 if args.smoke else 40_000)
    args.writes = args.writes or (4_000 if args.smoke else 200_000)

    states = histories(args.entities, args.seed)
    place = nullcontext(args.folder) if args.folder else tempfile.TemporaryDirectory()
    with place as folder:
        result = measure_lmdb(Path(folder), states, args)
    result |= measure_redis(states, args)
    show(result, args)
    emit({"entities": sum(sizes(args.entities).values()), **result}, args)


def show(result: dict[str, float], args: Any) -> None:
    """Print the table for people."""
    names = [
        ("LMDB, 4 parts", "lmdb"),
        ("LMDB, 4 parts joined, labels released", "lmdb_view"),
        (f"Redis, {REDIS_KEYS} parts", "redis"),
        ("Redis, 4 parts", "redis_4_keys"),
    ]
    redis = f"{result['redis_writes_per_s']:,.0f}" if "redis_p50_us" in result else "-"
    table(
        f"{sum(sizes(args.entities).values()):,} entities, {args.write_rate:,} writes/s beside",
        ("read", "p50 us", "p99 us", "p99.9 us"),
        [
            (title, *(result[f"{name}_{p}_us"] for p in ("p50", "p99", "p999")))
            for title, name in names
            if f"{name}_p50_us" in result
        ],
        note=f"writes/s: LMDB {result['writes_per_s']:,.0f}, Redis {redis}",
    )


if __name__ == "__main__":
    run_program("online-store", main)
